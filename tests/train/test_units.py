"""A loss over units that differ from batch to batch is divided by all of them, in whatever batches and processes."""

import torch
from runs import start, tiny_recipe, wait
from test_processes import PLAIN

from crosshead.tasks import ClassifyTask, Step
from crosshead.train.checkpoint.store import CheckpointStore, read_tensors
from tolerances import OUTPUT, assert_close


def weigh_by_class():
    """As many units an image as its class says, so that every batch has another number of them."""

    def weights(batch):
        return 1.0 + batch.targets.double()

    def step(task, network, batch):
        losses = torch.nn.functional.cross_entropy(network(batch.images), batch.targets, reduction="none")
        return Step({"loss": (losses * weights(batch)).sum()})

    ClassifyTask.units = lambda task, batch: {"loss": float(weights(batch).sum())}
    ClassifyTask.step = step


def test_units_are_summed_over_accumulated_batches_and_processes(tmp_path):
    settings = {**PLAIN, "augment": {**PLAIN.get("augment", {}), "mixup": 0.0, "cutmix": 0.0}}
    layouts = {"one": (24, 1, 1), "accumulated": (12, 2, 1), "apart": (6, 2, 2)}
    found = {}
    for name, (batch, accumulated, processes) in layouts.items():
        train_settings = {"accumulation_steps": accumulated, "steps": 3}
        lengths = {"schedule": {"warmup_steps": 1}, "train": train_settings}
        recipe = tiny_recipe(**settings, **lengths, data={"batch_size": batch})
        group = start(recipe, tmp_path / name, resume=False, processes=processes, prepare=weigh_by_class)
        assert wait(group) == [0] * processes
        found[name] = read_tensors(CheckpointStore(tmp_path / name).path(3))["model"]
    for name in ("accumulated", "apart"):
        for key, value in found["one"].items():
            assert_close(found[name][key], value, OUTPUT[torch.float32], f"{name}: {key}")
