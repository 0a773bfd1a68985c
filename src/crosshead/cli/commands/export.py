"""``crosshead export``: a model as a file that runs without this library: ONNX, or a program of PyTorch."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands, add_checkpoint, find_checkpoint

if TYPE_CHECKING:
    from crosshead.data.base import Splits
    from crosshead.export.onnx_file import Written
    from crosshead.export.programs import Exported, Part
    from crosshead.export.sources import Source

_EPILOG = """\
examples:
  crosshead export runs/pets                                      pets.onnx: logits of any number of pictures
  crosshead export runs/pets --normalize --softmax                ... of 8-bit pixels, and probabilities
  crosshead export runs/pets --precision int8 --out pets.int8.onnx
  crosshead export runs/streets --dynamic batch,size              maps, of pictures of any size
  crosshead export my_model --out mine.onnx                       a folder of crosshead.save
  crosshead export runs/objects --backbone --out backbone.pt2     a torch.export program
  crosshead predict pets.onnx cat.jpg                             needs no PyTorch
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="a model as an ONNX file, or a torch.export program",
        usage="crosshead export RUN|MODEL [--out FILE] [options]",
        description="Writes a model as an ONNX file (or, --to pt2, a torch.export program), runs it, and compares it\n"
        "with the model, on the run's validation pictures, before it reports success. A file that computes something\n"
        "else is not left behind. Classifiers, segmenters and detectors go whole, or their backbone, or backbone and\n"
        "pyramid; Faster and Mask R-CNN whole only to ONNX. Classes, mean, deviation and sizes go into the file.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "source",
        metavar="RUN|MODEL",
        help="the folder of a run, such as runs/digits_mohsa, a folder of crosshead.save, or a model's name",
    )
    parser.add_argument(
        "--to", choices=("onnx", "pt2"), help="the form (default: what FILE ends in, or onnx)"
    )
    parser.add_argument("--out", metavar="FILE", help="the file to write (default: the source's name here)")
    parser.add_argument(
        "--dynamic",
        metavar="WHAT",
        help="what may vary in an ONNX file: batch (the default), batch,size, size or none",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of an ONNX file (default: fp32)",
    )
    parser.add_argument(
        "--normalize",
        action="store_true",
        help="the ONNX file takes 8-bit pixels, and normalises them itself",
    )
    parser.add_argument("--softmax", action="store_true", help="the ONNX file gives probabilities")
    parser.add_argument("--size", metavar="HxW", help="of the images, in pixels (default: the model's own)")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--backbone", action="store_true", help="the maps at the backbone's strides alone")
    part.add_argument("--pyramid", action="store_true", help="backbone and pyramid alone")
    add_checkpoint(parser)
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    out = _out(args)
    if out.exists() and not args.force:
        raise ValueError(f"{out} is there already; name another file with --out, or replace it with --force")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.absolute().parent}")
    size = None if args.size is None else _size(args.size)
    source = _source(args, size)
    if out.suffix == ".pt2":
        return _program(args, out, source, size)
    return _onnx(args, out, source)


def _out(args: argparse.Namespace) -> Path:
    if args.out is None:
        return Path(f"{Path(args.source).absolute().name}.{args.to or 'onnx'}")
    out = Path(args.out)
    wanted = args.to or out.suffix[1:]
    if wanted not in ("onnx", "pt2") or out.suffix != f".{wanted}":
        raise ValueError(
            f"--out {out}: expected a name that ends in {f'.{args.to}' if args.to else '.onnx or .pt2'}"
        )
    return out


def _source(args: argparse.Namespace, size: tuple[int, int] | None) -> "Source":
    from crosshead.export.sources import of_model, of_run

    place = Path(args.source)
    if any((folder / "recipe.yaml").is_file() for folder in (place, *place.parents)):
        run, checkpoint = find_checkpoint(args.source)
        return of_run(run, args.checkpoint or checkpoint, None if _is_part(args) else size)
    if args.checkpoint is not None:
        raise ValueError(f"--checkpoint is for a run, and {args.source} is none; leave it out")
    return of_model(args.source, size)


def _is_part(args: argparse.Namespace) -> bool:
    return bool(args.backbone or args.pyramid)


def _part(args: argparse.Namespace) -> "Part":
    return "backbone" if args.backbone else "pyramid" if args.pyramid else "whole"


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})[x×,]([1-9][0-9]{0,4})", text.strip().lower())
    if found is None:
        raise ValueError(f"--size: expected height and width in pixels, such as 512x1024, got {text!r}")
    return int(found[1]), int(found[2])


def _varying(text: str | None) -> tuple[str, ...]:
    words = tuple((text or "batch").replace(" ", "").split(","))
    if words != ("none",) and not set(words) <= {"batch", "size"}:
        raise ValueError(f"--dynamic: expected batch, size, batch,size or none, got {text!r}")
    return () if words == ("none",) else words


def _onnx(args: argparse.Namespace, out: Path, source: "Source") -> int:
    from dataclasses import replace

    from crosshead.export.onnx_file import export_onnx
    from crosshead.export.sources import pictures_of, validation_of

    varying, about = _varying(args.dynamic), source.about
    part = _part(args)
    _check_options(args, about.answers, varying)
    if part != "whole":
        about = replace(about, task="outputs", answers=None, detector=None, stride=None)
    if args.size is not None:
        about = replace(about, size=_size(args.size) if part != "whole" else about.size)
    about = replace(
        about,
        input="pixels" if args.normalize else "normalized",
        outputs="probabilities" if args.softmax else "logits",
    )
    splits, without = validation_of(source)
    pictures = [] if splits is None else pictures_of(splits.validation, about)
    written = export_onnx(
        source.model, out, about, part=part, varying=varying, precision=args.precision, pictures=pictures
    )
    _print_onnx(written, without)
    if args.precision != "fp32" and part == "whole":
        print(f"  on the validation pictures: {_judged(source, splits, without, out, args.precision)}")
    return 0


def _judged(source: "Source", splits: "Splits | None", without: str | None, out: Path, precision: str) -> str:
    """How well the model does, and its file; or why that is not known."""
    from crosshead.export.checks import judge
    from crosshead.export.runtime import OnnxModel

    if source.trained is None or splits is None:
        return f"not judged: {without}"
    before = judge(source.trained, splits)
    try:
        after = judge(source.trained, splits, OnnxModel(out))
    except ValueError as error:
        return f"{before} before, and the file is not judged: {error}"
    return f"{before} before, {after} in {precision}"


def _check_options(args: argparse.Namespace, answers: str | None, varying: tuple[str, ...]) -> None:
    whole = not _is_part(args)
    if args.softmax and not (whole and answers in ("classes", "labels")):
        raise ValueError(
            "--softmax is for classifiers: maps, boxes, numbers and features are read from what the model gives; leave "
            "it out"
        )
    padded = answers == "objects" or (answers == "segments" and "size" in varying)
    if args.normalize and whole and padded:
        raise ValueError(
            "--normalize: pictures of any size are padded after they were normalised, outside of the file; leave it out"
            + (", or --dynamic batch" if answers == "segments" else "")
        )


def _print_onnx(written: "Written", without: str | None) -> None:
    about = written.about
    print(f"{written.file}: {about.precision}, {written.file.stat().st_size:,} bytes")
    form = "8-bit pixels" if about.input == "pixels" else "float32, normalised"
    print(f"  images   {_shape(written.inputs)}, {form}")
    if "size" in about.varying:
        print(f"           height and width multiples of {about.multiple}, from {about.smallest} on")
    print(f"  of {_shape((1, about.channels, *about.size))}   {', '.join(map(_shape, written.outputs))}")
    on = f"{written.real} validation pictures" if written.real else f"noise ({without})"
    shapes = written.shapes
    batches = sorted({batch for batch, *_ in shapes})
    print(
        f"  ONNX Runtime against PyTorch: {written.difference:.1e} of the largest output apart at most, on {on}, in "
        f"batches of {', '.join(map(str, batches))} and {len({s[1:] for s in shapes})} size(s)"
    )
    if written.objects is not None:
        print(f"  {_objects(written.objects, written.ties)}")
    if written.of_precision is not None:
        print(f"  in {about.precision}: {written.of_precision:.1e} apart")


def _objects(found: int, ties: int) -> str:
    """What a two-stage detector's file was compared on."""
    if not found:
        return "the model finds nothing on them, and neither does the file: more than that was not compared"
    decided = f", {ties:,} of them by a tie that the file decides another way" if ties else ""
    return f"the same {found:,} objects{decided}"


def _program(args: argparse.Namespace, out: Path, source: "Source", size: tuple[int, int] | None) -> int:
    if args.dynamic or args.precision != "fp32" or args.normalize or args.softmax:
        raise ValueError(
            "--dynamic, --precision, --normalize and --softmax are for ONNX files: take --to onnx"
        )
    from crosshead.export.programs import export_model

    about = source.about
    told: dict[str, Any] = {
        "model": about.model,
        "task": about.task,
        "step": about.step,
        "classes": list(about.classes),
        "mean": list(about.mean),
        "std": list(about.std),
    }
    if not _is_part(args) and about.stride is not None:
        told["stride"] = about.stride
    if not _is_part(args) and about.detector is not None:
        told["detector"] = about.detector
    exported = export_model(
        source.model,
        out,
        size=size or about.size,
        channels=about.channels,
        part=_part(args),
        about=told,
    )
    _print(exported)
    return 0


def _shape(sizes: tuple[int | str, ...]) -> str:
    return " x ".join(map(str, sizes))


def _print(exported: "Exported") -> None:
    import torch

    what = {"whole": "the whole model", "backbone": "the backbone", "pyramid": "backbone and pyramid"}
    print(f"{exported.file}: {what[exported.part]}, float32, by torch {torch.__version__}")
    print(f"  images   {_shape(exported.inputs)}")
    if exported.multiple is not None:
        print(
            f"           height and width multiples of {exported.multiple}, tried from {exported.smallest} on"
        )
    print(f"  of {_shape(exported.tried)}   {', '.join(_shape(each) for each in exported.outputs)}")
    print(f"  loaded again and compared: {exported.difference:.1e} of the largest output apart")
    if exported.fixed_because is not None:
        print(f"  no more than that may vary: {exported.fixed_because}")
