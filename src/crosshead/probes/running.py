"""A probe over kinds of heads and seeds, with controls beside every gain."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from .kinds import PLAIN, Kind
from .model import ProbeModel, build_model, count_gmacs, count_parameters, equal_hidden
from .probe import PROBES, Probe
from .report import Cell, ProbeReport
from .training import Run, Trainer, step_seconds

DEFAULT_KINDS = ("plain", "overlap:1", "talking")


@dataclass(frozen=True)
class Job:
    """All that one training depends on but its seed."""

    probe: Probe
    kind: Kind
    width: int
    num_heads: int
    depth: int
    steps: int
    batch_size: int
    lr: float
    host: str | None = None
    hidden: int | None = None

    def model(self, seed: int) -> ProbeModel:
        shape: dict[str, Any] = dict(width=self.width, num_heads=self.num_heads, depth=self.depth)
        return build_model(self.probe, self.kind, seed=seed, hidden=self.hidden, host=self.host, **shape)

    def train(self, seed: int) -> Run:
        model = self.model(seed)
        return Trainer(model, seed, self.steps, self.batch_size, self.lr).run()


def probe(
    name: str | Probe = "recall",
    kinds: Iterable[str] = DEFAULT_KINDS,
    *,
    heads: int | Sequence[int] | None = None,
    width: int | None = None,
    depth: int | None = None,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    host: str | None = None,
    controls: bool = True,
    jobs: int = 1,
    tell: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> ProbeReport:
    """Trains a small model with each kind of heads on a probe, from every seed, and reports accuracy against steps.

    Args:
        name: one of ``crosshead.probes.PROBES``, or a probe of your own.
        kinds: ``plain``, or an interaction as ``KIND[:VALUE][:OPTION=VALUE ...]``: ``overlap:1``, ``talking``; with
            ``@N`` behind it at that number of heads alone.
        heads: numbers of heads; every other kind is tried with each. What is not given here is the probe's own.
        width: channels of the model.
        seeds: of weights and training data; the test sequences are the same for all.
        host: attention of another timm class, by the end of its name: ``beit.Attention``.
        controls: train plain heads with as many parameters, and for as much time, as each kind that gains.
        jobs: processes at once, with one thread each; 1 stays in this process.
        tell: hears a line as each kind is through.
        options: of the probe, in place of its own.

    Raises:
        ValueError: a probe, kind, host or option that there isn't, heads that don't divide the width, equal seeds.
    """
    found = _resolved(name, options)
    counts = [heads] if isinstance(heads, int) else list(heads or [found.num_heads])
    _check(seeds, counts, steps, batch_size, jobs)
    tried = [_with_heads(text, counts) for text in dict.fromkeys(kinds)]
    parsed = [kind for kind, _ in tried]
    if not parsed:
        raise ValueError("no kind of heads is named; expected some, such as plain and talking")
    first = Job(
        found, parsed[0], width or found.width, counts[0], depth or found.depth, steps or found.steps,
        batch_size or found.batch_size, lr or found.lr, host,
    )  # fmt: skip
    every = dict.fromkeys(count for _, own in tried for count in own)
    wanted = [
        replace(first, kind=kind, num_heads=count) for count in every for kind, own in tried if count in own
    ]
    for job in wanted:
        job.model(seeds[0])  # what can't be is said before the first is trained
    with _one_thread(), _workers(jobs, parsed) as pool:
        cells = _cells(wanted, seeds, pool, tell)
        report = ProbeReport(
            found.name, found.asks, asdict(found), found.chance, first.width, first.depth, first.batch_size, first.lr,
            list(seeds), cells, _versions(), host,
        )  # fmt: skip
        if not controls:
            return report
        more: list[Cell] = []
        for cell, job in zip(cells, wanted, strict=True):
            if cell in report.gains:
                more += _controls(cell, job, seeds, pool, tell)
        return replace(report, cells=[*cells, *more])


def _resolved(name: str | Probe, options: dict[str, Any]) -> Probe:
    if isinstance(name, Probe):
        return replace(name, **options)
    if name not in PROBES:
        raise ValueError(f"no probe {name!r}; expected one of {', '.join(PROBES)}")
    known = [field.name for field in fields(PROBES[name])]
    for key in options:
        if key not in known:
            raise ValueError(f"probe {name!r} has no option {key!r}; it takes {', '.join(known) or 'none'}")
    return PROBES[name](**options)


def _with_heads(text: str, counts: Sequence[int]) -> tuple[Kind, Sequence[int]]:
    """A kind, and the numbers of heads that it is tried with."""
    kind, at, own = text.partition("@")
    if at and not own.isdecimal():
        raise ValueError(f"{text!r}: expected a number of heads after @, got {own!r}")
    return Kind.parse(kind), [int(own)] if at else counts


def _check(
    seeds: Sequence[int], counts: Sequence[int], steps: int | None, batch_size: int | None, jobs: int
) -> None:
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"expected different seeds, at least one, got {list(seeds)}")
    if len(set(counts)) != len(counts):
        raise ValueError(f"expected different numbers of heads, got {list(counts)}")
    for what, value in (("steps", steps), ("batch_size", batch_size), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ValueError(f"{what} must be at least 1, got {value}")


def _cells(
    jobs: Sequence[Job], seeds: Sequence[int], pool: Executor | None, tell: Callable[[str], None]
) -> list[Cell]:
    """A cell a job; its seeds are trained side by side with those of the others."""
    tasks = [(job, seed) for job in jobs for seed in seeds]
    found = iter(pool.map(_train, tasks) if pool else map(_train, tasks))
    runs = []
    for job in jobs:
        runs.append([next(found) for _ in seeds])
        shares = " ".join(f"{run.accuracy:.1%}" for run in runs[-1])
        tell(f"{job.kind.name}, {job.num_heads} heads: {shares}")
    # Afterwards, when nothing else is at work.
    models = [job.model(seeds[0]) for job in jobs]
    seconds = step_seconds(models, jobs[0].batch_size)
    return [
        Cell(
            job.kind.name,
            job.num_heads,
            count_parameters(model),
            count_gmacs(model),
            1e3 * step,
            job.steps,
            each,
        )
        for job, model, step, each in zip(jobs, models, seconds, runs, strict=True)
    ]


def _controls(
    cell: Cell, job: Job, seeds: Sequence[int], pool: Executor | None, tell: Callable[[str], None]
) -> list[Cell]:
    """Plain heads with the parameters of ``cell``, and plain heads trained for its time, where these are more."""
    plain = replace(job, kind=Kind(PLAIN, None))
    shape: dict[str, Any] = dict(width=job.width, num_heads=job.num_heads, depth=job.depth)
    hidden = equal_hidden(job.probe, cell.parameters, **shape)
    ours, theirs = step_seconds([plain.model(seeds[0]), job.model(seeds[0])], job.batch_size)
    steps = round(job.steps * theirs / ours)
    wanted = (
        [("parameters", replace(plain, hidden=hidden))]
        if count_parameters(plain.model(seeds[0])) < cell.parameters
        else []
    )
    wanted += [("time", replace(plain, steps=steps))] if steps > job.steps else []
    found = []
    for control, other in wanted:
        tell(f"beside it, plain heads at equal {control}:")
        found.append(replace(_cells([other], seeds, pool, tell)[0], control=control, of=cell.label))
    return found


def _train(task: tuple[Job, int]) -> Run:
    job, seed = task
    return job.train(seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Models this small are fastest so, and their times are then those of one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _workers(jobs: int, kinds: Sequence[Kind]) -> Any:
    """Processes of one thread each, to which the kinds' interactions are known; None for this process alone."""
    if jobs == 1:
        return nullcontext(None)
    modules = [kind.module for kind in kinds if kind.module is not None]
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(modules,))


def _begin(modules: list[str]) -> None:
    torch.set_num_threads(1)
    for module in modules:
        importlib.import_module(module)


def _versions() -> dict[str, str]:
    found = {}
    for package in ("crosshead", "torch", "timm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout that was not installed
            found[package] = "unknown"
    return {**found, "cpu": torch.backends.cpu.get_cpu_capability()}
