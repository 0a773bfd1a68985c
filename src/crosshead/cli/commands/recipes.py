"""``crosshead recipes``: the recipes that come with the package, or one of them in full."""

import argparse

from crosshead.cli.arguments.options import Commands, add_recipe_words, split_words


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "recipes",
        help="list the shipped recipes, or show one with every key",
        usage="crosshead recipes [RECIPE [KEY=VALUE ...]]",
        description="Lists the shipped recipes. With RECIPE: shows it whole, as a run would use it.",
    )
    add_recipe_words(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    from crosshead.recipe import dump_recipe, load_recipe, shipped_recipes

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
