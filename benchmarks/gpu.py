"""On one GPU: every operator against its equations, then what it costs. Needs torch, Triton, timm.

    make gpu                                              everything, each part in a process of its own
    python benchmarks/gpu.py --call 1 --out DIR           a call of under nine minutes: 1, 2, or 3 to 6 (a model each)
    python benchmarks/gpu.py --parts agreement,overlap    parts by name
    python benchmarks/gpu.py --rehearse                   the whole program on a CPU, at tiny sizes: no figure counts

A part that fails, or that a misaligned read ends with its process, costs nothing but itself. Each writes a JSON file as
soon as it knows something. It exits with 1 where an operator is wrong or a part could not be measured, and with 2 where
there is no GPU.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from gpu_tables import MODELS, Bench, parts_of_tables
from interleave import RESULTS, conditions

AGREEMENT = "agreement"
CALLS = [
    [AGREEMENT, "overlap", "windows"],
    ["talking", "interactive", "profile", "steps"],
    *([f"compiled {model}"] for model in MODELS),
]


def main() -> int:
    args = _parse()
    if not args.rehearse and not torch.cuda.is_available():
        print(
            "make gpu needs a CUDA GPU, and PyTorch sees none; the tests (make test) run without one",
            file=sys.stderr,
        )
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        return _run_part(args)
    names = args.parts or [name for call in CALLS for name in call]
    if args.call:
        names = CALLS[args.call - 1]
    end, failed = time.monotonic() + 60 * args.minutes, []
    for name in names:
        left = end - time.monotonic()
        if left < 5:
            print(f"{name}: not measured, time was up")
            failed.append(name)
            continue
        command = [sys.executable, __file__, "--part", name, "--out", str(args.out)]
        command += ["--rounds", str(args.rounds), "--minutes", f"{left / 60:.2f}"]
        try:
            code = subprocess.run(command + ["--rehearse"] * args.rehearse, timeout=left).returncode
        except subprocess.TimeoutExpired:
            code = "its time was up"
        if code:
            print(f"{name}: failed ({code})")
            failed.append(name)
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--call", type=int, choices=range(1, len(CALLS) + 1))
    parser.add_argument("--parts", type=lambda text: text.split(","))
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON files go")
    parser.add_argument("--minutes", type=float, default=8.5, help="of all parts together")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, tiny: whether it runs")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_part(args: argparse.Namespace) -> int:
    device = "cpu" if args.rehearse else "cuda"
    path = args.out / f"gpu_{args.part.replace(' ', '_')}.json"
    content: dict = {"conditions": _conditions(device)}
    print(args.part, ", ".join(f"{key} {value}" for key, value in content["conditions"].items()), flush=True)
    if args.part == AGREEMENT:
        from gpu_agreement import check_all

        findings = check_all(device)
        content["agreement"] = [asdict(found) for found in findings]
        path.write_text(json.dumps(content, indent=1) + "\n")
        wrong = sum(not found.passed for found in findings)
        print(f"{wrong} of {len(findings)} failed")
        return 1 if wrong else 0
    bench = Bench(device, 1 if args.rehearse else args.rounds, tiny=args.rehearse)
    end = time.monotonic() + 60 * args.minutes
    content |= {"tables": {}, "not measured": {}}
    for title, measure in parts_of_tables(bench)[args.part]():
        if time.monotonic() > end:
            content["not measured"][title] = "time was up"
            continue
        try:
            content["tables"][title] = measure()
        except Exception as error:
            content["not measured"][title] = f"{type(error).__name__}: {str(error)[:300]}"
            print(f"{title}\n  not measured: {content['not measured'][title]}", flush=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if content["not measured"] else 0


def _conditions(device: str) -> dict[str, str | int]:
    import triton

    found = conditions("PyTorch's", device) | {"triton": triton.__version__}
    if device == "cpu":
        return found
    properties = torch.cuda.get_device_properties(0)
    return found | {
        "compute capability": f"{properties.major}.{properties.minor}",
        "memory GiB": round(properties.total_memory / 2**30),
        "cuda": str(torch.version.cuda),
    }


if __name__ == "__main__":
    sys.exit(main())
