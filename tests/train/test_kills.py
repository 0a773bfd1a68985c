"""A process that is killed at any moment loses nothing that a resumed run does not compute again."""

import random
import time

import pytest
from runs import assert_same_ending, start, tiny_recipe, wait


def kill_until_done(recipe, folder, *, kills, processes=1, seed=0, longest=1.5, prepare=None):
    """Start, kill -9 one process after a random time, start again ...; the last start runs to its end."""
    times = random.Random(seed)
    for number in range(kills):
        running = start(recipe, folder, resume=number > 0, processes=processes, prepare=prepare)
        victim = times.choice(running)
        time.sleep(times.uniform(0.05, longest))
        victim.kill()
        wait(running)
    codes = wait(start(recipe, folder, resume=True, processes=processes, prepare=prepare))
    assert codes == [0] * processes


def test_a_killed_process_resumes_and_ends_the_same(tmp_path, unstopped):
    kill_until_done(tiny_recipe(), tmp_path / "run", kills=6)
    assert_same_ending(tmp_path / "run", unstopped)


@pytest.mark.soak
def test_killing_one_of_two_processes_ends_both_and_the_run_resumes_and_ends_the_same(tmp_path):
    recipe = tiny_recipe(data={"batch_size": 6})
    assert wait(start(recipe, tmp_path / "whole", resume=False, processes=2)) == [0, 0]
    kill_until_done(recipe, tmp_path / "run", kills=3, processes=2, longest=3.0)
    assert_same_ending(tmp_path / "run", tmp_path / "whole")
