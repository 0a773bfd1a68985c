"""``crosshead eval``: a run's metrics, every image counted once."""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import (
    Commands,
    add_checkpoint,
    add_device,
    find_checkpoint,
    split_keys,
    used_with,
)
from crosshead.cli.terminal.streams import print0

if TYPE_CHECKING:
    from crosshead.recipe import Recipe
    from crosshead.train.inference import LoadedRun, SplitResult


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "eval",
        help="evaluate a run",
        usage="crosshead eval RUN [KEY=VALUE ...] [options]",
        description="Evaluates a run's weights on one of its splits; every image counts exactly once.\n"
        "KEY=VALUE changes how the run is used (task.window=1024).",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RUN [KEY=VALUE ...]",
        help="the folder of a run, such as runs/digits_mohsa, and keys",
    )
    parser.add_argument(
        "--split",
        choices=["train", "validation", "test"],
        help="which images (default: test, or validation where there is no such split)",
    )
    add_checkpoint(parser)
    add_device(parser)
    parser.add_argument("--data-path", metavar="DIR", help="where the data lies now, if it moved")
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="write what was said: of a classifier FILE.csv, a row an image; of a detector FILE.json (COCO's results), "
        "FILE.csv (a row an object), or a folder (YOLO's text)",
    )
    parser.add_argument(
        "--tta",
        metavar="KINDS",
        help="test-time augmentation: flip, scales, or flip,scales; the same as task.tta=[KINDS]. Its cost is told",
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON, with all tables")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    words, overrides = split_keys(args.words)
    if args.tta is not None:
        overrides.append(f"task.tta=[{args.tta}]")
    if len(words) != 1:
        raise ValueError(f"expected the folder of one run, got {len(words)} ({' '.join(words)})")
    run, checkpoint = find_checkpoint(words[0])
    predictions = None if args.predictions is None else Path(args.predictions)
    if predictions is not None and not predictions.absolute().parent.is_dir():
        raise ValueError(f"--predictions {predictions}: there is no folder {predictions.absolute().parent}")
    return print_run(
        run,
        args.checkpoint or checkpoint,
        args.split,
        args.device,
        args.data_path,
        recipe=used_with(run, overrides),
        as_json=args.json,
        predictions=predictions,
    )


def print_run(
    run: Path,
    checkpoint: str,
    split: str | None = None,
    device: str | None = None,
    data_root: str | None = None,
    *,
    recipe: "Recipe | None" = None,
    as_json: bool = False,
    predictions: Path | None = None,
) -> int:
    """Evaluates a run's checkpoint, by its own recipe or another, and prints the metrics, in lines or as JSON; writes
    what the model said of each image into ``predictions``."""
    from crosshead.cli.prediction_files import write_predictions
    from crosshead.cli.terminal.wording import class_table, number_table
    from crosshead.train.distributed import groups as distributed
    from crosshead.train.inference import evaluate_loaded, load_run

    trained = load_run(run, checkpoint=checkpoint, device=device, recipe=recipe)
    kept = predictions is not None
    began = time.perf_counter()
    found = evaluate_loaded(trained, split=split, data_root=data_root, predictions=kept)
    seconds = time.perf_counter() - began
    if predictions is not None and distributed.meet(trained.recipe.train.rank_timeout_s).is_rank0:
        write_predictions(found.predictions, predictions, trained.info)
    if as_json:
        where = {"run": str(run), "split": found.split, "checkpoint": checkpoint, "step": trained.step}
        metrics = {name: value if math.isfinite(value) else None for name, value in found.metrics.items()}
        print0(json.dumps({**where, **metrics, **found.details}, allow_nan=False))
    else:
        print0(_line(found, f"{_named(checkpoint, trained.step)} weights of {run}", trained.task.shown))
        if trained.recipe.task.tta:
            print0(_cost(trained, seconds))
        for line in number_table(found.details) + class_table(found.details):
            print0(line)
    return _code(found)


def print_weights(recipe: "Recipe", weights: Path, device: str | None = None) -> int:
    """Evaluates a file of weights with a recipe's model on its data, and prints the metrics."""
    from crosshead.data.datasets.registry import open_splits
    from crosshead.train.inference import evaluate_on, load_for_recipe
    from crosshead.train.resolve import resolve

    recipe = resolve(recipe)

    splits = open_splits(recipe)
    trained = load_for_recipe(recipe, splits.info, weights, device=device)
    found = evaluate_on(trained, splits)
    print0(_line(found, str(weights), trained.task.shown))
    return _code(found)


def _code(found: "SplitResult") -> int:
    """65, and the reason on stderr, where what was found is no judgement."""
    from crosshead.cli.terminal.streams import is_rank0
    from crosshead.train import EXIT_BAD_NUMBERS

    if found.fault is None:
        return 0
    if is_rank0():
        print(f"this is no judgement: {found.fault}", file=sys.stderr)
    return EXIT_BAD_NUMBERS


def _cost(trained: "LoadedRun", seconds: float) -> str:
    """What several views of each picture take."""
    from crosshead.tasks.augmented import pixel_factor, view_count

    views = trained.recipe.task.tta
    factor = pixel_factor(views, whole=trained.task.whole_pictures)
    return (
        f"test-time augmentation ({', '.join(views)}): {view_count(views)} views a picture, {factor:.3g} times the "
        f"pixels of one; {seconds:.1f} s with reading"
    )


def _named(checkpoint: str, step: int | None) -> str:
    return f"step {step}" if checkpoint == str(step) else f"{checkpoint} (step {step})"


def _line(found: "SplitResult", weights: str, shown: tuple[str, ...]) -> str:
    """All metrics, or those that are ``shown`` where a table follows with the others."""
    from crosshead.cli.terminal.wording import figures

    names = [name for name in (shown if "numbers" in found.details else found.metrics) if name != "count"]
    return f"{found.split}: {figures(found.metrics, names)} ({found.metrics['count']:.0f} images, {weights})"
