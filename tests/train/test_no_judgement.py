"""A judgement that can't be made is none: never selected, told, and a run that has no other is no good run."""

import json
import math
import signal

import pytest
import torch
from dense_runs import dense_recipe, few_scenes
from runs import StopAfter, Watcher, tiny_recipe
from test_listed_tasks import PLAIN, pictures, table
from test_numbers import poison_loader

import crosshead.train.loop.finish as outcome
from crosshead.cli import main
from crosshead.data.batching.loader import evaluation_loader
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe.schema import DetectorConfig
from crosshead.tasks import METRICS, ClassifyTask, open_task
from crosshead.tasks.protocol import NOT_FINITE
from crosshead.train import BadNumbers, Result, train
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.distributed.groups import World
from crosshead.train.logging.log_files import METRICS_FILE, read_lines
from crosshead.train.loop.evaluate import evaluate


def listed(root, name):
    column = {"multilabel": "labels", "regress": "value"}[name]
    rows = pictures(root, 24)
    splits = ["train"] * 12 + ["val"] * 12
    table(
        root, [{"path": r["path"], "split": s, column: r[column]} for r, s in zip(rows, splits, strict=True)]
    )
    data = {"name": "csv", "root": str(root), "image_size": 8, "batch_size": 12}
    return tiny_recipe(data=data, augment=PLAIN, task={"name": name})


def retinanet():
    recipe = dense_recipe("detect")
    detector = DetectorConfig.model_validate({"name": "retinanet", "pyramid": {"width": 8}})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"detector": detector})})


RECIPES = {
    "classify": lambda root: tiny_recipe(),
    "multilabel": lambda root: listed(root, "multilabel"),
    "regress": lambda root: listed(root, "regress"),
    "segment": lambda root: dense_recipe("segment"),
    "detect": lambda root: dense_recipe("detect"),
    "retinanet": lambda root: retinanet(),
}


@pytest.mark.parametrize("name", RECIPES)
def test_predictions_that_are_not_finite_are_no_judgement(tmp_path, monkeypatch, name):
    few_scenes()
    recipe = RECIPES[name](tmp_path / "data")
    splits = open_splits(recipe)
    task = open_task(recipe, splits.info)
    torch.manual_seed(0)
    model = task.build_model(from_weights=False)
    with torch.no_grad():
        *_, last = (p for n, p in model.named_parameters() if p.ndim == 1 and "auxiliary" not in n)
        last.fill_(math.nan)
    images = splits.validation
    loader = evaluation_loader(task.evaluation_batches(images), rank=0, world_size=1, policy="on_broken_eval")
    eval_result = evaluate(task, model, loader, images=len(images), world=World())
    assert "is not finite" in eval_result.fault and eval_result.metrics["count"] == len(images)
    assert all(math.isnan(eval_result.metrics[each]) for each in (task.primary.name, *task.shown))
    assert not eval_result.details and "calibration_error" not in eval_result.metrics
    assert not task.primary.selects(eval_result.metrics, {})
    (answer,) = task.predictions_of(model.eval(), [task.preprocess(images.load(0))])
    assert answer["fault"] == NOT_FINITE and task.format_lines(answer) is not None
    assert not answer.get("predictions") and not answer.get("objects") and answer.get("value") is None
    assert "NaN" not in json.dumps(answer)


@pytest.mark.parametrize("name", ["loss", "accuracy", "mae", "calibration_error"])
def test_nan_wins_no_comparison(name):
    metric = METRICS[name]
    for wrong in (math.nan, math.inf, -math.inf):
        assert not metric.selects({name: wrong}, {name: 0.5}) and not metric.selects({name: wrong}, {})
    assert metric.selects({name: 0.5}, {name: math.nan}) and metric.selects({name: 0.5}, {})
    assert not metric.selects({}, {name: 0.5}) and metric.text(math.nan) == "-"


def average_breaks(monkeypatch, evaluations):
    """NaN predictions in these evaluations of a run, counted from 1."""
    count, original = [0], ClassifyTask.evaluation

    def evaluation(task, **options):
        count[0] += 1
        return original(task, **options)

    said = ClassifyTask.predict
    monkeypatch.setattr(ClassifyTask, "evaluation", evaluation)
    monkeypatch.setattr(
        ClassifyTask,
        "predict",
        lambda task, model, batch: said(task, model, batch) * (math.nan if count[0] in evaluations else 1),
    )


def test_a_validation_without_a_judgement_is_told_and_never_the_best(tmp_path, monkeypatch):
    average_breaks(monkeypatch, {1, 3})
    watcher = Watcher()
    result = train(tiny_recipe(), folder=tmp_path / "run", callback=watcher)
    assert (result.status, result.selected_step) == ("finished", 12)
    told = [event for event in watcher.events if event.kind == "no_judgement"]
    assert [event.step for event in told] == [6, 18]
    assert "1293 of 1293 images is not finite" in told[0].message
    assert [record.best for record in watcher.records if hasattr(record, "best")] == [
        False,
        True,
        False,
        False,
    ]
    logged = [each for each in read_lines(tmp_path / "run" / METRICS_FILE) if each["kind"] == "eval"]
    assert logged[0]["metrics"]["accuracy"] is None


@pytest.mark.parametrize(("broken", "epochs", "steps"), [({1, 2}, 2, 12), ({2, 3, 4}, 5, 24)])
def test_a_run_that_goes_on_without_a_judgement_ends_as_one_whose_numbers_went_wrong(
    tmp_path, monkeypatch, broken, epochs, steps
):
    average_breaks(monkeypatch, broken)
    folder = tmp_path / "run"
    with pytest.raises(BadNumbers, match="no judgement"):
        train(tiny_recipe(train={"epochs": epochs}), folder=folder)
    assert CheckpointStore(folder).steps()[-1] == steps
    assert not (folder / "result.json").exists()
    average_breaks(monkeypatch, set())
    assert train(tiny_recipe(train={"epochs": epochs + 1}), folder=folder, resume=True).status == "finished"


def test_eval_says_that_it_is_no_judgement(tmp_path, monkeypatch, capsys, unstopped):
    average_breaks(monkeypatch, {1, 2})
    assert main(["eval", str(unstopped)]) == 65
    said = capsys.readouterr()
    assert "accuracy -" in said.out and "no judgement" in said.err and "not finite" in said.err
    assert main(["eval", str(unstopped), "--json"]) == 65
    assert json.loads(capsys.readouterr().out)["accuracy"] is None


def test_a_run_made_shorter_is_validated_before_it_is_finished(tmp_path):
    folder = tmp_path / "run"
    long = tiny_recipe(train={"epochs": 9, "eval_every_epochs": 9})
    train(long, folder=folder, callback=StopAfter(13))
    short = tiny_recipe(train={"epochs": 2, "eval_every_epochs": 9})
    result = train(short, folder=folder, resume=True)
    assert result.status == "finished" and result.validation["count"] > 0
    assert train(short, folder=folder, resume=True).validation == result.validation


def test_the_test_is_of_the_step_whose_weights_are_tested_and_the_time_of_all_legs(tmp_path, monkeypatch):
    average_breaks(monkeypatch, {2, 3})
    folder, watcher = tmp_path / "run", StopAfter(7)
    before = train(tiny_recipe(), folder=folder, callback=watcher).seconds
    average_breaks(monkeypatch, {1, 2})
    watcher = Watcher()
    result = train(tiny_recipe(), folder=folder, resume=True, callback=watcher)
    assert result.selected_step == 6 and result.seconds > before > 0
    (test,) = [record for record in watcher.records if getattr(record, "split", "") == "test"]
    assert (test.step, test.epoch) == (6, 1.0)


def test_a_stop_in_the_final_test_is_obeyed_and_the_test_repeated(tmp_path, monkeypatch, unstopped):
    folder, original = tmp_path / "run", outcome.load_weights

    def load_and_stop(*given):
        original(*given)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(outcome, "load_weights", load_and_stop)
        result = train(tiny_recipe(), folder=folder)
    assert (result.status, result.exit_code, result.test) == ("stopped", 75, {})
    assert not (folder / "result.json").exists()
    assert train(tiny_recipe(), folder=folder, resume=True).test == Result.load(unstopped).test


def test_the_mean_loss_of_no_good_step_is_none(tmp_path, monkeypatch):
    poison_loader(monkeypatch, epoch=0, places={0, 1})
    train(tiny_recipe(train={"epochs": 2}), folder=tmp_path / "run")
    steps = [each for each in read_lines(tmp_path / "run" / METRICS_FILE) if each["kind"] == "step"]
    assert steps[0]["epoch_loss"] is None and steps[1]["epoch_loss"] > 0


def test_an_error_in_drawing_does_not_fail_a_finished_run(tmp_path, monkeypatch):
    def broken(folder):
        raise ValueError("no font was found")

    monkeypatch.setattr(outcome, "draw_curves", broken)
    watcher = Watcher()
    result = train(tiny_recipe(train={"epochs": 2}), folder=tmp_path / "run", callback=watcher)
    assert (result.status, watcher.end.status) == ("finished", "finished")
    assert any("no font was found" in event.message for event in watcher.events)
