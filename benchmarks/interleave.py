"""How every benchmark here measures: competitors in turn in one process, after warm-up, median and spread."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one competitor; ``ratio`` is the median, over rounds, of its time over the baseline's."""

    name: str
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float

    def __str__(self) -> str:
        spread = f"{self.median_ms:9.2f} ms [{self.low_ms:.2f}, {self.high_ms:.2f}]"
        return (
            f"  {self.name:34s} {spread:34s} x {self.ratio:.3f} [{self.ratio_low:.3f}, {self.ratio_high:.3f}]"
        )


def compare(
    competitors: dict[str, Callable[[], object]],
    rounds: int = 15,
    warmup: int = 3,
    synchronize: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Times the competitors in turn, round by round; the first is the baseline of the ratios.

    The spread is the middle half of the rounds. Ratios are taken within a round, so that a machine that slows down
    for a while slows both sides.
    """
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for turn in range(warmup + rounds):
        for name, run in competitors.items():
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            if turn >= warmup:
                times[name].append((time.perf_counter() - start) * 1e3)
    baseline = next(iter(times.values()))
    return [_timing(name, values, baseline) for name, values in times.items()]


def _timing(name: str, values: list[float], baseline: list[float]) -> Timing:
    ratios = [value / base for value, base in zip(values, baseline, strict=True)]
    low, median, high = statistics.quantiles(values, n=4)
    ratio_low, ratio, ratio_high = statistics.quantiles(ratios, n=4)
    return Timing(name, median, low, high, ratio, ratio_low, ratio_high)


def require_close(got: torch.Tensor, want: torch.Tensor, tolerance: float, what: str) -> None:
    """Ends the benchmark where a competitor's result is wrong: a fast wrong answer is not reported."""
    error = ((got.double() - want.double()).abs().max() / want.double().abs().max()).item()
    if not error <= tolerance:
        raise SystemExit(
            f"{what}: relative error {error:.2e} against float64, allowed {tolerance:.0e}; not reported"
        )


def conditions(allocator: str, device: str = "cpu") -> dict[str, str | int]:
    """What a figure depends on."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
        "allocator": allocator,
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    """Its name, the extensions that matter here, and the second cache of a core, as far as the system tells them."""
    try:
        lines = dict(
            line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line
        )
        told = {key.strip(): value.strip() for key, value in lines.items()}
        cache = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
        second = f"L2 {cache.read_text().strip()}" if cache.is_file() else ""
    except OSError:
        return f"{platform.machine()} CPU"
    extensions = {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile"} & set(
        told.get("flags", "").split()
    )
    return " ".join([platform.machine(), told.get("model name", "CPU"), *sorted(extensions), second]).strip()


def report(path: Path, header: dict, tables: dict[str, list[Timing]]) -> None:
    """Prints the tables and writes them as JSON beside the conditions."""
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    for title, timings in tables.items():
        print(title)
        for timing in timings:
            print(timing)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"conditions": header, "tables": {t: [asdict(x) for x in xs] for t, xs in tables.items()}}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
