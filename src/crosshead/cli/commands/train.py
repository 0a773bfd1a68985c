"""``crosshead train``: one recipe, trained."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments import authors
from crosshead.cli.arguments.options import (
    Commands,
    add_device,
    add_recipe_words,
    find_checkpoint,
    find_run,
    split_words,
)

if TYPE_CHECKING:
    from crosshead.recipe import Recipe

_EPILOG = """\
examples:
  crosshead train digits_mohsa
  crosshead train digits_mohsa train.epochs=10 model.overlap=index --tag short
  crosshead train my_recipe.yaml --output /data/runs --device cuda
  crosshead train --resume runs/digits_mohsa
  torchrun --nproc_per_node=8 -m crosshead train vit_small_16_224_imagenet --data-path /data/imagenet

A run is a folder, OUTPUT/NAME or OUTPUT/NAME/TAG: the resolved recipe.yaml, versions.json, metrics.jsonl,
tensorboard/, checkpoints/, best/, result.json and the picture curves.png.

exit codes: 0 finished; 2 wrong input; 65 the numbers went wrong; 71 a process that loads data died,
--resume goes on; 74 the last checkpoint or the result could not be written; 75 stopped by a signal,
--resume goes on
"""
_HOURS, _FEWER = 2 * 3600, 5


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a recipe",
        usage="crosshead train RECIPE [KEY=VALUE ...] [options]",
        description="Trains a recipe, or goes on with a run that was stopped.",
        epilog=_EPILOG,
    )
    add_recipe_words(parser)
    run = parser.add_argument_group("the run")
    run.add_argument("--output", metavar="DIR", help="the folder of all runs (default: the recipe's, 'runs')")
    run.add_argument("--tag", metavar="TAG", help="keep this run in OUTPUT/NAME/TAG")
    run.add_argument("--seed", type=int, metavar="N", help="the same as train.seed=N")
    run.add_argument(
        "--epochs", type=int, metavar="N", help="train.epochs=N; a warm-up in epochs shrinks with it"
    )
    run.add_argument("--lr", type=float, metavar="RATE", help="the same as optimizer.lr=RATE")
    run.add_argument("--model", metavar="NAME", help="the same as model.name=NAME")
    add_device(run)
    run.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with RUN, or with this recipe's own folder",
    )
    authors.add_arguments(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    recipe, folder = plan(args)
    if args.throughput:
        from crosshead.cli.throughput import print_throughput

        return print_throughput(recipe)
    if args.eval:
        return evaluate_only(recipe, args)

    if _is_weights(args.resume):
        raise ValueError(
            f"--resume {args.resume} names a file of weights, and only a run can be gone on with, which keeps its "
            f"optimizer and its place too; model.init_from={args.resume} starts a new run from these weights"
        )

    from crosshead.cli.terminal.progress import watch
    from crosshead.train import EXIT_BAD_NUMBERS, EXIT_WORKERS_LOST, BadNumbers, WorkersLost, train
    from crosshead.train.resolve import refuse_other_model
    from crosshead.train.run_folder.lock import check_platform

    check_platform()
    if args.resume is None and (args.model or any(w.startswith("model.name=") for w in args.words)):
        refuse_other_model(recipe)
    if recipe.log.forecast and args.resume is None and os.environ.get("WORLD_SIZE", "1") == "1":
        announce(recipe)
    resume: Path | bool = Path(args.resume) if args.resume else args.resume is not None
    try:
        result = train(recipe, folder=folder, resume=resume, callback=watch(recipe.log))
    except BadNumbers:  # the callback has said what happened
        return EXIT_BAD_NUMBERS
    except WorkersLost:
        return EXIT_WORKERS_LOST
    return result.exit_code


def announce(recipe: "Recipe") -> None:
    """How long the run will take, and what to take instead where that is hours."""
    from crosshead.cli.terminal.wording import duration
    from crosshead.train.tools.profile import forecast

    print("measuring a few steps", flush=True)
    found = forecast(recipe)
    print(
        f"about {duration(found.seconds)} on {found.device}: {found.steps:,} steps of {found.step_seconds:.2g} s "
        f"(median of {found.measured}), and the evaluations",
        flush=True,
    )
    if found.seconds > _HOURS:
        instead = f"model.name={found.smaller}, " if found.smaller else ""
        print(
            f"that is hours; it is less with {instead}a smaller data.image_size, or train.epochs={_FEWER}",
            flush=True,
        )


def evaluate_only(recipe: "Recipe", args: argparse.Namespace) -> int:
    """``--eval``: of the run or checkpoint that ``--resume`` names, or of a file of weights for the recipe."""
    from crosshead.cli.commands.evaluate import print_run, print_weights

    weights = args.resume if _is_weights(args.resume) else None if args.resume else recipe.model.init_from
    if weights:
        return print_weights(recipe, Path(weights), args.device)
    if not args.resume:
        raise ValueError(
            "--eval evaluates what is there; name it with --resume: a run's folder, a checkpoint in it, or, with a "
            "recipe, a file of weights (.safetensors, or the MOHSA authors' .pth)"
        )
    run, checkpoint = find_checkpoint(args.resume)
    return print_run(run, checkpoint, device=args.device, data_root=args.data_path, recipe=recipe)


def _is_weights(resume: str | None) -> bool:
    """Whether ``--resume`` names a file of weights that lies in no run."""
    if not resume or not resume.endswith((".pth", ".pt", ".safetensors")):
        return False
    return not any((folder / "recipe.yaml").is_file() for folder in Path(resume).parents)


def plan(args: argparse.Namespace) -> "tuple[Recipe, Path | None]":
    """What to train, and the folder that --tag names; where it is None, the training chooses a free one."""
    from crosshead.recipe import load_recipe

    name, overrides = split_words(args.words)
    if name and args.cfg:
        raise ValueError(f"the recipe is named twice, {name} and --cfg {args.cfg}; keep one of the two")
    source = name or args.cfg or (find_run(args.resume) / "recipe.yaml" if args.resume else None)
    if source is None:
        raise ValueError(
            "no recipe is named; expected one of `crosshead recipes`, a .yaml file, or --resume RUN"
        )
    recipe = load_recipe(source, overrides, _values(args))
    if args.tag is None:
        return recipe, None

    from crosshead.train.run_folder.folder import named_folder

    return recipe, named_folder(recipe, args.tag)


def _values(args: argparse.Namespace) -> dict[str, Any]:
    own = {
        "output": args.output,
        "train.seed": args.seed,
        "train.device": args.device,
        "train.epochs": args.epochs,
        "optimizer.lr": args.lr,
        "model.name": args.model,
    }
    return authors.values(args) | {key: value for key, value in own.items() if value is not None}
