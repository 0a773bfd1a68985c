"""``crosshead eval``: a run's accuracy, every image counted once."""

import argparse
import json
import os
from pathlib import Path

from crosshead.cli.options import Commands, add_checkpoint, add_device, find_run


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "eval",
        help="evaluate a run",
        usage="crosshead eval RUN [options]",
        description="Evaluates a run's weights on one of its splits; every image counts exactly once.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="RUN", help="the folder of a run, such as runs/digits_mohsa"
    )
    parser.add_argument(
        "--split",
        choices=["train", "validation", "test"],
        default="test",
        help="which images (default: test)",
    )
    add_checkpoint(parser)
    add_device(parser)
    parser.add_argument("--data-path", metavar="DIR", help="where the data lies now, if it moved")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if len(args.words) != 1:
        raise ValueError(f"wanted the folder of one run, came {len(args.words)} ({' '.join(args.words)})")
    return print_evaluation(
        find_run(args.words[0]), args.split, args.checkpoint, args.device, args.data_path, as_json=args.json
    )


def print_evaluation(
    run: Path,
    split: str = "test",
    checkpoint: str = "best",
    device: str | None = None,
    data_root: str | None = None,
    *,
    as_json: bool = False,
) -> int:
    """Evaluates and prints the metrics, as a line or as JSON."""
    from crosshead.train.loading import evaluate_run

    metrics = evaluate_run(run, split=split, checkpoint=checkpoint, device=device, data_root=data_root)
    if os.environ.get("RANK", "0") != "0":  # under torchrun every process knows the answer; one says it
        return 0
    if as_json:
        print(json.dumps({"run": str(run), "split": split, "checkpoint": checkpoint, **metrics}))
    else:
        figures = (
            f"accuracy {metrics['accuracy']:.2%}, top-5 {metrics['top5']:.2%}, loss {metrics['loss']:.4f}"
        )
        print(f"{split}: {figures} ({metrics['count']:.0f} images, {checkpoint} weights of {run})")
    return 0
