"""Work in several processes: what it gives, what it raises, and what a signal to stop does."""

import os
import signal
import threading
import time

import pytest

from crosshead.train.loop.signals import StopRequest
from crosshead.train.tools.side_by_side import side_by_side


def waits_for_a_signal(folder):
    """Says that it is at work, and ends when it is asked to."""
    with StopRequest() as stop:
        (folder / str(os.getpid())).touch()
        end = time.monotonic() + 100
        while stop.name is None and time.monotonic() < end:
            time.sleep(0.01)
        return stop.name


def half(number):
    return 1 // (number % 2)


def test_what_is_raised_comes_back_beside_the_others():
    found = dict(side_by_side(half, [1, 2, 3], 2))
    assert found[1] == found[3] == 1 and isinstance(found[2], ZeroDivisionError)


@pytest.mark.soak
def test_a_signal_reaches_all_and_nothing_begins_after_it(tmp_path):
    def interrupt():
        end = time.monotonic() + 100
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    found = [outcome for _, outcome in side_by_side(waits_for_a_signal, [tmp_path] * 8, 2)]
    thread.join()
    assert found == ["SIGTERM", "SIGTERM"]
