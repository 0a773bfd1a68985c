"""``crosshead sweep``: every combination is trained once, and the table holds what the runs came to."""

import csv
import json

import numpy as np
import pytest

import crosshead.train.tools.sweep as sweep
from compare.fake_runs import fake_run
from crosshead.cli import main
from crosshead.cli.commands.sweep import split_list

QUICK = ["train.epochs=1", "schedule.warmup_epochs=0", "data.batch_size=256", "log.tensorboard=false"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep over two schedules, first with one seed and then, in the same folder, with two."""
    folder = tmp_path_factory.mktemp("sweep")
    words = ["sweep", "digits_mohsa", *QUICK, "--schedules", "none,[0,1,2,3,4,5]", "--output", str(folder)]
    assert main([*words, "--device", "cpu", "--seeds", "0"]) == 0
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert main([*words, "--device", "cpu", "--seeds", "0,1"]) == 0
    return folder, first, words


def test_what_is_finished_is_not_trained_again(swept):
    folder, first, _ = swept
    assert len(first) == 2 and len(list(folder.rglob("result.json"))) == 4
    assert all(path.stat().st_mtime_ns == before for path, before in first.items())


def test_the_table_holds_mean_and_deviation_over_seeds(swept):
    folder, *_ = swept
    rows = json.loads((folder / "table.json").read_text())
    assert [row["label"] for row in rows] == ["none", "[0,1,2,3,4,5]"]
    for row in rows:
        results = [json.loads((folder / run / "result.json").read_text()) for run in row["runs"].values()]
        accuracies = [result["test"]["accuracy"] for result in results]
        assert row["seeds"] == [0, 1]
        assert row["test_mean"] == pytest.approx(np.mean(accuracies))
        assert row["test_std"] == pytest.approx(np.std(accuracies, ddof=1))
        assert {result["parameters"] for result in results} == {row["parameters"]}
    # Six blocks of five heads, the projection growing by 2 * 5 * o rows of 80.
    assert rows[1]["parameters"] - rows[0]["parameters"] == 2 * 5 * sum(range(6)) * 80


def test_the_table_is_the_same_in_every_form(swept):
    folder, *_ = swept
    rows = json.loads((folder / "table.json").read_text())
    with open(folder / "table.csv", newline="") as file:
        for row, cells in zip(rows, csv.DictReader(file), strict=True):
            assert cells["label"] == row["label"] and float(cells["test_mean"]) == row["test_mean"]
    lines = (folder / "table.md").read_text().splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert f"{100 * rows[0]['test_mean']:.2f} ± {100 * rows[0]['test_std']:.2f}" in lines[2]


def test_only_the_first_of_several_processes_speaks_and_writes(swept, capsys, monkeypatch):
    folder, _, words = swept
    before = (folder / "table.json").stat().st_mtime_ns
    monkeypatch.setenv("RANK", "1")
    assert main([*words, "--device", "cpu", "--seeds", "0,1"]) == 0
    assert capsys.readouterr().out == "" and (folder / "table.json").stat().st_mtime_ns == before


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(tmp_path, capsys):
    words = [
        "sweep",
        "digits",
        *QUICK,
        "--device",
        "cpu",
        "--over",
        "optimizer.lr=1e30,1e-3",
        "--output",
        tmp_path,
    ]
    words += ["train.max_bad_steps=1", "train.ema_decay=null", "optimizer.clip_grad=null"]
    for tries in range(2):
        assert main([*map(str, words)]) == 0
        said = capsys.readouterr().out
        assert "failed: 1 steps in a row" in said and f"delete {tmp_path / 'lr=1e30' / 'seed-0'}" in said
        assert ("epochs of" in said) == (tries == 0), "neither is trained again"
    bad, good = json.loads((tmp_path / "table.json").read_text())
    assert (bad["seeds"], bad["failed"], bad["test_mean"]) == ([], [0], None)
    assert (good["seeds"], good["failed"]) == ([0], []) and good["test_mean"] > 0
    assert "| lr=1e30 | 0 (1 failed) | - |" in (tmp_path / "table.md").read_text()


def test_a_run_that_fails_in_any_way_is_recorded_and_tried_again(tmp_path, capsys, monkeypatch):
    original, failing = sweep.train, [RuntimeError("out of memory")]

    def train(recipe, **options):
        if failing and recipe.optimizer.lr == 1e-2:
            raise failing[0]
        return original(recipe, **options)

    monkeypatch.setattr(sweep, "train", train)
    words = ["sweep", "digits", *QUICK, "--device", "cpu", "--over", "optimizer.lr=1e-2,1e-3"]
    words += ["--output", str(tmp_path)]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "failed: RuntimeError: out of memory" in said and "the same command tries this one again" in said
    bad, good = json.loads((tmp_path / "table.json").read_text())
    assert (bad["failed"], good["seeds"]) == ([0], [0])
    failing.clear()
    damaged = tmp_path / "lr=1e-3" / "seed-0" / "result.json"
    damaged.write_text(damaged.read_text()[:40])
    assert main(words) == 0
    assert f"{damaged} is damaged" in capsys.readouterr().out
    assert all(
        row["seeds"] == [0] and not row["failed"] for row in json.loads((tmp_path / "table.json").read_text())
    )
    assert json.loads(damaged.read_text())["status"] == "finished"


def test_seeds_may_be_said_in_any_of_three_ways(fails, monkeypatch):
    planned = []

    def plan(recipes, overrides, over, seeds, folder, folds):
        planned.append((dict(over), seeds))
        raise ValueError("enough")

    monkeypatch.setattr("crosshead.train.tools.sweep.plan_sweep", plan)
    for words in (["--seeds", "1,2"], ["--over", "train.seed=1,2"], ["train.seed=1"], []):
        assert "enough" in fails("sweep", "digits", *words)
    assert planned == [({}, [1, 2]), ({}, [1, 2]), ({}, [1]), ({}, [0])]
    assert "the seeds are given twice" in fails("sweep", "digits", "--seeds", "1", "train.seed=2")


def test_a_folder_of_another_sweep_is_refused(swept, fails):
    folder, _, words = swept
    message = fails(*words, "--device", "cpu", "--seeds", "0", "optimizer.lr=7e-4")
    assert "holds a run of another recipe (it differs in optimizer)" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no recipe is named"),
        (("digits", "--seeds", "0,0"), "expected different whole numbers like 0,1,2, got '0,0'"),
        (("digits", "--seeds", "a"), "expected different whole numbers"),
        (("digits", "--over", "optimizer.lr"), "expected KEY=A,B,..., got 'optimizer.lr'"),
        (("digits", "--over", "optimizer.lrr=1,2"), "the nearest one is 'optimizer.lr'"),
        (("digits", "--over", "optimizer.lr=1e-3,1e-3"), "names 'lr=1e-3' twice"),
        (
            ("digits_mohsa", "--schedules", "index", "--over", "model.overlap=none"),
            "model.overlap is swept over twice",
        ),
        (("digits_mohsa", "--schedules", "none,constant:99"), "overlap of 99"),
        (("digits", "--models", "plain_vit_micro_patch2_32,vit_tinny"), "no model 'vit_tinny'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(words, message, fails, tmp_path):
    assert message in fails("sweep", *words, "--output", tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_lists_may_hold_lists():
    assert split_list("none,[0,1],index") == ["none", "[0,1]", "index"]


def test_a_sweep_of_three_seeds_ends_in_a_comparison(tmp_path, capsys):
    """Of runs that are there already."""
    folder = tmp_path / "sweep"
    for name, base in (("digits", 0.90), ("digits_mohsa", 0.91)):
        for seed in range(3):
            over = [*QUICK, "train.device=cpu", f"name={name}", f"output={folder}"]
            fake_run(
                folder / name / f"seed-{seed}", base + 0.01 * seed, seed=seed, recipe=name, overrides=over
            )
    words = ["sweep", "digits", "digits_mohsa", *QUICK, "--device", "cpu", "--seeds", "0,1,2"]
    assert main([*words, "--output", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "digits_mohsa against digits, test accuracy:" in said and (folder / "compare.html").is_file()


@pytest.mark.soak
def test_runs_side_by_side_come_to_the_same(swept, tmp_path):
    folder, _, words = swept
    other = [*words[: words.index("--output")], "--output", str(tmp_path / "beside"), "--device", "cpu"]
    assert main([*other, "--seeds", "0", "--jobs", "2"]) == 0
    for run in (tmp_path / "beside").glob("*/seed-0/result.json"):
        result = json.loads(run.read_text())
        before = json.loads((folder / run.relative_to(tmp_path / "beside")).read_text())
        assert result["status"] == "finished" and result["test"]["count"] == 359
        assert result["parameters"] == before["parameters"]
        began = [
            json.loads((f / "design.json").read_text())
            for f in (run.parent, tmp_path / "beside" / run.parent)
        ]
        assert began[0] == began[1]


def test_folds_are_swept_over(tmp_path, fails):
    """Each picture to train on is tested on once, and no run has seen its own."""
    words = ["sweep", "digits", *QUICK, "train.steps=1", "--device", "cpu", "--folds", "2"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    runs = sorted(path.parent for path in tmp_path.rglob("result.json"))
    assert [run.name for run in runs] == ["fold-0", "fold-1"]
    assert [json.loads((run / "result.json").read_text())["test"]["count"] for run in runs] == [719, 719]
    assert json.loads((tmp_path / "table.json").read_text())[0]["over"] == "fold"
    assert "| variant | folds |" in (tmp_path / "table.md").read_text()
    assert "folds go with one seed" in fails(*words, "--seeds", "0,1", "--output", tmp_path / "more")
    assert "--folds: expected 2 or more, got 1" in fails("sweep", "digits", "--folds", "1")


def test_no_jobs_are_an_error(fails):
    assert "--jobs: expected at least 1, got 0" in fails("sweep", "digits", "--jobs", "0")
