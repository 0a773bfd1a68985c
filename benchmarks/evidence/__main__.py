"""Measures the parts that are named, all unless some are; each goes on where it stopped.

    PYTHONPATH=benchmarks python -m evidence [PART ...] [--cells A,B] [--minutes M]
    PYTHONPATH=benchmarks python -m evidence --list

A run that is through is in benchmarks/results/evidence/PART.json and is not made again. Stop it whenever you like.
"""

import argparse
import importlib
import time

import torch

from .ledger import Ledger, Part

PARTS = (
    "claims", "pairing", "thin_heads", "recall_rule", "bandwidth", "pairs", "pairs_wide", "imhsa_pictures",
    "mohsa_pictures", "imhsa_size", "upcycling", "conversion", "conversion_real",
)  # fmt: skip


def load(name: str) -> Part:
    return importlib.import_module(f".{name}", __package__).PART


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--cells", default="", help="of the part's table alone, separated by commas")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--list", action="store_true", help="say what is planned and what is through")
    args = parser.parse_args()
    for name in args.parts:
        if name not in PARTS:
            parser.error(f"no part {name!r}; expected some of {', '.join(PARTS)}")
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * args.minutes
    for name in args.parts or PARTS:
        ledger = Ledger(load(name))
        left = ledger.remaining(filter(None, args.cells.split(",")))
        print(f"{name}: {len(ledger.held['runs'])} of {len(ledger.part.jobs)} runs are through", flush=True)
        for number, job in enumerate([] if args.list else left, 1):
            if time.monotonic() >= end:
                return
            run = ledger.measure(job)
            shown = {key: value for key, value in run.items() if isinstance(value, float)}
            print(f"{number}/{len(left)} {job.cell}, seed {job.seed}: {shown}", flush=True)


if __name__ == "__main__":
    main()
