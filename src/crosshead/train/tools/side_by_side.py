"""Work side by side: processes with a share of the cores each, and of several GPUs one each."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

import torch

from crosshead.train.loop.signals import STOP_SIGNALS

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def side_by_side(
    work: Callable[[Task], Outcome], tasks: Sequence[Task], jobs: int
) -> Iterator[tuple[Task, Outcome | BaseException]]:
    """Every task and what ``work`` made of it, in ``jobs`` processes at once, as each is through; in place of that what
    it raised, or that its process is gone.

    A signal to stop is passed on to what is at work, which saves and ends; what has not begun is left out.
    """
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for place in range(jobs):
        places.put(place)
    threads = max(1, _cores() // jobs)
    waiting = iter(tasks)
    at_work: dict[Future[Outcome], Task] = {}
    with ProcessPoolExecutor(jobs, context, _begin, (places, threads)) as pool, _passing_on() as stopped:
        while True:
            # No more than can begin at once: what waits in the pool could not be taken back.
            while len(at_work) < jobs and not stopped and (task := next(waiting, None)) is not None:
                at_work[pool.submit(work, task)] = task
            if not at_work:
                return
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                yield at_work.pop(future), future.exception() or future.result()


def _begin(places: Any, threads: int) -> None:
    """In a worker: a group of its own, so that a terminal's signal comes once and from the parent, and its share."""
    os.setsid()
    place = places.get()
    torch.set_num_threads(threads)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if len(devices) > 1:  # before CUDA is started here
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]


@contextmanager
def _passing_on() -> Iterator[list[int]]:
    """While it lasts, a signal to stop goes to the workers, and into the list that is given."""
    heard: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        for child in multiprocessing.active_children():
            if child.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
