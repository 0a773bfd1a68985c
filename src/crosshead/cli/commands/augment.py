"""``crosshead augment``: a sheet of training pictures as the model sees them."""

import argparse
from pathlib import Path

from crosshead.cli.arguments.options import Commands, add_recipe_words, split_words


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "augment",
        help="draw a batch as the model sees it",
        usage="crosshead augment RECIPE [KEY=VALUE ...] [options]",
        description="Draws a batch of training pictures after cropping, augmentation and mixing, the normalisation\n"
        "taken back, each above its target; boxes, masks and maps are drawn onto them.\n"
        "It is the batch that a run of the recipe begins with.",
        epilog="example:\n  crosshead augment image_folder data.root=/data/pets augment.mixup=0.8 --out pets.png",
    )
    add_recipe_words(parser)
    parser.add_argument("--out", default="augment.png", metavar="FILE", help="default: augment.png")
    parser.add_argument("--count", type=int, default=32, metavar="N", help="how many pictures (default: 32)")
    parser.add_argument(
        "--epoch", type=int, default=1, metavar="N", help="of which epoch (default: the first)"
    )
    parser.add_argument("--data-path", metavar="DIR", help="the same as data.root=DIR")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    name, overrides = split_words(args.words)
    if name is None:
        raise ValueError("no recipe is named; expected one of `crosshead recipes`, or a .yaml file")
    for option, number in (("--count", args.count), ("--epoch", args.epoch)):
        if number < 1:
            raise ValueError(f"{option}: expected at least 1, got {number}")

    from crosshead.data.batching.loader import training_loader
    from crosshead.data.datasets.registry import open_splits
    from crosshead.recipe import load_recipe
    from crosshead.tasks import open_task
    from crosshead.train.logging.sheet import captions, sheet, targets_of
    from crosshead.train.resolve import resolve

    recipe = resolve(load_recipe(name, overrides, {"data.root": args.data_path} if args.data_path else None))
    splits = open_splits(recipe)
    task = open_task(recipe, splits.info)
    made = task.training_batches(splits.train, seed=recipe.train.seed, epoch=args.epoch - 1)
    pictures, targets, said = [], [], []
    for batch in training_loader(made):
        pictures += list(batch.images)
        targets += targets_of(batch.targets, len(batch))
        said += captions(batch.targets, splits.info.class_names, len(batch))
        if len(pictures) >= args.count:
            break
    if not pictures:
        raise ValueError("no picture of the training set can be read; `crosshead data check` says why")
    drawn = sheet(pictures[: args.count], targets[: args.count], said[: args.count], splits.info)
    out = Path(args.out)
    drawn.save(out)
    print(
        f"{min(len(pictures), args.count)} pictures of {splits.info.name} as {recipe.name} trains on them: {out}"
    )
    return 0
