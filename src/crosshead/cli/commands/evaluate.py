"""``crosshead eval``: a run's metrics, every image counted once."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands, add_checkpoint, add_device, find_checkpoint
from crosshead.cli.screen.leading import say

if TYPE_CHECKING:
    from crosshead.recipe import Recipe
    from crosshead.train.loading import Evaluated


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
        help="which images (default: test, or validation where there is no such split)",
    )
    add_checkpoint(parser)
    add_device(parser)
    parser.add_argument("--data-path", metavar="DIR", help="where the data lies now, if it moved")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if len(args.words) != 1:
        raise ValueError(f"wanted the folder of one run, came {len(args.words)} ({' '.join(args.words)})")
    run, checkpoint = find_checkpoint(args.words[0])
    return print_run(
        run, args.checkpoint or checkpoint, args.split, args.device, args.data_path, as_json=args.json
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
) -> int:
    """Evaluates a run's checkpoint, by its own recipe or another, and prints the metrics, as a line or as JSON."""
    from crosshead.train.loading import evaluate_trained, load_trained

    trained = load_trained(run, checkpoint=checkpoint, device=device, recipe=recipe)
    found = evaluate_trained(trained, split=split, data_root=data_root)
    if as_json:
        where = {"run": str(run), "split": found.split, "checkpoint": checkpoint, "step": trained.step}
        table = {"classes": found.details["classes"]} if "classes" in found.details else {}
        say(json.dumps({**where, **found.metrics, **table}))
    else:
        say(_line(found, f"{_named(checkpoint, trained.step)} weights of {run}"))
        for line in _classes(found.details.get("classes", [])):
            say(line)
    return 0


def print_weights(recipe: "Recipe", weights: Path, device: str | None = None) -> int:
    """Evaluates a file of weights with a recipe's model on its data, and prints the metrics."""
    from crosshead.data.sets.catalog import open_splits
    from crosshead.train.loading import evaluate_on, load_for_recipe
    from crosshead.train.starting import settle

    recipe = settle(recipe)

    splits = open_splits(recipe.data, seed=recipe.split_seed)
    found = evaluate_on(load_for_recipe(recipe, splits.info, weights, device=device), splits)
    say(_line(found, str(weights)))
    return 0


def _classes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line a class, under a heading: shares in percent, counts as they are, and a dash for what there is none of."""
    if not rows:
        return
    columns = list(rows[0])
    cells = [columns, *[[_cell(row[column]) for column in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        first = line[0].ljust(widths[0])
        yield "  ".join(
            [first, *[cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]]
        )


def _cell(value: str | float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def _named(checkpoint: str, step: int | None) -> str:
    return f"step {step}" if checkpoint == str(step) else f"{checkpoint} (step {step})"


def _line(found: "Evaluated", weights: str) -> str:
    from crosshead.cli.screen.wording import figures

    names = [name for name in found.metrics if name != "count"]
    return f"{found.split}: {figures(found.metrics, names)} ({found.metrics['count']:.0f} images, {weights})"
