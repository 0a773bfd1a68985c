"""What a run leaves in its folder, and the options of the loop."""

import json
import math
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from runs import TINY, Watcher, ending, tiny_recipe

import crosshead.models  # noqa: F401 - registers the models
from crosshead.recipe import load_recipe
from crosshead.tasks import EvalResult
from crosshead.tasks.classify.evaluation import ClassifyEvaluation
from crosshead.train import Result, evaluate_run, train
from crosshead.train.checkpoint.store import CheckpointStore, read_tensors
from crosshead.train.loop import devices
from crosshead.train.loop.model import count_gmacs
from crosshead.train.run_folder.folder import free_folders, last_folder


def test_a_run_leaves_everything_that_is_needed_to_understand_it(unstopped):
    assert load_recipe(unstopped / "recipe.yaml") == tiny_recipe()
    assert {"torch", "timm", "python"} <= json.loads((unstopped / "versions.json").read_text()).keys()
    assert json.loads((unstopped / "classes.json").read_text())["class_names"] == [
        str(digit) for digit in range(10)
    ]
    with Image.open(unstopped / "curves.png") as curves:
        curves.load()
    result = Result.load(unstopped)
    assert result.exit_code == 0 and result.step == 18
    assert result.test["count"] == 359 and result.validation["count"] == 1293
    assert result.images_per_second > 0 and result.parameters > 0 and result.gmacs > 0
    assert result.test_images_per_second > 0 and 50 < result.peak_memory_mib < 20_000


def test_the_test_split_is_looked_at_once_and_at_the_end(tmp_path):
    watcher = Watcher()
    train(tiny_recipe(), folder=tmp_path / "run", callback=watcher)
    splits = [record.split for record in watcher.records if hasattr(record, "split")]
    assert splits == ["validation"] * 3 + ["test"]
    assert watcher.end.status == "finished"


def test_the_best_validation_is_selected_and_its_weights_are_tested(tmp_path, monkeypatch):
    accuracies = iter([0.3, 0.9, 0.5, 0.7])  # three validations, one test
    original = ClassifyEvaluation.compute

    def compute(*given):
        return EvalResult({**original(*given).metrics, "accuracy": next(accuracies)})

    monkeypatch.setattr(ClassifyEvaluation, "compute", compute)
    result = train(tiny_recipe(), folder=tmp_path / "run")
    assert (result.selected_step, result.validation["accuracy"], result.test["accuracy"]) == (12, 0.9, 0.7)
    assert (tmp_path / "run" / "best").resolve() == CheckpointStore(tmp_path / "run").path(12).resolve()


def test_tensorboard_gets_losses_and_metrics(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny_recipe(log={"tensorboard": True}, train={"epochs": 2}), folder=tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [each.step for each in events.Scalars("train/loss")] == [*range(1, 13)]
    assert [each.step for each in events.Scalars("validation/accuracy")] == [6, 12]


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    plain = {"model": {"drop_path_rate": 0.0, "args": {**TINY["model"]["args"], "proj_drop_rate": 0.0}}}
    plain |= {"augment": {"mixup": 0.0, "cutmix": 0.0}, "optimizer": {"name": "sgd", "lr": 0.05}}
    whole = tiny_recipe(**plain, data={"batch_size": 24}, train={"accumulation_steps": 1})
    train(whole, folder=tmp_path / "whole")
    train(tiny_recipe(**plain), folder=tmp_path / "parts")
    first, second = (
        read_tensors(CheckpointStore(tmp_path / name).path(18))["model"] for name in ("whole", "parts")
    )
    for name, value in first.items():
        assert torch.allclose(second[name], value, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_with_every_other_option_trains(tmp_path, precision):
    options = {"precision": precision, "channels_last": True, "grad_checkpointing": True, "epochs": 2}
    result = train(tiny_recipe(train=options), folder=tmp_path / "run")
    assert result.status == "finished"
    assert all(
        value.isfinite().all()
        for value in read_tensors(CheckpointStore(tmp_path / "run").path(12))["model"].values()
    )


def test_recomputed_activations_change_nothing(tmp_path, unstopped):
    train(tiny_recipe(train={"grad_checkpointing": True}), folder=tmp_path / "run")
    assert ending(tmp_path / "run")["tensors"] == ending(unstopped)["tensors"]


def test_the_model_is_compiled_when_asked(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model: compiled.append(model))
    train(tiny_recipe(train={"compile": True, "epochs": 2}), folder=tmp_path / "run")
    assert len(compiled) == 1


def test_folders_are_numbered_where_none_is_named(tmp_path, monkeypatch):
    recipe = tiny_recipe(output=str(tmp_path), name="mine")
    assert next(free_folders(recipe)) == tmp_path / "mine"
    for name in ("mine", "mine-2"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    assert next(free_folders(recipe)) == tmp_path / "mine-3"
    assert last_folder(recipe) == tmp_path / "mine-2"


def test_a_restarted_launch_finds_its_own_folder(tmp_path, monkeypatch):
    recipe = tiny_recipe(output=str(tmp_path), name="mine", train={"epochs": 2})
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    folder = train(recipe).folder
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "second")
    assert train(recipe).folder == tmp_path / "mine-2"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert last_folder(recipe) == folder


# At 224 pixels, in timm's tables.
GMACS = {"vit_tiny_patch16_224": 1.26, "cait_xxs24_224": 2.53, "swin_tiny_patch4_window7_224": 4.51}


@pytest.mark.parametrize("name", GMACS)
def test_gmacs_are_those_of_timms_tables(name):
    model = timm.create_model(name).train()
    assert count_gmacs(model, (torch.zeros(1, 3, 224, 224),)) == pytest.approx(GMACS[name], rel=0.01)
    assert model.training and all(p.grad is None for p in model.parameters())


def test_gmacs_of_overlapped_windows_are_those_of_plain_ones_at_overlap_0():
    """Counted on tensors without data, of which nothing may be asked."""
    counts = [
        count_gmacs(
            timm.create_model(f"{family}_swin_micro_patch2_window4_32", **options),
            (torch.zeros(1, 3, 32, 32),),
        )
        for family, options in (("plain", {}), ("mohsa", {"overlap": "none"}))
    ]
    assert counts[0] == counts[1] > 0


def test_gmacs_are_counted_without_the_memory_that_attention_would_take():
    """At 2,048 pixels the maps of three heads are 3 GiB; 2 are allowed beyond what the process has."""
    model = timm.create_model("plain_vit_tiny_patch16_224", img_size=2048)
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * 2**30, before[1]))
    try:
        with pytest.raises(RuntimeError, match="memory"):
            torch.empty(3, 2**14, 2**14)
        assert count_gmacs(model, (torch.zeros(1, 3, 2048, 2048),)) > 1000
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


FAMILIES = [
    "mohsa_vit_micro_patch4_32",
    "mohsa_cait_micro_patch4_32",
    "mohsa_swin_micro_patch2_window4_32",
    "ivit_micro_stride1_8",
    "plain_cait_micro_patch4_32",
]


HOWS = [{}, {"grad_checkpointing": True}, {"precision": "bf16"}]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(name, how, marks=pytest.mark.soak if how and number else (), id=f"{name}-{how}")
        for number, name in enumerate(FAMILIES)
        for how in HOWS
    ],
)
def test_every_family_trains(name, how, tmp_path, few_pictures):
    recipe = tiny_recipe(model={"name": name, "args": {}}, data=few_pictures, train={"epochs": 2, **how})
    result = train(recipe, folder=tmp_path / "run")
    assert result.status == "finished" and result.bad_steps == 0 and result.gmacs > 0
    assert evaluate_run(tmp_path / "run", split="test")["accuracy"] == result.test["accuracy"]


def test_a_number_that_is_none_is_null_in_the_result(tmp_path, unstopped):
    result = replace(
        Result.load(unstopped), folder=tmp_path, weights=None, test={"loss": float("nan"), "count": 1.0}
    )
    text = result.to_json()
    assert json.loads(text)["test"] == {"loss": None, "count": 1.0} and "NaN" not in text
    (tmp_path / "result.json").write_text(text)
    again = Result.load(tmp_path)
    assert math.isnan(again.test["loss"]) and again.validation == result.validation


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_on_a_processor_without_it_is_a_warning(monkeypatch, native):
    monkeypatch.setattr(devices, "has_native_bfloat16", lambda: native)
    said = devices.precision_advice("bf16", torch.device("cpu"))
    assert said is None if native else "train.precision=fp32 is faster here" in said
    assert devices.precision_advice("fp32", torch.device("cpu")) is None
