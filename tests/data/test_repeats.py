"""Pictures with rare classes come more often, as the paper says, and the same after a stop."""

import numpy as np
import pytest
import torch

from coco_files import coco_folder
from crosshead.data.base import ArrayImages
from crosshead.data.batching.dense_batches import TrainingObjects
from crosshead.data.batching.labelled import TrainingBatches
from crosshead.data.batching.order import repeat_factors, repeat_order
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe import Recipe
from crosshead.recipe.schema import DataConfig
from map_files import map_folder
from opening import open_data, recipe_of


def classes_of(counts):
    targets = np.repeat(np.arange(len(counts)), counts)
    return ArrayImages(torch.zeros(len(targets), 1, 8, 8, dtype=torch.uint8), targets, "made")


def test_factors_are_the_papers():
    factors = repeat_factors(classes_of([90, 8, 2]), 0.1)
    wanted = [1.0, np.sqrt(0.1 / 0.08), np.sqrt(0.1 / 0.02)]
    assert factors[[0, 90, 98]] == pytest.approx(wanted) and len(factors) == 100


def test_several_labels_take_the_rarest():
    images = classes_of([10])
    images.targets = [[1.0, 0.0]] * 9 + [[1.0, 1.0]]
    assert repeat_factors(images, 0.4) == pytest.approx([1.0] * 9 + [2.0])
    images = classes_of([10])
    images.targets = [0.5] * 10
    with pytest.raises(ValueError, match="none of them is a rare class"):
        repeat_factors(images, 0.4)


def test_an_epoch_is_as_long_as_ever_and_rare_pictures_come_as_often_as_they_should():
    factors = repeat_factors(classes_of([90, 8, 2]), 0.1)
    seen = np.zeros(100)
    for epoch in range(300):
        order = repeat_order(96, factors, seed=0, epoch=epoch)
        assert len(order) == 96
        seen += np.bincount(order, minlength=100)
    share = seen / seen.sum()
    assert share[98:].mean() / share[:90].mean() == pytest.approx(np.sqrt(5), rel=0.05)
    again = repeat_order(96, factors, seed=0, epoch=7)
    assert (again == repeat_order(96, factors, seed=0, epoch=7)).all()
    assert (again != repeat_order(96, factors, seed=0, epoch=8)).any()


def test_a_picture_that_comes_twice_is_augmented_twice():
    recipe = Recipe(data=DataConfig(sampling="repeat_factor", repeat_threshold=1.0, batch_size=8))
    splits = open_splits(recipe)
    batches = TrainingBatches(splits.train, recipe.data, recipe.augment, splits.info, seed=0, epoch=0)
    one = batches[(0, np.array([5, 5]))]
    assert (one.images[0] != one.images[1]).any()
    assert (batches[(8, np.array([5, 5]))].images[0] != one.images[0]).any()


def test_objects_and_maps_tell_what_they_hold(tmp_path):
    objects = open_data(
        DataConfig(name="coco-folder", root=str(coco_folder(tmp_path / "coco")), validation=0.5)
    ).train
    maps = open_data(DataConfig(name="map-folder", root=str(map_folder(tmp_path / "maps", count=8)))).train
    for images in (objects, maps):
        held = []
        for i in range(len(images)):
            truth = images.sample(i)[1]
            held.append(
                {*truth.labels[~truth.crowd].tolist()} if images is objects else {*np.unique(truth)} - {255}
            )
        counts = {k: sum(k in each for each in held) for each in held for k in each}
        wanted = [max([1.0, *(np.sqrt(len(images) / counts[k]) for k in each)]) for each in held]
        assert repeat_factors(images, 1.0) == pytest.approx(wanted)


def test_a_task_of_objects_samples_so_and_not_by_balance(tmp_path):
    root = str(coco_folder(tmp_path / "coco"))
    recipe = recipe_of(
        DataConfig(name="coco-folder", root=root, validation=0.5, sampling="balanced", image_size=32)
    )
    splits = open_splits(recipe)
    batches = TrainingObjects(splits.train, recipe.data, recipe.augment, splits.info, seed=0, epoch=0)
    with pytest.raises(ValueError, match="expected uniform or repeat_factor"):
        batches.order(1)
