"""A model in shards trains, saves and resumes as one in copies does."""

import pytest
import torch
from runs import StopAfter, assert_same_ending, ending, start, tiny_recipe, wait
from test_processes import PLAIN

from crosshead.train import train
from crosshead.train.checkpoint.store import CheckpointStore, read_tensors
from tolerances import OUTPUT, assert_close


def test_shards_and_copies_train_the_same_weights(tmp_path):
    whole = tmp_path / "copies"
    train(tiny_recipe(**PLAIN), folder=whole)
    sharded = tiny_recipe(**PLAIN, data={"batch_size": 6}, train={"parallel": "shards"})
    assert wait(start(sharded, tmp_path / "shards", resume=False, processes=2)) == [0, 0]
    first, second = (
        read_tensors(CheckpointStore(folder).path(18)) for folder in (whole, tmp_path / "shards")
    )
    for part in ("model", "ema", "optimizer"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert_close(second[part][name], value, OUTPUT[torch.float32], f"{part} {name}")
    # 1,293 images over two processes: an uneven last batch, in which both must still call the model equally often
    assert ending(tmp_path / "shards")["validation"]["count"] == 1293


@pytest.mark.soak
def test_a_sharded_run_resumes_exactly_and_goes_on_in_one_process(tmp_path):
    recipe = tiny_recipe(data={"batch_size": 6}, train={"parallel": "shards"})
    assert wait(start(recipe, tmp_path / "whole", resume=False, processes=2)) == [0, 0]
    assert wait(start(recipe, tmp_path / "run", resume=False, processes=2, callback=StopAfter(7))) == [75, 75]
    alone = train(tiny_recipe(), folder=tmp_path / "alone", resume=tmp_path / "run")
    assert alone.status == "finished" and alone.step == 18
    assert wait(start(recipe, tmp_path / "run", resume=True, processes=2)) == [0, 0]
    assert_same_ending(tmp_path / "run", tmp_path / "whole")
