"""A learning rate and a batch size to begin with, from about a minute of steps outside of any run.

The range test is Smith's (arXiv 1506.01186): the rate rises exponentially step by step, and the loss says where it
falls fastest and from where on it breaks. Nothing is written, and the models are thrown away.
"""

import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from crosshead.data.base import Splits
from crosshead.recipe.schema import Recipe
from crosshead.train.loop.optim import rate_scale
from crosshead.train.resolve import check_presumed_weights, resolve
from crosshead.train.tools.profile import Trial, synchronise

LOWEST, HIGHEST = 1e-6, 10.0
_FEWEST, _MOST = 24, 240  # steps of a range test
_BROKEN = 3.0  # times its lowest, from where on a loss is called broken
_FELL = 0.98  # of what the loss began with: one that stays above it has not fallen
_SURE = 4.0  # times its own error, by which a smoothed loss must have fallen: the lowest of many is low by chance too
_ROOM = 0.8  # of the memory that is free, which a larger batch may be expected to take


@dataclass(frozen=True)
class RangeTest:
    """Rates (steps,), ascending, as ``optimizer.lr`` means them, and the loss of each step; ``smooth`` is its mean
    over neighbours. ``steepest`` is the rate where that falls fastest, ``lowest`` where it is lowest, None where it
    does not fall; ``stopped`` whether the loss broke before the highest rate."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    steepest: float | None
    lowest: float | None
    stopped: bool


@dataclass(frozen=True)
class BatchTried:
    """Pictures a batch, how many a second are trained on, and the most memory that the process (a GPU) held by then."""

    size: int
    images_per_second: float
    mebibytes: float


@dataclass(frozen=True)
class Tuned:
    """What was found with ``batch_size`` pictures a step; ``limit`` says what ended the search for a larger batch."""

    rates: RangeTest
    batches: tuple[BatchTried, ...]
    limit: str
    batch_size: int
    device: str
    seconds: float

    @property
    def overrides(self) -> list[str]:
        """What is suggested, as a recipe's keys: no batch, since the rate is that of ``batch_size`` pictures a step."""
        return [] if self.rates.steepest is None else [f"optimizer.lr={self.rates.steepest:.1e}"]


def tune(recipe: Recipe, *, seconds: float = 60.0) -> Tuned:
    """Two thirds of ``seconds`` for rates, one for batches; a slow model takes longer, since a curve wants 24 steps.

    Raises:
        ValueError: the recipe or its data can't be used.
    """
    check_presumed_weights(resolve(recipe))
    begun = time.perf_counter()
    trial = Trial(recipe, from_weights=True)
    found = range_test(trial, seconds * 2 / 3)
    device = trial.device.type
    if device == "cpu":
        device = f"cpu with {torch.get_num_threads()} threads"
    splits, at = trial.splits, trial.device
    del trial  # which holds memory
    batches, limit = _largest_batch(recipe, splits, at, begun + seconds)
    step = recipe.data.batch_size * recipe.train.accumulation_steps
    return Tuned(found, tuple(batches), limit, step, device, time.perf_counter() - begun)


def range_test(trial: Trial, seconds: float) -> RangeTest:
    """Takes steps whose rate rises from ``LOWEST`` to ``HIGHEST``, until the loss breaks."""
    scale = rate_scale(trial.recipe.optimizer, trial.lengths.step_samples)
    rate = LOWEST
    taking = trial.steps(lambda: rate * scale)
    started = time.perf_counter()
    next(taking)  # warms up
    first = time.perf_counter() - started
    next(taking)
    each = min(first, time.perf_counter() - started - first)
    steps = min(max(int((seconds - first) / max(each, 1e-6)), _FEWEST), _MOST)
    rates: list[float] = []
    losses: list[float] = []
    for rate in np.geomspace(LOWEST, HIGHEST, steps).tolist():
        next(taking)
        outcome = trial.outcome
        if outcome is None or (outcome.skipped and not outcome.counts_as_bad):
            continue  # float16 looks for its scale
        if outcome.skipped or _is_broken([*losses, outcome.loss]):
            return _read(rates, losses, stopped=True)
        rates.append(rate)
        losses.append(outcome.loss)
    return _read(rates, losses, stopped=False)


def _is_broken(losses: Sequence[float]) -> bool:
    """Whether the last three are, on the mean, far above the lowest mean of three before."""
    if len(losses) < 6:
        return False
    means = np.convolve(losses, np.ones(3) / 3, "valid")
    return bool(means[-1] > _BROKEN * means.min())


def _read(rates: Sequence[float], losses: Sequence[float], *, stopped: bool) -> RangeTest:
    smooth = smoothed(losses)
    steepest = lowest = None
    if len(smooth) > 4:
        best = int(smooth.argmin())
        before = float(smooth[: max(len(smooth) // 8, 1)].mean())
        error = _error(np.asarray(losses)[: best + 1] - smooth[: best + 1], len(losses))
        if smooth[best] < min(_FELL * before, before - _SURE * error) and best > 1:
            lowest = rates[best]
            steepest = rates[int(np.gradient(smooth[: best + 1]).argmin())]
    return RangeTest(tuple(rates), tuple(losses), tuple(smooth.tolist()), steepest, lowest, stopped)


def _error(residuals: np.ndarray, steps: int) -> float:
    """The standard error of a smoothed loss, from what single steps lie beside it."""
    return float(residuals.std() / math.sqrt(2 * math.sqrt(math.pi) * _width(steps)))


def _width(steps: int) -> float:
    return max(steps / 16, 1.0)


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """The mean over neighbours, weighted by a Gaussian whose width is a sixteenth of the curve; (n,) -> (n,). A running
    mean would lag behind the rate."""
    values = np.asarray(losses, dtype=np.float64)
    width = _width(len(values))
    places = np.arange(len(values))
    weights = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2)
    out: np.ndarray = weights @ values / np.maximum(weights.sum(1), 1e-12)
    return out


def _largest_batch(
    recipe: Recipe, splits: Splits, device: torch.device, until: float
) -> tuple[list[BatchTried], str]:
    """Batches twice as large each time; on a GPU until one doesn't fit, elsewhere until the next one is expected not
    to: a system that runs out of memory kills the process."""
    size, most = recipe.data.batch_size, len(splits.train) // recipe.train.accumulation_steps
    held = [_held(device)]
    tried: list[BatchTried] = []
    while True:
        if size > most:
            return tried, f"the training pictures: a batch of {size} would be more than there are"
        if tried and time.perf_counter() > until:
            return tried, f"the time: {size} was not tried"
        if len(held) > 2 and device.type != "cuda":
            growth, free = 2 * (held[-1] - held[-2]), _free()
            if free is not None and growth > _ROOM * free:
                return tried, (
                    f"memory: a batch of {size} is expected to take {growth / 2**20:,.0f} MiB more, and "
                    f"{free / 2**20:,.0f} MiB are free"
                )
        try:
            rate = _images_per_second(recipe, size, splits)
        except torch.OutOfMemoryError:
            return tried, f"memory: a batch of {size} does not fit"
        held.append(_held(device))
        tried.append(BatchTried(size, rate, held[-1] / 2**20))
        size *= 2


def _images_per_second(recipe: Recipe, size: int, splits: Splits) -> float:
    data = recipe.data.model_copy(update={"batch_size": size})
    trial = Trial(recipe.model_copy(update={"data": data}), splits=splits)
    if trial.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trial.device)
    taking = trial.steps()
    next(taking)  # warms up, and has the optimizer make its state
    started, images = time.perf_counter(), 0
    while images == 0 or (time.perf_counter() - started < 2 and images < 4 * size):
        images += next(taking)
    synchronise(trial.device)
    return images / (time.perf_counter() - started)


def _held(device: torch.device) -> float:
    """The most bytes that were held so far: by PyTorch on a GPU since it was last asked, else by this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak * (1 if sys.platform == "darwin" else 1024))


def _free() -> float | None:
    """Bytes that the system could still give; None where it doesn't say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else float(found.split()[1]) * 1024


def text_curve(test: RangeTest, *, rows: int = 16, width: int = 40) -> list[str]:
    """The smoothed loss against the rate, a line a rate; bars begin at the lowest loss."""
    if not test.rates:
        return []
    places = sorted(set(np.linspace(0, len(test.rates) - 1, rows).round().astype(int).tolist()))
    low, high = min(test.smooth), max(test.smooth)
    lines = []
    for place in places:
        share = (test.smooth[place] - low) / (high - low) if high > low else 0.0
        bar = "#" * math.ceil(share * width)
        lines.append(f"  {test.rates[place]:8.1e}  {test.smooth[place]:9.4g}  {bar}".rstrip())
    return lines
