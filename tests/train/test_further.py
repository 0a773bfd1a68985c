"""Callbacks of services and of other packages: what they are told, and that their failures cost nothing else."""

import sys
from types import SimpleNamespace

import pytest
from runs import StopAfter, Watcher, tiny_recipe

from crosshead.train import train
from crosshead.train.logging import services as further


def recipe(*names, **changes):
    return tiny_recipe(log={"callbacks": list(names)}, train={"epochs": 2}, **changes)


class FakeWandb:
    """What wandb is asked for."""

    def __init__(self):
        self.inits, self.logged, self.codes = [], [], []

    def init(self, **options):
        self.inits.append(options)
        return SimpleNamespace(
            log=lambda numbers, step: self.logged.append((step, numbers)),
            finish=lambda exit_code: self.codes.append(exit_code),
        )


def test_weights_and_biases_is_told_steps_and_evaluations_and_goes_on_after_a_resume(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    folder = tmp_path / "run"
    train(recipe("wandb"), folder=folder, callback=StopAfter(4))
    train(recipe("wandb"), folder=folder, resume=True)
    first, second = fake.inits
    assert first["id"] == second["id"] and len(first["id"]) == 12 and fake.codes == [1, 0]
    assert fake.inits[0]["config"]["model"]["name"] == "vit_tiny_patch16_224"
    steps = [step for step, numbers in fake.logged if "train/loss" in numbers]
    assert steps == list(range(1, 13))
    assert {"train/epoch_loss", "train/lr"} <= set(fake.logged[0][1])
    assert [step for step, numbers in fake.logged if "validation/loss" in numbers] == [6, 12]


class FakeMlflow:
    """What MLflow's client is asked for."""

    def __init__(self):
        self.metrics, self.params, self.ended = [], {}, []

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return "7"

    def create_run(self, experiment, run_name):
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run-{experiment}"))

    def log_param(self, run, key, value):
        self.params[key] = value

    def log_metric(self, run, name, value, step):
        self.metrics.append((run, name, step))

    def set_terminated(self, run, status):
        self.ended.append(status)


def test_mlflow_is_told_the_recipe_and_the_figures(tmp_path, monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "mlflow.tracking", SimpleNamespace(MlflowClient=lambda: fake))
    train(recipe("mlflow"), folder=tmp_path / "run")
    assert fake.params["train.epochs"] == "2" and fake.ended == ["FINISHED"]
    assert ("run-7", "train/loss", 12) in fake.metrics and ("run-7", "validation/loss", 12) in fake.metrics


def test_a_callback_of_another_package_is_found_and_its_failure_costs_nothing(tmp_path, monkeypatch, capsys):
    class Failing(Watcher):
        def on_step(self, record):
            raise RuntimeError("no answer")

    own, failing = Watcher(), Failing()
    offered = {"own": own, "failing": failing}
    points = [
        SimpleNamespace(name=name, load=lambda each=each: lambda folder, recipe: each)
        for name, each in offered.items()
    ]
    monkeypatch.setattr(further, "entry_points", lambda group: points if group == further.GROUP else [])
    result = train(recipe("own", "failing"), folder=tmp_path / "run")
    assert result.status == "finished" and len(own.records) == 15 and own.end.status == "finished"
    said = capsys.readouterr().err
    assert said.count("the log failing could not be written (RuntimeError: no answer)") == 1
    with pytest.raises(
        ValueError, match=r"no callback 'ownn'; did you mean own\? known are wandb, mlflow, own"
    ):
        train(recipe("ownn"), folder=tmp_path / "other")
