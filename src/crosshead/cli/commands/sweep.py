"""``crosshead sweep``: one recipe over lists of schedules, models, seeds or any key, and one table."""

import argparse
import csv
import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import Commands, add_device

if TYPE_CHECKING:
    from crosshead.train.tools.sweep import Row, Variant

_EPILOG = """\
examples:
  crosshead sweep digits_mohsa --schedules none,index,reversed,fraction:0.5 --seeds 0,1,2
  crosshead sweep digits digits_mohsa --seeds 0,1,2
  crosshead sweep finetune data.root=/data/pets --folds 5 --over optimizer.lr=1e-4,3e-4
  crosshead sweep digits_mohsa --over optimizer.lr=1e-3,2e-3 --over model.overlap=index,[0,0,1,1,2,2] train.epochs=20

The same command again goes on where it stopped: finished runs are read, a stopped one is resumed.
The table is printed and kept in the sweep's folder as table.md, table.csv and table.json; with three seeds (or folds)
or more of two variants or more it ends in compare.html, which the first variant is the control of.
"""
_SEED = "train.seed"


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "sweep",
        help="train a recipe over lists of schedules, models, seeds",
        usage="crosshead sweep RECIPE ... [KEY=VALUE ...] [options]",
        description="Trains every combination, and prints one table with mean and standard deviation over seeds.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE ... [KEY=VALUE ...]",
        help="recipes, and keys that all of them change",
    )
    parser.add_argument("--schedules", metavar="A,B,...", help="overlap schedules: --over model.overlap=A,B")
    parser.add_argument("--models", metavar="A,B,...", help="models: --over model.name=A,B")
    parser.add_argument(
        "--seeds", metavar="0,1,...", help="the seeds of every combination (default: train.seed's, or 0)"
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="cross-validation: deal the training pictures into K parts, each of which is the test split of one run",
    )
    parser.add_argument(
        "--over", action="append", default=[], metavar="KEY=A,B,...", help="values of any key; repeat"
    )
    parser.add_argument("--output", metavar="DIR", help="the sweep's folder (default: runs/sweep-RECIPE...)")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs side by side, each on a share of the cores or a GPU",
    )
    add_device(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    recipes = [word for word in args.words if "=" not in word]
    overrides = [word for word in args.words if "=" in word]
    if not recipes:
        raise ValueError("no recipe is named; expected one or more of `crosshead recipes`, or .yaml files")
    if args.jobs < 1:
        raise ValueError(f"--jobs: expected at least 1, got {args.jobs}")
    if args.folds is not None and args.folds < 2:
        raise ValueError(f"--folds: expected 2 or more, got {args.folds}")
    over = _lists(args)
    seeds = _seeds(args.seeds, over.pop(_SEED, None), overrides)
    if args.device is not None:
        overrides.append(f"train.device={args.device}")
    folder = Path(args.output or Path("runs", "sweep-" + "-".join(Path(recipe).stem for recipe in recipes)))

    from crosshead.cli.terminal.progress import watch
    from crosshead.cli.terminal.streams import is_rank0, print0
    from crosshead.train.tools.sweep import plan_sweep, run_sweep, tabulate

    variants = plan_sweep(recipes, overrides, over, seeds, folder, args.folds)
    _check_models(variants)
    code = 0
    for outcome in run_sweep(variants, lambda recipe: watch(recipe.log), print0, args.jobs):
        if outcome.status == "stopped" or outcome.status == "unsaved":
            code = outcome.exit_code
        else:
            code = 1 if outcome.status == "failed" and outcome.again else code
            if is_rank0():
                save_table(tabulate(variants), variants, folder)
    rows = tabulate(variants) if is_rank0() else []
    if rows:
        _print_table(rows, folder)
        _compare(variants, folder)
    if code:
        print0(
            "not through; the same command goes on from here"
            if code != 1
            else "not all runs came to a result"
        )
    return code


def _compare(variants: "list[Variant]", folder: Path) -> None:
    """What the seeds allow to be said, and its page, where all that was planned is finished."""
    from crosshead.cli.commands.compare import write_page
    from crosshead.compare.comparison import compare_runs
    from crosshead.compare.differences import FEWEST_SEEDS

    runs = [path for variant in variants for path in variant.folders.values()]
    if len(variants) < 2 or len(variants[0].folders) < FEWEST_SEEDS:
        return
    try:
        comparison = compare_runs(runs)
    except ValueError as error:  # the table stands, whatever keeps the runs from being compared
        print(f"not compared: {error}")
        return
    write_page(comparison, folder / "compare.html")
    print(
        "\n"
        + "\n".join([*(each.sentence for each in comparison.against), f"the page: {folder / 'compare.html'}"])
    )


def _lists(args: argparse.Namespace) -> dict[str, list[str]]:
    given = list(args.over)
    given += [f"model.overlap={args.schedules}"] if args.schedules else []
    given += [f"model.name={args.models}"] if args.models else []
    over: dict[str, list[str]] = {}
    for text in given:
        key, equals, values = text.partition("=")
        if not equals or not key or not all(split_list(values)):
            raise ValueError(f"--over: expected KEY=A,B,..., got {text!r}")
        if key in over:
            raise ValueError(f"{key} is swept over twice; put all its values into one list")
        over[key] = split_list(values)
    return over


def split_list(text: str) -> list[str]:
    """``a,[0,1],b`` as ``a``, ``[0,1]`` and ``b``."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text)]


def _seeds(given: str | None, swept: list[str] | None, overrides: list[str]) -> list[int]:
    """Those of ``--seeds``, of ``--over train.seed=...`` or of ``train.seed=N``; said twice they are an error."""
    set_to = [word.partition("=")[2] for word in overrides if word.startswith(f"{_SEED}=")]
    texts = [text for text in (given, swept and ",".join(swept), *set_to[-1:]) if text]
    if len(texts) > 1:
        raise ValueError(f"the seeds are given twice, {texts[0]} and {texts[1]}; put them all into --seeds")
    text = texts[0] if texts else "0"
    words = split_list(text)
    if not all(word.isdecimal() for word in words) or len(set(words)) != len(words):
        raise ValueError(f"--seeds: expected different whole numbers like 0,1,2, got {text!r}")
    return [int(word) for word in words]


def _check_models(variants: "list[Variant]") -> None:
    """Builds every model once, without memory for its weights: what can't be built is told before the first hour."""
    import torch

    from crosshead.models import build_model

    for variant in variants:
        recipe = variant.recipe
        with torch.device("meta"):
            build_model(
                recipe.model,
                num_classes=recipe.model.args.get("num_classes", 2),
                in_chans=recipe.data.channels,
                img_size=recipe.data.image_size,
                from_weights=False,
            )


def save_table(rows: "list[Row]", variants: "list[Variant]", folder: Path) -> None:
    """``table.md``, ``table.csv`` and ``table.json``; the last one also names the runs."""
    from crosshead.files import spreadsheet_cell
    from crosshead.train.files import replace_file
    from crosshead.train.tools.sweep import as_cells

    cells = [as_cells(row) for row in rows]
    lines = ["| " + " | ".join(cells[0]) + " |", "|" + " --- |" * len(cells[0])]
    lines += ["| " + " | ".join(map(str, row.values())) + " |" for row in cells]
    replace_file(folder / "table.md", ("\n".join(lines) + "\n").encode())

    figures = [
        {**asdict(row), "seeds": " ".join(map(str, row.seeds)), "failed": " ".join(map(str, row.failed))}
        for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, figures[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: spreadsheet_cell(value) for key, value in row.items()} for row in figures)
    replace_file(folder / "table.csv", text.getvalue().encode())

    runs = {
        v.label: {seed: str(path.relative_to(folder)) for seed, path in v.folders.items()} for v in variants
    }
    content = [
        {**asdict(row), "runs": {seed: runs[row.label][seed] for seed in (*row.seeds, *row.failed)}}
        for row in rows
    ]
    replace_file(folder / "table.json", (json.dumps(content, indent=2) + "\n").encode())


def _print_table(rows: "list[Row]", folder: Path) -> None:
    from rich.table import Table

    from crosshead.cli.terminal.console import table_console
    from crosshead.train.tools.sweep import as_cells

    cells = [as_cells(row) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, title in enumerate(cells[0]):
        table.add_column(title, justify="right" if number else "left")
    for row in cells:
        table.add_row(*map(str, row.values()))
    table_console().print(table)
    over = rows[0].over
    print(f"\nmean ± standard deviation over {over}s; also in {folder}/table.md, table.csv and table.json")
