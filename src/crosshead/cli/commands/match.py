"""``crosshead match``: a control of equal cost, as a recipe."""

import argparse
from pathlib import Path

from crosshead.cli.arguments.options import Commands, add_device, add_recipe_words, split_words

_EPILOG = """\
examples:
  crosshead match digits --to digits_mohsa --by parameters     plain heads, a wider MLP
  crosshead match digits --to digits_mohsa --by time           plain heads, trained longer
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "match",
        help="a control of equal parameters, operations or time",
        usage="crosshead match RECIPE [KEY=VALUE ...] --to OTHER --by parameters|gmacs|time [options]",
        description="Changes RECIPE until it costs as much as OTHER, within 1 %, and writes it as a recipe.",
        epilog=_EPILOG,
    )
    add_recipe_words(parser)
    parser.add_argument("--to", metavar="OTHER", help="the recipe whose cost is to be matched")
    parser.add_argument("--by", metavar="COST", help="parameters, gmacs or time")
    parser.add_argument(
        "--over",
        metavar="ARG",
        help="what to change: mlp_ratio, embed_dim or depth (default: the first that serves)",
    )
    parser.add_argument("--output", metavar="FILE.yaml", help="default: RECIPE_as_OTHER_COST.yaml")
    add_device(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    name, overrides = split_words(args.words)
    if name is None or args.to is None:
        raise ValueError("expected a recipe, and --to with another one; `crosshead recipes` lists them")
    if args.by not in ("parameters", "gmacs", "time"):
        raise ValueError(f"--by: expected parameters, gmacs or time, got {args.by}")

    from crosshead.recipe import load_recipe
    from crosshead.recipe.compose import dump_recipe
    from crosshead.train.tools.match import CHANGES, match_recipe

    if args.over is not None and args.over not in CHANGES:
        raise ValueError(f"--over: expected one of {', '.join(CHANGES)}, got {args.over}")
    values = {"train.device": args.device} if args.device else {}
    recipe, other = load_recipe(name, overrides, values), load_recipe(args.to, [], values)
    file = Path(args.output or f"{recipe.name}_as_{other.name}_{args.by}.yaml")
    if file.suffix != ".yaml":
        raise ValueError(f"--output: expected a name that ends in .yaml, got {file}")
    found = match_recipe(recipe, other, args.by, args.over)
    file.parent.mkdir(parents=True, exist_ok=True)
    # A match of two recipes is one's own, and has its own name.
    file.write_text(dump_recipe(found.recipe.model_copy(update={"name": file.stem})), encoding="utf-8")
    unit = {"parameters": "parameters", "gmacs": "GMACs", "time": "s"}[args.by]
    print(
        f"{found.changed}: {found.found:,.6g} {unit} where {other.name} has {found.wanted:,.6g} "
        f"({found.found / found.wanted - 1:+.2%})"
    )
    print(f"{file}: crosshead sweep {args.to} {file} train.paired_init=true --seeds 0,1,2")
    return 0
