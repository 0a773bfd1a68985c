"""``crosshead export``: a run's model as a program that PyTorch alone runs."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import Commands, add_checkpoint, find_checkpoint

if TYPE_CHECKING:
    from crosshead.models.exporting import Exported

_EPILOG = """\
examples:
  crosshead export runs/pets --out pets.pt2
  crosshead export runs/streets --out streets.pt2 --size 1024x2048
  crosshead export runs/objects --out backbone.pt2 --backbone     any image size
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="a run's model as a torch.export program",
        usage="crosshead export RUN --out FILE.pt2 [options]",
        description="Writes the model of a run as a torch.export program (.pt2), loads it again, and compares it with\n"
        "the model before it reports success. A classifier or segmenter goes whole; of a detector the\n"
        "backbone, or backbone and pyramid.",
        epilog=_EPILOG,
    )
    parser.add_argument("folder", metavar="RUN", help="the folder of a run, such as runs/digits_mohsa")
    parser.add_argument("--out", metavar="FILE.pt2", required=True, help="the file to write")
    parser.add_argument("--size", metavar="HxW", help="of the images, in pixels (default: the recipe's)")
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--backbone", action="store_true", help="the maps at the backbone's strides, for images of any size"
    )
    part.add_argument("--pyramid", action="store_true", help="backbone and pyramid, for images of one size")
    add_checkpoint(parser)
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    out = Path(args.out)
    if out.exists() and not args.force:
        raise ValueError(f"{out} is there already; name another file, or replace it with --force")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.absolute().parent}")
    run, checkpoint = find_checkpoint(args.folder)
    size = None if args.size is None else _size(args.size)

    from crosshead.data.transforms.pipeline import image_size
    from crosshead.models.exporting import export_model
    from crosshead.train.inference import load_run, preparation_of

    trained = load_run(run, checkpoint=args.checkpoint or checkpoint, device="cpu")
    prepared = preparation_of(trained)
    about = {
        "model": trained.recipe.model.name,
        "task": trained.recipe.task.name,
        "step": trained.step,
        "classes": prepared["label_names"],
        "mean": list(prepared["mean"]),
        "std": list(prepared["std"]),
    }
    if not (args.backbone or args.pyramid) and hasattr(trained.model, "stride"):
        about["stride"] = trained.model.stride
    exported = export_model(
        trained.model,
        out,
        size=size or image_size(trained.recipe.data),
        channels=trained.info.channels,
        part="backbone" if args.backbone else "pyramid" if args.pyramid else "whole",
        about=about,
    )
    _print(exported)
    return 0


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})[x×,]([1-9][0-9]{0,4})", text.strip().lower())
    if found is None:
        raise ValueError(f"--size: expected height and width in pixels, such as 512x1024, got {text!r}")
    return int(found[1]), int(found[2])


def _print(exported: "Exported") -> None:
    import torch

    def shape(sizes: tuple[int | str, ...]) -> str:
        return " x ".join(map(str, sizes))

    what = {"whole": "the whole model", "backbone": "the backbone", "pyramid": "backbone and pyramid"}
    print(f"{exported.file}: {what[exported.part]}, float32, by torch {torch.__version__}")
    print(f"  images   {shape(exported.inputs)}")
    if exported.multiple is not None:
        print(
            f"           height and width multiples of {exported.multiple}, tried from {exported.smallest} on"
        )
    print(f"  of {shape(exported.tried)}   {', '.join(shape(each) for each in exported.outputs)}")
    print(f"  loaded again and compared: {exported.difference:.1e} of the largest output apart")
    if exported.fixed_because is not None:
        print(f"  no more than that may vary: {exported.fixed_because}")
