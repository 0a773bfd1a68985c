"""A run that is stopped and resumed ends as if it had never been stopped, bit for bit."""

import pytest
from runs import Watcher, assert_same_ending, stop_after, tiny_recipe

from crosshead.train import StepRecord, train


@pytest.mark.parametrize("step", [1, 3, 5, 8, 14])
def test_a_run_that_is_stopped_at_a_step_and_resumed_ends_the_same(tmp_path, unstopped, step):
    folder = tmp_path / "run"
    stopped = train(tiny_recipe(), folder=folder, observer=stop_after(step))
    assert (stopped.status, stopped.step, stopped.test) == ("stopped", step + 1, {})
    watcher = Watcher()
    assert train(tiny_recipe(), folder=folder, resume=True, observer=watcher).status == "finished"
    assert [record.step for record in watcher.records if isinstance(record, StepRecord)] == [
        *range(step + 2, 19)
    ]
    assert_same_ending(folder, unstopped)
