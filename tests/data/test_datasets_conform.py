"""What every data set keeps to; one joins by being registered. Those that lie in a folder are opened without one."""

import pickle
from dataclasses import replace

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


class _NoImageSet:
    """Has all that the loaders call, and says nothing of itself."""

    targets = (0, 1)

    def __len__(self):
        return 2


def test_a_split_that_is_no_image_set_is_refused_by_name(monkeypatch):
    good = open_data(DataConfig(name="digits", channels=1))
    splits = replace(good, validation=_NoImageSet())
    monkeypatch.setitem(DATASETS, "theirs", ("", lambda data, hold: splits))
    expected = "expected a crosshead.data.base.ImageSet for validation, got _NoImageSet: make it a subclass"
    with pytest.raises(ValueError, match=expected):
        open_data(DataConfig(name="theirs"))


@pytest.mark.parametrize("name", ["digits", "scenes", "scenes-semantic"])
def test_a_set_says_what_it_holds(name):
    """By declared attributes with defaults, which no one has to ask for with ``hasattr``."""
    images = open_data(DataConfig(name=name)).train
    assert images.counted == {"digits": "images", "scenes": "objects", "scenes-semantic": "pixels"}[name]
    assert images.generated == name.startswith("scenes") and not images.stored
    assert images.known_faults == [] and images.digest() is None
    images.precheck()
    with pytest.raises(NotImplementedError):
        images.source(0)
