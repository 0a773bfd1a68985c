"""``crosshead demo``: the same small ViT with plain and with overlapped heads, on handwritten digits."""

import argparse
import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import Commands, add_device

if TYPE_CHECKING:
    from crosshead.train import Result

_RECIPES = {"plain heads": "digits", "overlapped heads": "digits_mohsa"}


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="train plain and overlapped heads on digits, and compare them",
        usage="crosshead demo [KEY=VALUE ...] [options]",
        description="Trains the same small vision transformer twice on scikit-learn's handwritten digits, with "
        "plain\nand with overlapped heads, and prints a table. It takes a minute or two on two CPU cores.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="keys to change in both: train.epochs=10"
    )
    parser.add_argument(
        "--output", default="runs", metavar="DIR", help="the folder of all runs (default: runs)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="default: the recipes'")
    add_device(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    from crosshead.cli.screen.watch import watch
    from crosshead.recipe import load_recipe
    from crosshead.train import train
    from crosshead.train.telling.curves import compare_curves

    folder = free_folder(Path(args.output))
    values: dict[str, object] = {"output": str(folder)}
    if args.seed is not None:
        values["train.seed"] = args.seed
    if args.device is not None:
        values["train.device"] = args.device
    results: dict[str, Result] = {}
    for heads, name in _RECIPES.items():
        recipe = load_recipe(name, args.words, values)
        results[heads] = train(recipe, folder=folder / name, observer=watch(recipe.log))
        if results[heads].status != "finished":
            return results[heads].exit_code
        print()
    picture = compare_curves(
        {heads: result.folder for heads, result in results.items()},
        "plain and overlapped heads on digits",
        folder / "curves.png",
    )
    _print_table(results)
    _print_places(results, picture)
    return 0


def free_folder(runs: Path) -> Path:
    """The first of demo-1, demo-2, ... that is not there, made: another demo started now takes the next."""
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            (runs / f"demo-{number}").mkdir(parents=True)
            return runs / f"demo-{number}"
    raise AssertionError("the numbers have no end")


def _print_table(results: "dict[str, Result]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("digits")
    for title in ("parameters", "GMACs", "images/s", "validation", "test"):
        table.add_column(title, justify="right")
    for heads, result in results.items():
        table.add_row(
            heads,
            f"{result.parameters:,}",
            f"{result.gmacs:.4f}",
            f"{result.images_per_second:,.0f}",
            f"{result.validation['accuracy']:.2%}",
            f"{result.test['accuracy']:.2%}",
        )
    Console(highlight=False).print(table)
    plain, overlapped = (result.parameters for result in results.values())
    print(
        f"\nOverlapping adds {overlapped - plain:,} parameters ({overlapped / plain - 1:+.1%}), all in the output "
        "projections.\nImages/s is training throughput; accuracies are those of the step that was best in validation."
    )


def _print_places(results: "dict[str, Result]", picture: Path) -> None:
    print(f"\nloss and accuracy of both   {picture}")
    for heads, result in results.items():
        print(f"{heads}\n  run           {result.folder}\n  curves        {result.folder / 'curves.png'}")
        print(f"  checkpoints   {result.folder / 'checkpoints'}, the best {result.weights}")
    run = results["overlapped heads"].folder
    print(f"\nnext: crosshead eval {run}\n      crosshead predict {run} PICTURE ...")
