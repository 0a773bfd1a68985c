"""``crosshead compare`` as a person runs it."""

import json

import pytest

from compare.fake_runs import fake_run, fake_sweep
from crosshead.cli import main


@pytest.fixture
def sweep(tmp_path):
    return fake_sweep(tmp_path / "sweep", plain=[0.90, 0.92, 0.91], wide=[0.95, 0.97, 0.96])


def test_a_sentence_a_table_and_a_page(sweep, tmp_path, capsys):
    page = tmp_path / "pages" / "verdict.html"
    assert main(["compare", str(sweep), "--page", str(page)]) == 0
    said = capsys.readouterr().out
    assert "wide against plain, test accuracy: higher, +5.00 [" in said and "three paired seeds" in said
    assert "optimizer.lr: 0.001 | 0.002" in said and page.read_text().startswith("<!doctype html>")
    assert main(["compare", str(sweep / "wide"), str(sweep / "plain"), "--json", "--looks", "2"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["groups"][0]["label"] == "wide" and data["looks"] == 2


def test_two_runs_are_two_checkpoints(run, tmp_path, capsys):
    other = tmp_path / "other"
    words = [
        "train",
        "digits",
        "train.epochs=1",
        "schedule.warmup_epochs=0",
        "train.device=cpu",
        "train.seed=1",
    ]
    assert main([*words, "--output", str(other)]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), str(other / "digits"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "over 359 images" in said and "nothing of training them again" in said


def test_bad_input_is_one_line(sweep, tmp_path, fails):
    assert "no run is named" in fails("compare")
    assert "is not there" in fails("compare", tmp_path / "nowhere")
    assert "all 3 runs are of one recipe" in fails("compare", sweep / "plain")
    assert "ends in .html" in fails("compare", sweep, "--page", tmp_path / "x.txt")
    assert "no metric 'miou'" in fails("compare", sweep, "--metric", "miou")
    fake_run(sweep / "third", 0.9, overrides=["name=third", "optimizer.lr=0.9"])
    assert "third has 1 seed" in fails("compare", sweep)
    one, other = sweep / "plain" / "seed-0", sweep / "wide" / "seed-0"
    assert "are one run; expected two" in fails("compare", one, sweep / "plain" / ".." / "plain" / "seed-0")
    assert "a page wants three seeds" in fails("compare", one, other, "--page", "x.html")
