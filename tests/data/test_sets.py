"""Splits, statistics and the sets in memory and in files."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_files import picture

from crosshead.data.base import ArrayImages, FileImages, dataset_info
from crosshead.data.datasets.held_out import stratified_split
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import BrokenImage
from crosshead.data.random import keys, uniforms
from crosshead.recipe.schema import DataConfig


def test_a_split_holds_out_the_share_of_every_class() -> None:
    targets = [0] * 50 + [1] * 20 + [2] * 2
    rest, held = stratified_split(targets, 0.1, purpose="t", seed=0)
    assert sorted([*rest, *held]) == list(range(72))
    assert np.bincount(np.array(targets)[held]).tolist() == [5, 2, 1]


def test_a_split_follows_its_seed_alone() -> None:
    targets = [0, 1] * 50
    again = [stratified_split(targets, 0.3, purpose="t", seed=seed)[1].tolist() for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_many_classes_are_split_as_one_by_one_and_at_once() -> None:
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(40_000), 3)).tolist()
    started = time.perf_counter()
    rest, held = stratified_split(targets, 0.4, purpose="t", seed=0)
    assert time.perf_counter() - started < 5, "a pass over all pictures for each class takes half a minute"
    assert (np.bincount(np.array(targets)[held]) == 1).all() and len(rest) + len(held) == len(targets)
    few = np.flatnonzero(np.array(targets) == 7)
    draw = uniforms(keys("t", 0, 0, np.arange(len(targets))), 1)[:, 0]
    assert few[draw[few].argmin()] in held


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_leaves_nothing_is_an_error(share: float) -> None:
    with pytest.raises(ValueError, match=r"data.validation is .*above 0 and below 1"):
        stratified_split([0, 0, 1, 1], share, purpose="t", seed=0)


def test_a_class_of_one_picture_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="class 1 has 1 picture"):
        stratified_split([0, 0, 1], 0.5, purpose="t", seed=0)


def test_statistics_follow_the_channels_and_the_recipe() -> None:
    assert dataset_info(DataConfig(channels=3), "ab", (0.5,), (0.25,)).mean == (0.5, 0.5, 0.5)
    grey = dataset_info(DataConfig(channels=1), "ab", (0.25, 0.5, 0.75), (0.25, 0.25, 0.25))
    assert (grey.mean, grey.std, grey.channels) == ((0.5,), (0.25,), 1)
    own = dataset_info(DataConfig(mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0]), "ab", (0.5,), (0.5,))
    assert own.mean == (0.1, 0.2, 0.3)
    with pytest.raises(ValueError, match=r"data.mean has 1 numbers and data.channels is 3"):
        dataset_info(DataConfig(mean=[0.1]), "ab", (0.5,), (0.5,))
    with pytest.raises(ValueError, match="above 0"):
        dataset_info(DataConfig(std=[0.1, 0.0, 0.1]), "ab", (0.5,), (0.5,))


def test_pictures_in_memory_keep_their_number_in_a_subset() -> None:
    pixels = torch.arange(5 * 3 * 2 * 4, dtype=torch.uint8).view(5, 3, 2, 4)
    images = ArrayImages(pixels, np.array([0, 1, 0, 1, 0]), "toy").subset(np.array([4, 1]))
    assert len(images) == 2 and images.targets == [0, 1] and images.name(0) == "toy[4]"
    loaded = torch.from_numpy(np.array(images.load(0))).permute(2, 0, 1)
    assert loaded.equal(pixels[4])
    grey = ArrayImages(pixels[:, :1], np.zeros(5, dtype=np.int64), "grey").load(2)
    assert grey.mode == "L" and torch.from_numpy(np.array(grey)).equal(pixels[2, 0])


def test_files_are_loaded_by_path_and_refused_ones_are_not_opened(tmp_path: Path) -> None:
    for name in "ab":
        picture().save(tmp_path / f"{name}.png")
    refused = {str(tmp_path / "b.png"): "because"}
    images = FileImages([tmp_path / "a.png", tmp_path / "b.png"], [0, 1], Decoding(), refused)
    assert images.load(0).size == (16, 12) and images.name(0) == str(tmp_path / "a.png")
    with pytest.raises(BrokenImage, match=r"b\.png: because"):
        images.subset(np.array([1])).load(0)
