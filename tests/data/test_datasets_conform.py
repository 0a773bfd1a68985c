"""What every data set keeps to; one joins by being registered. Those that lie in a folder are opened without one."""

import pickle

import pytest
from PIL import Image

from crosshead.data.base import Splits
from crosshead.data.datasets.registry import DATASETS, describe_dataset
from crosshead.recipe.schema import DataConfig
from opening import open_data


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_gives_pictures_by_split_or_asks_for_its_folder(name):
    assert describe_dataset(name) and "\n" not in describe_dataset(name)
    try:
        splits = open_data(DataConfig(name=name, validation=0.2), seed=0)
    except ValueError as error:
        assert "data.root" in str(error)
        return
    check_splits(splits)
    again = open_data(DataConfig(name=name, validation=0.2), seed=0)
    assert names(again.validation) == names(splits.validation)


def check_splits(splits: Splits) -> None:
    info = splits.info
    assert len(info.mean) == len(info.std) == info.channels
    seen = [names(images) for images in splits.parts().values()]
    assert all(seen) and sum(map(len, seen)) == len(set().union(*seen))  # a picture stands in one split
    for images in splits.parts().values():
        last = len(images) - 1
        assert isinstance(images.load(0), Image.Image)
        assert images.load(last).tobytes() == pickle.loads(pickle.dumps(images)).load(last).tobytes()


def names(images):
    return {images.name(i) for i in range(min(len(images), 200))}
