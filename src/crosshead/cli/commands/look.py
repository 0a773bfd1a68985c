"""``crosshead look``: what the heads of a model attend to in one's own pictures, as sheets."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands
from crosshead.cli.commands.predict import find_pictures
from crosshead.cli.inspect.detection import check_detects, find_detection
from crosshead.cli.inspect.inspected import InspectedRun, add_inspected, open_inspected, said_of

if TYPE_CHECKING:
    from torch import Tensor

    from crosshead.heads.picture import LayerMaps, Query
    from crosshead.train.inference import LoadedRun

_EPILOG = """\
examples:
  crosshead look runs/pets cat.jpg                          every head of every block, for the class token
  crosshead look runs/pets cat.jpg --query 120,80 --block -1
  crosshead look runs/pets cat.jpg --gradient "tabby cat"   what of it speaks for a class
  crosshead look runs/scenes street.jpg --detection 2       the box of the second best object that is found
  crosshead look vit_small_patch16_224 cat.jpg --weights vit.safetensors --query mean
  crosshead look torchvision/vit_b_16 cat.jpg --weights vit_b_16.pth
  crosshead look dinov2/ cat.jpg                            a folder of transformers' save_pretrained, or crosshead.save
"""
_MOST_CELLS = 600  # of one sheet: more would be too small to see


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "look",
        help="draw what heads attend to in pictures",
        usage="crosshead look RUN PICTURE ... [options]",
        description="Writes a PNG sheet a picture: a row a block, a column a head.",
        epilog=_EPILOG,
    )
    parser.add_argument("words", nargs="*", metavar="RUN PICTURE ...", help="a run or a model, and pictures")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--query",
        default=None,
        metavar="Q",
        help="cls, mean, a pixel X,Y of the model's input, or a box X,Y,X,Y (default: cls, or mean without one)",
    )
    asked.add_argument(
        "--detection",
        type=int,
        metavar="N",
        help="of a detector's run: the box of the N-th best object that it finds, counted from 1",
    )
    parser.add_argument(
        "--of-class", metavar="CLASS", help="with --detection: of the objects of this class alone"
    )
    parser.add_argument(
        "--block", type=int, action="append", metavar="B", help="only this block (repeatable)"
    )
    parser.add_argument("--head", type=int, action="append", metavar="H", help="only this head (repeatable)")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--gradient", metavar="CLASS", help="maps weighted by the gradient of a class (name or number)"
    )
    kinds.add_argument(
        "--rollout", action="store_true", help="one map of all blocks, where their product means something"
    )
    parser.add_argument("--plain", action="store_true", help="the maps alone, not over the picture")
    parser.add_argument(
        "--scale",
        choices=("head", "block", "even"),
        default="head",
        help="colours: of each head (default), one for a block's heads, or against even attention",
    )
    parser.add_argument(
        "--shared-scale", action="store_const", dest="scale", const="block", help="the same as --scale block"
    )
    parser.add_argument("--output", default=".", metavar="DIR", help="where the sheets go (default: here)")
    add_inspected(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if len(args.words) < 2:
        raise ValueError("expected a run and at least one picture: crosshead look RUN PICTURE ...")
    query = parse_query(args.query)
    check_detection(args)
    files = find_pictures(args.words[1:])
    inspected = open_inspected(args.words[0], args)
    if args.gradient is not None and inspected.trained is not None:
        check_whole(inspected.trained)
    if args.detection is not None:
        check_detects(inspected, args.of_class)
    target = None if args.gradient is None else class_number(inspected, args.gradient)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        sheet = folder / f"{file.stem}.{inspected.name}.heads.png"
        _draw(inspected, file, sheet, query, target, args)
        print(sheet)
    sys.stdout.flush()
    return 0


def parse_query(text: str | None) -> "Query | None":
    """``cls``, ``mean``, ``X,Y`` or ``X,Y,X,Y``; ValueError for another."""
    if text is None or text in ("cls", "mean"):
        return text  # type: ignore[return-value]
    numbers = text.split(",")
    if len(numbers) not in (2, 4) or not all(
        re.fullmatch(r" *[0-9]+(\.[0-9]*)? *", each) for each in numbers
    ):
        raise ValueError(f"--query {text!r}: expected cls, mean, a pixel X,Y or a box X,Y,X,Y")
    return tuple(float(each) for each in numbers)  # type: ignore[return-value]


def check_whole(trained: "LoadedRun") -> None:
    """Raises ValueError for a run whose task says no class of the picture as a whole."""
    if trained.task.targets != "label":
        raise ValueError(
            f"--gradient: a run of task.name={trained.recipe.task.name} says a class of parts of the picture, not of "
            "the whole; leave it out"
        )


def check_detection(args: argparse.Namespace) -> None:
    """Raises ValueError for a number that counts nothing, or a class of nothing."""
    if args.detection is None and args.of_class is not None:
        raise ValueError("--of-class says which objects --detection N counts; give both")
    if args.detection is not None and args.detection < 1:
        raise ValueError(f"--detection: expected 1 for the best object, or more, got {args.detection}")


def class_number(inspected: InspectedRun, text: str) -> int:
    """A class by its name or number; ValueError, with the nearest name, where there is none."""
    import difflib

    names = list(inspected.classes or ())
    if text in names:
        return names.index(text)
    if re.fullmatch(r"[0-9]+", text):
        return int(text)
    near = difflib.get_close_matches(text, names, n=1)
    raise ValueError(
        f"there is no class {text!r}" + (f"; the nearest is {near[0]!r}" if near else "; give its number")
    )


def _draw(
    inspected: InspectedRun,
    file: Path,
    sheet: Path,
    query: "Query | None",
    target: int | None,
    args: argparse.Namespace,
) -> None:
    from crosshead.heads.sheets import draw_sheet

    picture, asked = inspected.read(file), None
    if args.detection is not None:
        found = find_detection(inspected, file, args.detection, args.of_class)
        query, asked = found.box, found.label
    query, blocks = _maps(inspected, picture, query, target, args)
    cells = sum(len(block.maps) for block in blocks)
    if cells > _MOST_CELLS:
        raise ValueError(
            f"{cells} maps are too many for one sheet; choose with --block and --head (at most {_MOST_CELLS})"
        )
    whose = asked or _named(query)
    what = f"rollout from {whose}" if args.rollout else f"attention of {whose}"
    if target is not None:
        what = f"what speaks for class {args.gradient} in the {what}"
    said = said_of(inspected, file, picture[0])
    draw_sheet(
        sheet,
        inspected.shown(picture[0]),
        blocks,
        title=f"{inspected.name}, {file.name}: {what}",
        said=f"prediction: {said}" if said else "",
        query=None if isinstance(query, str) else query,
        overlay=not args.plain,
        scale=args.scale,
    )


def _maps(
    inspected: InspectedRun,
    picture: "Tensor",
    query: "Query | None",
    target: int | None,
    args: argparse.Namespace,
) -> tuple["Query", list[Any]]:
    """The query that was asked, or else the first one of cls and mean that every block can answer; and the maps."""
    for asked in ("cls", "mean") if query is None else (query,):
        try:
            return asked, _maps_of(inspected, picture, asked, target, args)  # type: ignore[arg-type]
        except ValueError as error:
            if query is not None or asked == "mean" or "sees no class token" not in str(error):
                raise
    raise AssertionError("one of the two queries was asked last")


def _maps_of(
    inspected: InspectedRun, picture: "Tensor", query: "Query", target: int | None, args: argparse.Namespace
) -> list[Any]:
    from crosshead.heads.picture import attention_maps, gradient_maps, rollout
    from crosshead.heads.sheets import BlockMaps

    if args.rollout:
        whole = rollout(inspected.model, picture, query).cpu().numpy()
        return [BlockMaps("rollout of all blocks", None, whole[None])]
    chosen: dict[str, Any] = {"blocks": args.block, "heads": args.head}
    if target is None:
        found = attention_maps(inspected.model, picture, query, **chosen)
    else:
        found = gradient_maps(inspected.model, picture, target, query, **chosen)
    return [_drawn(layer) for layer in found]


def _drawn(layer: "LayerMaps") -> Any:
    from crosshead.heads.sheets import BlockMaps

    even = None if layer.even is None else layer.even.numpy()
    label = f"block {layer.block}: {layer.words}"
    return BlockMaps(label, layer.heads, layer.maps.numpy(), even, layer.signed)


def _named(query: "Query") -> str:
    if isinstance(query, str):
        return {"cls": "the class token", "mean": "all patches, their mean"}[query]
    return ("pixel " if len(query) == 2 else "box ") + ",".join(f"{each:g}" for each in query)
