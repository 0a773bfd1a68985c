"""``crosshead demo``: the same small ViT with plain and with overlapped heads, on handwritten digits; ``demo dense``
segments and finds them on photographs."""

import argparse
import contextlib
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import Commands, add_device, split_words

if TYPE_CHECKING:
    from crosshead.train import Result

_RECIPES = {"plain heads": "digits", "overlapped heads": "digits_mohsa"}
_EPOCHS = "train.epochs=35"  # of the recipes' 60, so that the demo is through in four minutes
_PROBED = ("plain@8", "plain@4", "plain@2", "talking@8")


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="train plain and overlapped heads on digits, and compare them",
        usage="crosshead demo [dense] [KEY=VALUE ...] [options]",
        description="Trains the same small vision transformer twice on scikit-learn's handwritten digits, with "
        "plain\nand with overlapped heads, and prints a table; then it probes what interacting heads learn in as many\n"
        "steps as plain ones, of any number. It takes two to four minutes on two CPU cores: 35 epochs of the\n"
        "recipes' 60, unless train.epochs or train.steps says otherwise.\n"
        "With dense it trains Semantic FPN and Mask R-CNN on digits on photographs, and draws what they\n"
        "find in test scenes; that takes about four minutes.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[dense] KEY=VALUE",
        help="dense, or nothing; and keys to change in both runs: train.epochs=10",
    )
    parser.add_argument(
        "--output", default="runs", metavar="DIR", help="the folder of all runs (default: runs)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="default: the recipes'")
    add_device(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    from crosshead.cli.terminal.progress import watch
    from crosshead.recipe import load_recipe
    from crosshead.train import train
    from crosshead.train.logging.curves import compare_curves

    demo, overrides = split_words(args.words)
    if demo not in (None, "dense"):
        raise ValueError(f"there is no demo {demo!r}; expected dense, or none")
    folder = free_folder(Path(args.output))
    if demo == "dense":
        from crosshead.cli.dense_demo import run_dense

        return run_dense(args, overrides, folder)
    values: dict[str, object] = {"output": str(folder)}
    if args.seed is not None:
        values["train.seed"] = args.seed
    if args.device is not None:
        values["train.device"] = args.device
    results: dict[str, Result] = {}
    for heads, name in _RECIPES.items():
        recipe = load_recipe(name, [_EPOCHS, *overrides], values)
        results[heads] = train(recipe, folder=folder / name, callback=watch(recipe.log))
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
    _probe(folder)
    return 0


def _probe(folder: Path) -> None:
    """What digits do not ask: many relations at once. One seed a kind; what five show is in docs/evidence.md."""
    from crosshead.cli.commands.probe import cores, print_report, save_report
    from crosshead.probes import probe

    print(
        "\nDigits ask little of heads. A task made to ask more of them, on sequences of symbols:\n",
        flush=True,
    )
    report = probe("pairs", _PROBED, jobs=cores(), controls=False)
    print_report(report)
    data, picture = save_report(report, folder, page=False)
    print(f"\nthe probe   {picture}, {data}")
    print(
        "            one seed each, in equal steps, of which talking heads' take longer. Five other seeds show no"
    )
    print("            lead on four plain heads here, and a clear one with more relations (docs/evidence.md)")
    print("            with controls of equal cost, and more seeds: crosshead probe pairs --seeds 0-4")


def free_folder(runs: Path) -> Path:
    """The first of demo-1, demo-2, ... that is not there, made: another demo started now takes the next."""
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            (runs / f"demo-{number}").mkdir(parents=True)
            return runs / f"demo-{number}"
    raise AssertionError("the numbers have no end")


def _print_table(results: "dict[str, Result]") -> None:
    from rich.table import Table

    from crosshead.cli.terminal.console import table_console

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
    table_console().print(table)
    plain, overlapped = (result.parameters for result in results.values())
    print(
        f"\nOverlapping adds {overlapped - plain:,} parameters ({overlapped / plain - 1:+.1%}), all in the output "
        "projections.\nImages/s is training throughput; accuracies are those of the step that was best in validation."
    )
    print(what_one_run_shows(list(results.values())))


def what_one_run_shows(results: "list[Result]") -> str:
    """How far a test accuracy of one run can be off, and what it takes to compare two recipes."""
    count = min(result.test["count"] for result in results)
    low, high = interval(min(result.test["accuracy"] for result in results), count)
    return (
        f"One run of each on {count:.0f} test pictures: the lower accuracy stands for anything from {low:.1%} to\n"
        f"{high:.1%} (95%, Wilson's interval), and another seed trains another model. Which heads are better this\n"
        "does not show; several seeds can: crosshead sweep digits digits_mohsa --seeds 0,1,2"
    )


def interval(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share of ``count`` (Wilson, 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _print_places(results: "dict[str, Result]", picture: Path) -> None:
    print(f"\nloss and accuracy of both   {picture}")
    for heads, result in results.items():
        print(f"{heads}\n  run           {result.folder}\n  curves        {result.folder / 'curves.png'}")
        print(f"  checkpoints   {result.folder / 'checkpoints'}, the best {result.weights}")
    run = results["overlapped heads"].folder
    print(f"\nnext: crosshead eval {run}\n      crosshead predict {run} PICTURE ...")
