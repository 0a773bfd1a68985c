"""Drawn validation pictures in TensorBoard: they are there, change nothing, and failing to draw stops nothing."""

import pytest
import torch
from runs import Watcher, assert_same_ending
from test_segment_runs import upernet_recipe

from crosshead.tasks.segment.segmentation import SegmentTask
from crosshead.train import train
from crosshead.train.logging.log_files import TENSORBOARD_FOLDER
from map_files import map_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return map_folder(tmp_path_factory.mktemp("maps") / "data", count=28)


def recipe(data, *, tensorboard=True):
    return upernet_recipe(
        data,
        train={"steps": 10, "epochs": 2},
        log={"every_steps": 1, "tensorboard": tensorboard},
        checkpoint={"every_steps": 100},
    )


def tags(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / TENSORBOARD_FOLDER), size_guidance={"images": 0}).Reload()
    return {tag: events.Images(tag) for tag in events.Tags()["images"]}


def test_four_pictures_an_evaluation_and_the_same_weights(tmp_path, data):
    drawn = train(recipe(data), folder=tmp_path / "drawn")
    plain = train(recipe(data, tensorboard=False), folder=tmp_path / "plain")
    assert drawn.validation == plain.validation
    assert_same_ending(tmp_path / "drawn", tmp_path / "plain")
    found = tags(tmp_path / "drawn")
    assert len(found) == 4 and all(tag.startswith("validation/") and tag.endswith(".png") for tag in found)
    for pictures in found.values():
        assert [picture.step for picture in pictures] == [5, 10]
        assert (pictures[0].width, pictures[0].height) == (24, 20)


def test_failing_to_draw_is_said_once_and_stops_nothing(tmp_path, data, monkeypatch):
    def fail(self, picture, answer):
        raise RuntimeError("no ink")

    monkeypatch.setattr(SegmentTask, "draw", fail)
    watcher = Watcher()
    state = torch.random.get_rng_state()
    result = train(recipe(data), folder=tmp_path / "run", callback=watcher)
    torch.random.set_rng_state(state)
    assert result.status == "finished" and not tags(tmp_path / "run")
    (said,) = (event.message for event in watcher.events if event.kind == "log_failed")
    assert "Pictures" in said and "no ink" in said
