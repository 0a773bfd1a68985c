"""On one GPU: every operator against its equations, then what it costs. Ten minutes at most; needs torch, Triton, timm.

    make gpu
    python benchmarks/gpu.py --only agreement

It exits with 1 where an operator is wrong or a table could not be measured, and with 2 where there is no GPU.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict

import torch

from interleave import RESULTS, conditions


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["agreement", "tables"])
    parser.add_argument("--minutes", type=float, default=9.0, help="no table begins after this")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "make gpu needs a CUDA GPU, and PyTorch sees none; the tests (make test) run without one",
            file=sys.stderr,
        )
        return 2
    start = time.monotonic()
    content: dict = {
        "conditions": _conditions(),
        "agreement": [],
        "tables": {},
        "peak MiB": {},
        "not measured": {},
    }
    print(", ".join(f"{key} {value}" for key, value in content["conditions"].items()))
    failed = 0
    if args.only != "tables":
        from gpu_agreement import check_all

        findings = check_all("cuda")
        content["agreement"] = [asdict(found) for found in findings]
        failed = sum(not found.passed for found in findings)
        print(f"{failed} of {len(findings)} failed")
        _write(content)
    if args.only != "agreement":
        _measure(content, start + 60 * args.minutes, args.rounds)
    return 1 if failed or content["not measured"] else 0


def _measure(content: dict, end: float, rounds: int) -> None:
    """Table after table, each written as soon as it is there; a fault or the end of time costs what it meets alone."""
    from gpu_tables import families

    for family, tables in families().items():
        title = family
        try:
            for title, runs in tables:
                _measure_table(content, title, runs, end, rounds)
        except Exception as error:
            content["not measured"][title] = f"{type(error).__name__}: {str(error)[:300]}"
            print(f"{title}\n  not measured, nor what follows of {family}: {content['not measured'][title]}")
        _write(content)


def _measure_table(content: dict, title: str, runs: dict, end: float, rounds: int) -> None:
    from gpu_tables import measured

    if time.monotonic() > end:
        content["not measured"][title] = "time was up"
        print(f"{title}\n  not measured: time was up")
        return
    timings, peaks = measured(runs, rounds)
    print(title)
    for timing in timings:
        print(f"{timing}  peak {peaks[timing.name]:.0f} MiB", flush=True)
    content["tables"][title] = [asdict(timing) for timing in timings]
    content["peak MiB"][title] = peaks
    runs.clear()
    torch.cuda.empty_cache()
    _write(content)


def _conditions() -> dict[str, str | int]:
    import triton

    properties = torch.cuda.get_device_properties(0)
    return conditions("PyTorch's", "cuda") | {
        "compute capability": f"{properties.major}.{properties.minor}",
        "memory GiB": round(properties.total_memory / 2**30),
        "cuda": str(torch.version.cuda),
        "triton": triton.__version__,
    }


def _write(content: dict) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
