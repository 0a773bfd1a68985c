"""``crosshead recipes``: the recipes that come with the package, one of them in full, or what a key means."""

import argparse
import textwrap
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import Commands, add_recipe_words, split_words

if TYPE_CHECKING:
    from crosshead.recipe.describe import Key


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "recipes",
        help="list the shipped recipes, show one with every key, or say what a key means",
        usage="crosshead recipes [RECIPE [KEY=VALUE ...]]\n       crosshead recipes --describe [KEY]",
        description="Lists the shipped recipes. With RECIPE: shows it whole, as a run would use it.",
    )
    add_recipe_words(parser)
    parser.add_argument(
        "--describe",
        nargs="?",
        const="",
        metavar="KEY",
        help="what a key is, what it takes and its default; all keys of a section, or all there are",
    )
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    from crosshead.recipe import dump_recipe, load_recipe, shipped_recipes

    if args.describe is not None:
        return _describe(args)
    name, overrides = split_words(args.words)
    if name:
        print(dump_recipe(load_recipe(name, overrides)), end="")
        return 0
    recipes = shipped_recipes()
    width = max(map(len, recipes))
    for recipe, path in recipes.items():
        first_line = path.read_text(encoding="utf-8").splitlines()[0]
        print(f"{recipe:{width}}  {first_line.removeprefix('#').strip()}")
    return 0


def _describe(args: argparse.Namespace) -> int:
    from crosshead.recipe.describe import described

    if args.words:
        raise ValueError(
            f"--describe: expected at most one key, such as optimizer.lr, got {' '.join(args.words)} besides"
        )
    print("\n".join(line for key in described(args.describe) for line in _lines(key)))
    return 0


def _lines(key: "Key") -> list[str]:
    if key.is_section and key.default != "null":
        head = key.name
    else:
        unit = f" ({key.unit})" if key.unit else ""
        head = f"{key.name}: {key.expected}{unit}; default {key.default}"
    more = ["Further keys are options of its own."] if key.is_section and key.is_open else []
    text = " ".join([key.description, *more])
    return [head, *textwrap.wrap(text, 100, initial_indent="    ", subsequent_indent="    ")]
