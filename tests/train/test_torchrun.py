"""Under torchrun: a killed process is started again, and a signal to the launcher stops the group."""

import os
import signal
import sys

import pytest
from launcher import Torchrun
from runs import assert_same_ending, start, tiny_recipe, wait, wait_until

from crosshead.train.checkpoint.store import CheckpointStore

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.soak
def test_a_killed_process_is_started_again_and_a_signal_to_the_launcher_saves_and_stops(tmp_path):
    folder, whole, recipe = tmp_path / "run", tmp_path / "whole", tiny_recipe(data={"batch_size": 6})
    slow = recipe.model_copy(update={"data": recipe.data.model_copy(update={"num_workers": 1})})
    launcher = Torchrun(slow, folder, max_restarts=3)
    store = CheckpointStore(folder)
    try:
        wait_until(lambda: len(store.steps()) >= 1, seconds=120)
        first = launcher.workers()
        os.kill(first[1], signal.SIGKILL)
        launcher.wait_for_workers(2, without=first.values())
        wait_until(lambda: "resumed from" in (folder / "events.jsonl").read_text(), seconds=120)
        launcher.process.send_signal(signal.SIGTERM)
        launcher.wait()
    finally:
        launcher.process.kill()
    assert "SIGTERM: stopping after this step" in launcher.output.read_text()
    path, damages = store.newest_good()
    assert path is not None and not damages
    assert wait(start(recipe, folder, resume=True, processes=2)) == [0, 0]
    assert wait(start(recipe, whole, resume=False, processes=2)) == [0, 0]
    assert_same_ending(folder, whole)
