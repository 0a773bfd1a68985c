"""``crosshead data``: which data sets there are, whether every image of one can be read, packing and converting."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands, add_recipe_words, split_words
from crosshead.cli.commands import data_convert

if TYPE_CHECKING:
    from crosshead.data.base import Splits
    from crosshead.data.tools.check import CheckReport
    from crosshead.recipe.schema import Recipe

_SHOWN = 20  # broken images printed; --json has all


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "data",
        help="list data sets, check, pack or convert one",
        description="Looks at data, packs and converts it.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the data sets that a recipe can name")
    listing.set_defaults(run=list_data)
    check = actions.add_parser(
        "check",
        aliases=["stats"],
        help="read every image of a data set: what is there, what is broken, what is there twice",
        usage="crosshead data check RECIPE|DATASET [KEY=VALUE ...] [options]",
        description="Reads every image; reports where each split comes from, sizes, channels, balance of the classes,\n"
        "mean and standard deviation, the broken images by path, files that are passed over, and images that lie in\n"
        "more than one split.",
        epilog="examples:\n  crosshead data check fashion-mnist\n"
        "  crosshead data check folder --data-path /data/pets --workers 4\n\n"
        "exit codes: 0 all images can be read; 1 some can't, or train would refuse them; 2 wrong input",
    )
    add_recipe_words(check)
    check.add_argument("--data-path", metavar="DIR", help="the same as data.root=DIR")
    check.add_argument("--workers", type=int, metavar="N", help="the same as data.num_workers=N")
    check.add_argument("--json", action="store_true", help="print the whole report as JSON")
    check.set_defaults(run=check_data)
    pack = actions.add_parser(
        "pack",
        help="put an image folder into shards",
        usage="crosshead data pack RECIPE|DATASET [KEY=VALUE ...] --out DIR [options]",
        description="Writes the data set as tar shards with an index each, in WebDataset's layout; the files' bytes\n"
        "stay as they are. Train on them with data.name=shards data.root=DIR.",
        epilog="example:\n  crosshead data pack folder --data-path /data/pets --out /data/pets-shards",
    )
    add_recipe_words(pack)
    pack.add_argument("--data-path", metavar="DIR", help="the same as data.root=DIR")
    pack.add_argument("--out", required=True, metavar="DIR", help="an empty or new folder for the shards")
    pack.add_argument(
        "--shard-megabytes", type=float, default=256.0, metavar="MB", help="of a shard (default: 256)"
    )
    pack.set_defaults(run=pack_data, workers=None)
    data_convert.register(actions)


def list_data(args: argparse.Namespace) -> int:
    from crosshead.data.datasets.registry import dataset_names, describe_dataset

    names = dataset_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {describe_dataset(name)}")
    return 0


def check_data(args: argparse.Namespace) -> int:
    recipe = _recipe(args)

    from crosshead.cli.terminal.console import reading_bar
    from crosshead.data.datasets.registry import dataset_names, open_splits
    from crosshead.data.tools.check import check_images

    splits = open_splits(recipe)
    with reading_bar() as progress:
        report = check_images(splits, workers=recipe.data.num_workers, progress=progress)
    if args.json:
        print(json.dumps(_as_data(report), indent=2, ensure_ascii=False))
    else:
        from crosshead.cli.terminal.data_report import print_report

        print_report(report)
        _print_broken(report.broken)
    if args.words[0] not in dataset_names():  # what is learned is known: training would refuse this
        from crosshead.train.precheck import check_contents, precheck

        try:
            check_contents(precheck(recipe, splits), splits)
            if not args.json:
                _print_anchors(recipe, splits)
        except ValueError as error:
            print(f"crosshead train would refuse this: {error}", file=sys.stderr)
            return 1
    return 1 if report.broken else 0


def _print_anchors(recipe: "Recipe", splits: "Splits") -> None:
    """How the recipe's anchors suit the training boxes, and how ones made of these boxes would."""
    from crosshead.train.anchors import anchoring, fitted_anchors

    if (now := anchoring(recipe, splits, {})) is None:
        return
    fitted = fitted_anchors(recipe, splits)
    assert fitted is not None
    keys = ", ".join(f"{key}={value}" for key, value in fitted.options.items())
    print(
        f"anchors: overlap with the training boxes, as the model sees them, is {now.overlap:.2f} on the mean; "
        f"{fitted.overlap:.2f} with model.detector.anchors=auto ({keys})"
    )


def pack_data(args: argparse.Namespace) -> int:
    if not args.shard_megabytes > 0:
        raise ValueError(f"--shard-megabytes: expected more than 0, got {args.shard_megabytes:g}")
    recipe = _recipe(args)

    from crosshead.cli.terminal.console import reading_bar
    from crosshead.data.tools.pack import pack

    with reading_bar("packing") as progress:
        report = pack(recipe, Path(args.out), shard_megabytes=args.shard_megabytes, progress=progress)
    for part, samples in report.samples.items():
        print(f"{part}: {samples:,} images in {report.shards[part]} shards")
    _print_broken(report.broken)
    print(f"train on them with data.name={report.dataset} data.root={args.out}")
    return 1 if report.broken else 0


def _recipe(args: argparse.Namespace) -> "Recipe":
    """The recipe that is named, or the defaults for a data set's name."""
    from crosshead.data.datasets.registry import dataset_names
    from crosshead.recipe import default_recipe, load_recipe, shipped_recipes

    name, overrides = split_words(args.words)
    if name is None:
        raise ValueError(
            "expected a data set or a recipe to check; `crosshead data list` names the data sets"
        )
    given = {"data.root": args.data_path, "data.num_workers": args.workers}
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if name in dataset_names():
        return default_recipe(overrides, {"data.name": name} | values)
    if not name.endswith((".yaml", ".yml")) and name not in shipped_recipes():
        raise ValueError(
            f"no data set and no recipe is called {name!r}; the data sets are {', '.join(dataset_names())}"
        )
    return load_recipe(name, overrides, values)


def _as_data(report: "CheckReport") -> dict[str, Any]:
    names = report.info.class_names
    splits = {
        split: {
            "total": part.total,
            "from": part.origin,
            "counted": part.counted,
            "classes": dict(zip(names, part.counts, strict=True)),
            "sizes": {f"{width}x{height}": count for (width, height), count in part.sizes.items()},
            "grey": part.grey,
            "objects": part.objects,
            "boxes": None if part.boxes is None else asdict(part.boxes),
            "turned_by_exif": part.turned,
            "sixteen_bit": {"images": part.wide, "highest": part.highest, "beyond_white": part.beyond_white},
            "mean": part.mean,
            "std": part.std,
            "repeated": report.repeated.get(split, 0),
            "broken": [{"image": image, "reason": reason} for image, reason in part.broken],
        }
        for split, part in report.splits.items()
    }
    passed_over = [{"file": file, "reason": reason} for file, reason in report.passed_over]
    duplicates = [[{"split": split, "image": image} for split, image in group] for group in report.duplicates]
    return {"splits": splits, "notes": report.notes, "passed_over": passed_over, "duplicates": duplicates}


def _print_broken(broken: Sequence[tuple[str, str]]) -> None:
    for image, reason in broken[:_SHOWN]:
        print(f"broken: {image}: {reason}", file=sys.stderr)
    if len(broken) > _SHOWN:
        print(
            f"... and {len(broken) - _SHOWN} more; `crosshead data check --json` lists all", file=sys.stderr
        )
