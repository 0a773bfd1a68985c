"""Curves draw the metric that selects, and mark the step whose weights were chosen."""

import json

import pytest

from crosshead.train.logging.curves import metrics_of, read_curve


@pytest.fixture
def folder(tmp_path):
    """A run of three epochs, the second one chosen."""
    evaluations = [
        {"kind": "eval", "step": 10 * epoch, "epoch": float(epoch), "split": "validation", "best": epoch < 3,
         "metrics": {"loss": 1.0 / epoch, "accuracy": 0.5, "macro_f1": f1}}
        for epoch, f1 in ((1, 0.3), (2, 0.6), (3, 0.5))
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in evaluations))
    return tmp_path


def start(folder, **says):
    (folder / "events.jsonl").write_text(json.dumps({"kind": "start", **says}) + "\n")


def test_the_metric_that_selects_is_drawn_and_the_chosen_step_marked(folder):
    start(folder, metric="macro_f1", shown=["accuracy", "macro_f1"])
    name, selects = metrics_of(folder)
    assert (name, selects) == ("macro_f1", "macro_f1")
    curve = read_curve(folder, name, selects)
    assert [value for _, _, value in curve.validation] == [0.3, 0.6, 0.5]
    assert curve.chosen == (20, (2.0, 0.5, 0.6))


def test_where_the_loss_selects_what_the_task_shows_first_stands_beside_it(folder):
    start(folder, metric="loss", shown=["accuracy", "macro_f1"])
    assert metrics_of(folder) == ("accuracy", "loss")
    start(folder)  # as 0.1 wrote it
    assert metrics_of(folder) == ("accuracy", "loss")
