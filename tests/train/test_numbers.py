"""A step whose loss or gradient is not finite is skipped by all, counted, and its images are named."""

import json

import pytest
import torch
from runs import StopAfter, Watcher, ending, start, tiny_recipe, wait

import crosshead.train.loop.loaders as loaders
from crosshead.data.batching.loader import training_loader
from crosshead.tasks import ClassifyTask
from crosshead.train import BadNumbers, train
from crosshead.train.checkpoint.store import CheckpointStore, read_tensors


def poison_loader(monkeypatch, epoch, places, ranks=(0,)):
    """NaN in the first image of the batches at ``places`` of ``epoch``."""

    def poisoned(batches, **options):
        for place, batch in enumerate(training_loader(batches, **options)):
            if batches.epoch == epoch and options["rank"] in ranks and place in places:
                batch.images[0, 0, 0, 0] = float("nan")
            yield batch

    monkeypatch.setattr(loaders, "training_loader", poisoned)


def test_a_nan_in_an_image_skips_the_step_and_names_the_image(tmp_path, monkeypatch):
    poison_loader(monkeypatch, epoch=1, places={4})
    watcher = Watcher()
    result = train(tiny_recipe(), folder=tmp_path / "run", callback=watcher)
    (bad,) = (event for event in watcher.events if event.kind == "bad_step")
    assert bad.step == 9 and "the loss is not finite" in bad.message
    assert len(bad.details["images"]) == 1 and bad.details["images"][0].startswith("digits")
    assert result.bad_steps == 1
    assert [record.skipped for record in watcher.records if hasattr(record, "skipped")].count(True) == 1
    assert all(
        each.isfinite().all()
        for each in read_tensors(CheckpointStore(tmp_path / "run").path(18))["model"].values()
    )


def test_a_skipped_step_changes_neither_weights_nor_averages_nor_running_statistics(tmp_path, monkeypatch):
    poison_loader(monkeypatch, epoch=0, places={2})
    model = {"name": "test_resnet", "drop_path_rate": 0.0, "args": {}}
    folder = tmp_path / "run"
    recipe = tiny_recipe(model=model, data={"image_size": 32}, checkpoint={"every_steps": 1, "keep_last": 9})
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"args": {}})})
    train(recipe, folder=folder, callback=StopAfter(1))
    before, after = (read_tensors(CheckpointStore(folder).path(step)) for step in (1, 2))
    assert any("running_mean" in name for name in before["model"])
    for part in ("model", "ema", "optimizer"):
        counts = [name for name in before[part] if name.endswith("num_batches_tracked")]
        for name in before[part].keys() - counts:
            assert torch.equal(before[part][name], after[part][name]), name


class InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


def test_an_infinite_gradient_of_a_finite_loss_skips_the_step(tmp_path, monkeypatch):
    calls, original = [], ClassifyTask.loss

    def loss(task, predictions, batch):
        calls.append(1)
        value = original(task, predictions, batch)
        return InfiniteGradient.apply(value) if len(calls) == 6 else value

    monkeypatch.setattr(ClassifyTask, "loss", loss)
    watcher = Watcher()
    assert train(tiny_recipe(), folder=tmp_path / "run", callback=watcher).bad_steps == 1
    (bad,) = (event for event in watcher.events if event.kind == "bad_step")
    assert bad.step == 3 and "the gradient is not finite" in bad.message and len(bad.details["images"]) == 24


def test_too_many_in_a_row_stop_the_run_with_a_good_checkpoint_in_place(tmp_path, monkeypatch):
    poison_loader(monkeypatch, epoch=1, places=set(range(4, 12)))
    recipe = tiny_recipe(train={"max_bad_steps": 3})
    watcher = Watcher()
    with pytest.raises(BadNumbers, match="3 steps in a row had a loss or gradient that is not finite"):
        train(recipe, folder=tmp_path / "run", callback=watcher)
    assert watcher.end.status == "failed"
    path, damages = CheckpointStore(tmp_path / "run").newest_good()
    assert path is not None and not damages
    assert all(value.isfinite().all() for value in read_tensors(path)["model"].values())


def test_bad_steps_apart_from_each_other_do_not_stop_the_run(tmp_path, monkeypatch):
    poison_loader(monkeypatch, epoch=1, places={0, 4, 8})
    result = train(tiny_recipe(train={"max_bad_steps": 2}), folder=tmp_path / "run")
    assert (result.status, result.bad_steps) == ("finished", 3)


def test_a_run_whose_every_step_was_skipped_is_not_finished(tmp_path, monkeypatch):
    def poisoned(batches, **options):
        for batch in training_loader(batches, **options):
            batch.images[0, 0, 0, 0] = float("nan")
            yield batch

    monkeypatch.setattr(loaders, "training_loader", poisoned)
    recipe = tiny_recipe(train={"max_bad_steps": 100})
    for resume in (False, True):
        with pytest.raises(BadNumbers, match="all 18 steps were skipped"):
            train(recipe, folder=tmp_path / "run", resume=resume)
    assert not (tmp_path / "run" / "result.json").exists()


def poison_rank_one():
    poison_loader(pytest.MonkeyPatch(), epoch=1, places={2}, ranks=(1,))


def test_when_one_process_has_bad_numbers_all_skip_the_step_together(tmp_path):
    folder = tmp_path / "run"
    recipe = tiny_recipe(data={"batch_size": 6}, train={"epochs": 2})
    assert wait(start(recipe, folder, resume=False, processes=2, prepare=poison_rank_one)) == [0, 0]
    assert ending(folder)["progress"]["bad_steps"] == 1
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    messages = [event["message"] for event in events if event["kind"] == "bad_step"]
    assert any("process 1" in message and "loss" in message for message in messages)


def test_the_search_for_the_float16_scale_is_not_counted_as_bad(tmp_path, monkeypatch):
    """A loss so large that its scaled gradient overflows: the scale is halved until it fits."""
    original = ClassifyTask.loss
    monkeypatch.setattr(ClassifyTask, "loss", lambda *given: original(*given) * 300)
    watcher = Watcher()
    recipe = tiny_recipe(train={"precision": "fp16", "max_bad_steps": 2, "epochs": 2})
    result = train(recipe, folder=tmp_path / "run", callback=watcher)
    skipped = [record.skipped for record in watcher.records if hasattr(record, "skipped")]
    assert skipped.count(True) > 2 and not skipped[-1]
    assert result.status == "finished" and result.bad_steps == 0
