"""``crosshead tune``: a learning rate and a batch size to begin with."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import Commands, add_device, add_recipe_words, split_words

if TYPE_CHECKING:
    from crosshead.train.tools.tune import Tuned

_UNKNOWN = """\
What this can't know: the rate is where the loss of the first steps falls fastest, from these weights, with this batch
and one seed. It says nothing of where a whole run ends, of warm-up, weight decay or length, and a longer run often
wants a lower rate. The largest batch that fits is not the best one: another batch wants another rate, and may end
elsewhere."""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "tune",
        help="a learning rate and a batch size to begin with, in about a minute",
        usage="crosshead tune RECIPE [KEY=VALUE ...] [options]",
        description="Takes training steps at rates that rise from 1e-6 to 10 and prints the loss against them, then\n"
        "tries batches twice as large each time; suggests keys of the recipe. In one process; writes nothing.",
        epilog="example:\n  crosshead tune finetune data.root=/data/pets model.init_from=weights.safetensors",
    )
    add_recipe_words(parser)
    parser.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="how long it may take, about (default: 60)"
    )
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    name, overrides = split_words(args.words)
    if name is None:
        raise ValueError("no recipe is named; expected one of `crosshead recipes`, or a .yaml file")
    if not args.seconds > 0:
        raise ValueError(f"--seconds: expected more than 0, got {args.seconds:g}")

    from crosshead.recipe import load_recipe
    from crosshead.train.tools.tune import tune

    recipe = load_recipe(name, overrides, {"train.device": args.device} if args.device else None)
    found = tune(recipe, seconds=args.seconds)
    if args.json:
        print(json.dumps({**asdict(found), "overrides": found.overrides}, indent=1))
        return 0
    _print(found)
    rate, fits = found.rates.steepest, found.batches[-1].size if found.batches else None
    if rate is not None:
        print(f"\nsuggested with {found.batch_size} pictures a step: optimizer.lr={rate:.1e}")
    if fits is not None:
        print(f"the largest batch seen to fit: data.batch_size={fits}; tune again with it, for its own rate")
    print(f"\n{_UNKNOWN}")
    return 0


def _print(found: "Tuned") -> None:
    from crosshead.train.tools.tune import text_curve

    rates = found.rates
    print(f"loss against optimizer.lr, {found.batch_size} pictures a step, smoothed:")
    print("\n".join(text_curve(rates)) or "  none: the first step's loss was not finite")
    if rates.stopped and rates.rates:
        print(f"the loss broke above {rates.rates[-1]:.1e}")
    if rates.steepest is None:
        print(
            "the loss fell at no rate: nothing is suggested; more time (--seconds) or another recipe may tell"
        )
    else:
        print(f"it falls fastest at {rates.steepest:.1e} and is lowest at {rates.lowest:.1e}")
    print("\nbatch  pictures a second  MiB at most")
    for each in found.batches:
        print(f"{each.size:5}  {each.images_per_second:17.1f}  {each.mebibytes:11,.0f}")
    print(f"what ended it: {found.limit}")
    print(f"{found.seconds:.0f} s on {found.device}")
