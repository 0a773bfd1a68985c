"""Workers that import everything anew, as on macOS and Windows, make the same batches for every task."""

import dataclasses

import numpy as np
import pytest
import torch

from crosshead.data.batching import workers
from crosshead.data.batching.batches import Batches
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe import load_recipe
from crosshead.tasks import open_task


class Several(Batches):
    """Batches of several kinds, so that one process is started for all of them."""

    def __init__(self, parts):
        super().__init__(parts[0].images, parts[0].data)
        self.parts = parts

    def __getitem__(self, place):
        which, indices = place
        return self.parts[which][0, indices]


def listed(name):
    """A task whose pictures have a number, or several labels."""
    numbers = name == "regress"
    recipe = load_recipe("digits", [f"task.name={name}", "augment.mixup=0", "augment.cutmix=0"])
    splits = open_splits(load_recipe("digits"))
    images = splits.validation
    images.targets = [float(i) if numbers else [i % 2, 1] for i in range(len(images))]
    names, scale = (("value",), (3.5, 2.0)) if numbers else (("a", "b"), None)
    return open_task(recipe, dataclasses.replace(splits.info, class_names=names, scale=scale)), images


def both(task, images):
    return [task.training_batches(images, seed=0, epoch=0), task.evaluation_batches(images)]


@pytest.fixture(scope="module")
def parts():
    found = []
    for name in ("digits", "scenes_upernet", "scenes_mask_rcnn"):
        recipe = load_recipe(name)
        splits = open_splits(recipe)
        found += both(open_task(recipe, splits.info), splits.train)
    for name in ("multilabel", "regress"):
        found += both(*listed(name))
    return found


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if not isinstance(value, list | tuple | dict):
        return []
    values = value.values() if isinstance(value, dict) else value
    return [each for item in values for each in flat(item)]


@pytest.mark.parametrize("method", [pytest.param("spawn", marks=pytest.mark.soak), "forkserver"])
def test_batches_of_every_task(parts, monkeypatch, method):
    monkeypatch.setattr(workers, "_start_method", lambda: method)
    own, places = workers.Workers(1), [(which, np.arange(2)) for which in range(len(parts))]
    try:
        made = list(own.make(Several(parts), places))
    finally:
        own.end()
    for batch, (which, indices) in zip(made, places, strict=True):
        here = parts[which][0, indices]
        assert len(batch) == len(here) == 2 and batch.names == here.names
        there = flat([batch.images, batch.targets, batch.index])
        assert all(
            a.equal(b) for a, b in zip(there, flat([here.images, here.targets, here.index]), strict=True)
        )
