"""The embedded data set and its splits."""

import numpy as np
import torch

from crosshead.data.base import ArrayImages, ImageSet
from crosshead.recipe.schema import DataConfig
from opening import open_data


def names(images: ImageSet | None) -> set[str]:
    assert images is not None
    return {images.name(i) for i in range(len(images))}


def test_the_three_splits_share_nothing_and_leave_nothing() -> None:
    splits = open_data(DataConfig(), seed=0)
    parts = [names(part) for part in (splits.train, splits.validation, splits.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1797
    assert 0.19 < len(parts[2]) / 1797 < 0.21
    assert splits.test is not None and np.bincount(splits.test.targets).min() > 30


def test_the_test_set_is_the_same_for_every_seed_and_the_validation_split_is_not() -> None:
    first, second = (open_data(DataConfig(), seed=seed) for seed in (0, 1))
    assert names(first.test) == names(second.test)
    assert names(first.validation) != names(second.validation)
    assert names(first.validation) == names(open_data(DataConfig(), seed=0).validation)


def test_the_statistics_are_those_of_the_pixels() -> None:
    splits = open_data(DataConfig(channels=1), seed=0)
    assert isinstance(splits.train, ArrayImages) and isinstance(splits.validation, ArrayImages)
    pixels = torch.cat([splits.train.pixels, splits.validation.pixels]).float() / 255
    assert abs(pixels.mean().item() - splits.info.mean[0]) < 1e-3
    assert abs(pixels.std().item() - splits.info.std[0]) < 1e-3
    assert splits.info.class_names == tuple("0123456789") and splits.info.channels == 1
