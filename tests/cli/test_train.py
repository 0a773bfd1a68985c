"""``crosshead train``: what a run leaves behind, what it says, and what it refuses."""

import json
import sys

import pytest

from cli.conftest import SHORT
from crosshead.cli import main
from crosshead.cli.arguments.parser import parse
from crosshead.cli.commands.train import plan
from crosshead.cli.terminal import progress
from crosshead.recipe import load_recipe
from crosshead.train import StepRecord


def planned(*words):
    recipe, folder = plan(parse(["train", *words]))
    return recipe, folder


def test_a_run_leaves_what_its_reader_needs(run):
    for name in (
        "recipe.yaml",
        "versions.json",
        "classes.json",
        "metrics.jsonl",
        "result.json",
        "curves.png",
    ):
        assert (run / name).stat().st_size > 0, name
    assert list((run / "checkpoints").iterdir()) and (run / "best").exists()
    assert load_recipe(run / "recipe.yaml").train.epochs == 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"step", "eval"}
    assert [line["split"] for line in lines if line["kind"] == "eval"] == ["validation", "validation", "test"]


def test_the_lines_tell_the_run_from_model_to_folder(tmp_path, capsys):
    short = [*SHORT, "train.epochs=1", "--output", str(tmp_path)]
    assert main(["train", "digits", *short, "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "digits: plain_vit_micro_patch2_32" in said and "GMACs" in said
    assert "1,295 training, 143 validation, 359 test images" in said
    assert "images/s" in said and "validation" in said and "test accuracy" in said
    assert f"run folder {tmp_path / 'digits'}" in said
    assert load_recipe(tmp_path / "digits" / "recipe.yaml").train.seed == 3


def test_overrides_stand_anywhere_and_options_win():
    recipe, folder = planned("--seed", "5", "digits", "train.seed=4", "--device", "cpu", "train.epochs=9")
    assert (recipe.train.seed, recipe.train.device, recipe.train.epochs) == (5, "cpu", 9)
    assert folder is None
    recipe, folder = planned("digits", "--output", "1e3", "--tag", "no")  # text stays text
    assert recipe.output == "1e3" and str(folder) == "1e3/digits/no"


def test_a_finished_run_is_not_trained_again(run, capsys):
    before = (run / "result.json").read_bytes()
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no recipe is named"),
        (("digts",), "no recipe is called 'digts'; the nearest are digits"),
        (
            ("digits", "fashion_mnist"),
            "expected one recipe and KEY=VALUE pairs, got digits and fashion_mnist",
        ),
        (("digits", "--cfg", "fashion_mnist"), "the recipe is named twice"),
        (("digits", "optimizer.lrr=1"), "the nearest one is 'optimizer.lr'"),
        (("digits", "train.epochs=ten"), 'expected a whole number above 0 (epochs), got "ten"'),
        (("digits", "--seed", "x"), "argument --seed: invalid int value: 'x'"),
        (("digits", "--sed", "1"), "unknown argument --sed (the nearest is --seed)"),
        (("digits", "--tag", "../../etc"), "'../../etc' leads out of"),
        (("digits", "name=../escape"), "'../escape' leads out of"),
        (("digits", "--resume", "nowhere"), "nowhere"),
        (("--resume", "nowhere"), "nowhere is not there; expected the folder of a run"),
        (("digits", "model.name=vit_tinny"), "no model 'vit_tinny' in timm's registry"),
        (("digits", "data.name=digts"), "no data set 'digts'; did you mean digits"),
        (("digits_mohsa", "model.overlap=indx"), "did you mean 'index'"),
        (("digits_mohsa", "model.overlap=[1,2]"), "lists 2 blocks and the model has 6"),
        (("digits_mohsa", "model.overlap=constant:99"), "overlap of 99"),
        (("digits_mohsa", "model.overlap=constant:-1"), "-1"),
        (("digits", "train.device=cdua"), "train.device is 'cdua'"),
        (("digits", "--eval"), "name it with --resume"),
    ],
)
def test_a_mistake_is_one_clean_line(words, message, fails, tmp_path):
    output = ("--output", tmp_path / "runs") if "output" not in words else ()
    assert message in fails("train", *words, *output)


def test_the_options_that_everybody_tries_change_their_keys():
    words = [
        "train",
        "digits",
        "--epochs",
        "6",
        "--lr",
        "1e-4",
        "--batch-size",
        "7",
        "--model",
        "plain_vit_mini_patch4_32",
    ]
    recipe, _ = plan(parse(words))
    assert (recipe.train.epochs, recipe.optimizer.lr, recipe.data.batch_size) == (6, 1e-4, 7)
    assert recipe.model.name == "plain_vit_mini_patch4_32"
    assert recipe.schedule.warmup_epochs == pytest.approx(0.4)


def test_a_folder_that_cannot_be_written_is_named(fails, tmp_path):
    (tmp_path / "runs").write_text("a file where a folder should be")
    assert str(tmp_path / "runs") in fails("train", "digits", "--output", tmp_path / "runs")


def test_a_traceback_comes_when_asked_for(tmp_path):
    with pytest.raises(ValueError, match="no recipe is called"):
        main(["--traceback", "train", "digts"])


def test_lines_tell_the_first_step_at_once_and_end_a_long_silence(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    callback = progress.LineLogger(every_steps=20)
    for step, seconds in ((1, 0), (2, 10), (3, 31), (20, 1), (40, 3)):
        now[0] += seconds
        figures = dict(loss=2.0, epoch_loss=1.5, losses={}, counts={}, grad_norm=0.0, images_per_second=1.0)
        rest = dict(seconds_left=1.0, skipped=False, bad_steps=0, broken_images=0)
        callback.on_step(StepRecord(step=step, epoch=0.1, lr=1e-3, **figures, **rest))
    said = capsys.readouterr().out
    assert [line.split()[3].partition("/")[0] for line in said.splitlines()] == ["1", "3", "40"]
    assert "loss 2.0000 (epoch's mean 1.5000)" in said


def test_a_closed_output_stops_no_run(tmp_path, monkeypatch):
    for name in ("stdout", "stderr"):  # as Python sees `>&- 2>&-`
        monkeypatch.setattr(sys, name, None)
    words = ["digits", "train.steps=1", "data.validation=0.9", "train.device=cpu", f"output={tmp_path}"]
    assert main(["train", *words]) == 0
    assert main(["eval", str(tmp_path / "digits")]) == 0
