"""``crosshead atlas``: one HTML file in which a person explores the heads of a model, or of two."""

import argparse
import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands
from crosshead.cli.commands.predict import find_pictures
from crosshead.cli.inspect.inspected import InspectedRun, add_inspected, open_inspected, said_of

if TYPE_CHECKING:
    from torch import Tensor

_EPILOG = """\
examples:
  crosshead atlas runs/digits_mohsa seven.png             writes atlas.html; open it in a browser
  crosshead atlas runs/plain cat.jpg dog.jpg --beside runs/mohsa --output pets.html
  crosshead atlas dinov2/ cat.jpg                         a folder of transformers' save_pretrained, or crosshead.save
"""
_LIMIT_MB = 10.0


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "atlas",
        help="write a page to explore heads in",
        usage="crosshead atlas RUN PICTURE ... [options]",
        description="Writes one HTML file: every head of every block answers to the pointer. It needs no network.",
        epilog=_EPILOG,
    )
    parser.add_argument("words", nargs="*", metavar="RUN PICTURE ...", help="a run or a model, and pictures")
    parser.add_argument(
        "--beside", metavar="RUN", help="a second run, shown beside the first under one query"
    )
    parser.add_argument(
        "--block", type=int, action="append", metavar="B", help="only this block (repeatable)"
    )
    parser.add_argument(
        "--output", default="atlas.html", metavar="FILE", help="the page (default: atlas.html)"
    )
    parser.add_argument(
        "--limit-mb",
        type=float,
        default=_LIMIT_MB,
        metavar="MB",
        help="largest page; fewer blocks beyond (default: 10)",
    )
    add_inspected(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if len(args.words) < 2:
        raise ValueError("expected a run and at least one picture: crosshead atlas RUN PICTURE ...")
    if not args.limit_mb > 0:
        raise ValueError(f"--limit-mb: expected a size above 0, got {args.limit_mb:g}")
    file = _place(Path(args.output))
    files = find_pictures(args.words[1:])
    models = [open_inspected(word, args) for word in (args.words[0], *([args.beside] if args.beside else []))]
    page, notes = make_page(models, files, args.block, args.limit_mb)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    for note in notes:
        print(note)
    print(f"{file} ({len(page) / 1e6:.1f} MB): open it in a browser")
    return 0


def _place(output: Path) -> Path:
    """The page's file; in a folder that is named, ``atlas.html``."""
    file = output / "atlas.html" if output.is_dir() else output
    if file.suffix not in (".html", ".htm"):
        raise ValueError(
            f"--output: expected a folder, or a name that ends in .html so that a browser opens it; got {output}"
        )
    return file


def make_page(
    models: list[InspectedRun],
    files: list[Path],
    blocks: list[int] | None = None,
    limit_mb: float = _LIMIT_MB,
) -> tuple[str, list[str]]:
    """The page, and what should be said of it.

    Raises:
        ValueError: pictures of different sizes under one model, attention that the page can't show, or a limit that not
            even one block fits.
    """
    from crosshead.pages.embedding import atlas_page

    prepared = [_prepared(inspected, files) for inspected in models]
    pictures = [_picture(models[0], file, tensor) for file, tensor in zip(files, prepared[0], strict=True)]
    room = 1e6 * limit_mb - sum(len(picture["src"]) for picture in pictures) - 60_000
    runs: list[dict[str, Any]] = []
    notes = _sizes_apart(models, prepared)
    for inspected, tensor in zip(models, prepared, strict=True):
        kept, note = _fitting(inspected, tensor, blocks, room / len(models))
        runs.append({"name": inspected.name, "note": _describe(inspected), "blocks": kept})
        notes += note
    title = "Heads of " + " and ".join(inspected.name for inspected in models)
    about = [
        "Move over the picture: every head shows where that patch looks; click to pin it. Rows are computed in this "
        "page from queries and keys in 8 bits; they may differ from the model's by a few thousandths.",
        *notes,
    ]
    return atlas_page(title, "\n".join(about), {"pictures": pictures, "runs": runs}), notes


def _sizes_apart(models: list[InspectedRun], prepared: list["Tensor"]) -> list[str]:
    """What to know of two runs that see the pictures in different sizes."""
    seen = [
        f"{inspected.name} at {t.shape[-1]} x {t.shape[-2]}"
        for inspected, t in zip(models, prepared, strict=True)
    ]
    if len({tuple(tensor.shape[-2:]) for tensor in prepared}) == 1:
        return []
    return [
        f"The pictures are seen by {' and by '.join(seen)} pixels: one query is the same place for both only where "
        "neither cuts the picture or pads it otherwise."
    ]


def _prepared(inspected: InspectedRun, files: list[Path]) -> "Tensor":
    import torch

    tensors = [inspected.read(file) for file in files]
    sizes = {tuple(tensor.shape[-2:]) for tensor in tensors}
    if len(sizes) > 1:
        raise ValueError(
            f"the pictures come out in different sizes ({', '.join(map(str, sorted(sizes)))}); name some alike"
        )
    return torch.cat(tensors)


def _fitting(
    inspected: InspectedRun, tensor: "Tensor", blocks: list[int] | None, room: float
) -> tuple[list[Any], list[str]]:
    """All blocks where they fit; else as many, spread over the depth, the last one among them."""
    from crosshead.pages.embedding import block_size, embed_blocks

    found = embed_blocks(inspected.model, tensor, blocks)
    sizes = [block_size(block) for block in found]
    for count in range(len(found), 0, -1):
        last = len(found) - 1
        chosen = [round(i * last / (count - 1)) for i in range(count)] if count > 1 else [last]
        if sum(sizes[i] for i in chosen) <= room:
            kept = [found[i] for i in chosen]
            if count == len(found):
                return kept, []
            names = ", ".join(str(block["block"]) for block in kept)
            return kept, [f"{inspected.name}: {count} of {len(found)} blocks fit the page's size: {names}."]
    raise ValueError(
        f"not even one block of {inspected.name} fits the page ({min(sizes) / 1e6:.1f} MB a block); name fewer "
        "pictures, or raise --limit-mb"
    )


def _picture(inspected: InspectedRun, file: Path, tensor: "Tensor") -> dict[str, Any]:
    from PIL import Image

    pixels = inspected.shown(tensor)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    height, width = pixels.shape[:2]
    return {
        "name": file.name,
        "caption": _caption(inspected, file, tensor),
        "width": width,
        "height": height,
        "src": source,
    }


def _caption(inspected: InspectedRun, file: Path, tensor: "Tensor") -> str:
    """The picture's name, and what a run says of it."""
    said = said_of(inspected, file, tensor)
    return f"{file.name} ({said})" if said else file.name


def _describe(inspected: InspectedRun) -> str:
    if inspected.trained is None:
        return inspected.about
    return f"{inspected.trained.recipe.model.name}, weights {inspected.trained.weights.parent.name}"
