"""The recipes for one's own boxes, masks and maps: from files of a tool to a step of training."""

import numpy as np
import pytest

import tool_files
from crosshead.data.conversion.convert import convert
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe import load_recipe
from crosshead.tasks import open_task

SMALL = [
    "model.args.depths=[1,1,1,1]", "model.args.dims=[8,8,12,16]", "model.args.num_heads=[1,1,2,2]",
    "data.image_size=64",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "made", "more"),
    [
        ("detect_folder", tool_files.voc, ["data.eval_resize=64", "augment.mosaic=1"]),
        ("instances_folder", tool_files.cvat, ["data.eval_resize=64", "augment.copy_paste=1"]),
        ("segment_folder", tool_files.masks, ["augment.mosaic=1"]),
    ],
)
def test_a_step(tmp_path, name, made, more):
    report = convert(made(tmp_path / "in"), tmp_path / "out")
    # One of CVAT's objects is a box alone, from which no outline is learned.
    assert report.recipe == ("detect_folder" if name == "instances_folder" else name)
    recipe = load_recipe(name, [*SMALL, *more, f"data.root={tmp_path / 'out'}", "data.validation=0.34"])
    splits = open_splits(recipe)
    task = open_task(recipe, splits.info)
    model = task.build_model(from_weights=False)
    batch = task.training_batches(splits.train, seed=0, epoch=0)[0, np.zeros(2, np.int64)]
    losses = task.step(model.train(), batch).losses
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values()) and len(batch) == 2
