"""``crosshead compare``: whether recipes differ, from their finished runs over seeds."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import Commands, add_device

if TYPE_CHECKING:
    from crosshead.compare.comparison import Comparison

_EPILOG = """\
examples:
  crosshead compare runs/sweep-digits-digits_mohsa --page verdict.html
  crosshead compare runs/plain-* runs/mohsa-* --metric balanced_accuracy
  crosshead compare runs/digits runs/digits_mohsa         two runs: of these checkpoints alone

Runs are grouped by recipe, seeds (or folds of a cross-validation) apart; the first one's recipe is what the others are
held against.
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="whether recipes differ, over their seeds",
        usage="crosshead compare RUN ... | SWEEP ... [options]",
        description="Compares recipes by one metric on the test images, and says what their seeds allow to be said.",
        epilog=_EPILOG,
    )
    parser.add_argument("words", nargs="*", metavar="RUN", help="folders of finished runs, or of sweeps")
    parser.add_argument(
        "--metric", metavar="M", help="named beforehand (default: the first that the task shows)"
    )
    parser.add_argument(
        "--looks",
        type=int,
        default=1,
        metavar="K",
        help="looks that were planned, as seeds are added (default: 1)",
    )
    parser.add_argument("--page", metavar="FILE", help="write an HTML page")
    parser.add_argument("--json", action="store_true", help="print it all as JSON")
    add_device(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    folders = [Path(word) for word in args.words]
    if not folders:
        raise ValueError("no run is named; expected the folders of runs, or of a sweep")
    if len(folders) == 2 and all((folder / "recipe.yaml").is_file() for folder in folders):
        return _two_checkpoints(folders[0], folders[1], args)

    from crosshead.compare.comparison import compare_runs
    from crosshead.compare.telling import as_data

    comparison = compare_runs(folders, args.metric, args.looks)
    if args.json:
        print(json.dumps(as_data(comparison), indent=1, allow_nan=False))
    else:
        print_comparison(comparison)
    if args.page:
        write_page(comparison, Path(args.page))
        if not args.json:
            print(f"\n{args.page}: open it in a browser")
    return 0


def _two_checkpoints(a: Path, b: Path, args: argparse.Namespace) -> int:
    from crosshead.compare.checkpoints import compare_selected
    from crosshead.compare.runs import group_runs, read_runs

    if args.page or args.metric or args.looks != 1:
        raise ValueError(
            "two runs are compared in accuracy, image by image; a page wants three seeds of each recipe"
        )
    if a.resolve() == b.resolve():
        raise ValueError(f"{a} and {b} are one run; expected two, or the folder of a sweep")
    group_runs(read_runs([a, b]))
    found = compare_selected(a, b, args.device)
    if args.json:
        print(json.dumps(vars(found)))
        return 0
    print(
        f"{b} less {a}, test accuracy: {100 * found.difference:+.2f} points "
        f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}] over {found.images} images.\n"
        "That is of these two checkpoints: it says nothing of training them again. For that, train three seeds of each."
    )
    return 0


def print_comparison(comparison: "Comparison") -> None:
    """The sentences, the table, and what they rest on."""
    from rich.table import Table

    from crosshead.cli.terminal.console import table_console
    from crosshead.compare.telling import as_data

    data = as_data(comparison)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, title in enumerate(data["rows"][0]):
        table.add_column(title, justify="right" if number else "left")
    for row in data["rows"]:
        table.add_row(*row.values())
    table_console().print(table)
    print("\n" + "\n".join([*data["sentences"], "", *data["notes"]]))
    print("\nwhere the recipes differ:")
    for row in data["settings"]:
        key, *values = row.values()
        print(f"  {key}: {' | '.join(values)}")


def write_page(comparison: "Comparison", file: Path) -> None:
    from crosshead.compare.telling import as_data
    from crosshead.pages.reports import compare_page

    if file.suffix not in (".html", ".htm"):
        raise ValueError(f"--page: expected a name that ends in .html so that a browser opens it, got {file}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(compare_page(as_data(comparison)), encoding="utf-8")
