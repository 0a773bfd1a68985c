"""``crosshead profile``: where the time of a training step goes."""

import argparse
import json
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import Commands, add_device, add_recipe_words, split_words

if TYPE_CHECKING:
    from crosshead.train.tools.profile import Profile


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "profile",
        help="where a training step's time goes",
        usage="crosshead profile RECIPE [KEY=VALUE ...] [options]",
        description="Takes a few training steps under torch.profiler, in one process, and prints how long data,\n"
        "forward, backward and optimizer take, and which operators take longest. Trains nothing and writes nothing.",
    )
    add_recipe_words(parser)
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="steps to measure (default: 10)")
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    name, overrides = split_words(args.words)
    if name is None:
        raise ValueError("no recipe is named; expected one of `crosshead recipes`, or a .yaml file")
    if args.steps < 1:
        raise ValueError(f"--steps: expected at least 1, got {args.steps}")

    from crosshead.recipe import load_recipe

    recipe = load_recipe(name, overrides, {"train.device": args.device} if args.device else None)

    from crosshead.train.tools.profile import profile

    found = profile(recipe, steps=args.steps)
    if args.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        _print(found)
    return 0


def _print(found: "Profile") -> None:
    import torch
    from rich.table import Table

    from crosshead.cli.terminal.console import table_console

    medians = {name: statistics.median(times) for name, times in found.parts.items()}
    whole = sum(medians.values())
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("part")
    for title in ("ms a step", "share", "from", "to"):
        table.add_column(title, justify="right")
    for name, times in found.parts.items():
        table.add_row(
            name,
            f"{medians[name]:.1f}",
            f"{medians[name] / whole:.1%}",
            f"{min(times):.1f}",
            f"{max(times):.1f}",
        )
    table.add_row("step", f"{whole:.1f}", "", "", "")
    slowest = Table(box=None, header_style="bold", pad_edge=False)
    slowest.add_column("operator, without what it calls")
    for title in ("ms a step", "calls"):
        slowest.add_column(title, justify="right")
    for name, milliseconds, calls in found.operators:
        slowest.add_row(name, f"{milliseconds:.1f}", f"{calls:.0f}")
    console = table_console()
    console.print(table)
    print()
    console.print(slowest)
    threads = f" with {torch.get_num_threads()} threads" if found.device == "cpu" else ""
    print(
        f"\nmedian of {found.steps} steps of {found.images} images on {found.device}{threads}, torch "
        f"{torch.__version__}; the profiler itself takes some time"
    )
