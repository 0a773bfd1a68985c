"""``crosshead data convert``: annotations of other tools into this library's layouts, and back."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosshead.data.conversion.convert import Report

_EPILOG = """\
examples:
  crosshead data convert yolo-export/ data/           boxes and polygons of YOLO's text to a COCO folder
  crosshead data convert VOCdevkit/VOC2007 data/ --validation 0.2
  crosshead data convert slides/ data/ --tile 640 --overlap 0.2 --empty 0.1
  crosshead data convert nuclei/ maps/                pictures beside binary masks to maps of classes
  crosshead data convert data/ for-yolo/ --to yolo
"""


def register(actions: Any) -> None:
    parser = actions.add_parser(
        "convert",
        help="turn annotations of YOLO, VOC, LabelMe, CVAT, a table or masks into a folder to train on",
        usage="crosshead data convert SOURCE DEST [options]",
        description="Reads the pictures and annotations below SOURCE, whose form is told from the files, and writes\n"
        "them into the new folder DEST; what is left out is named and counted.",
        epilog=_EPILOG,
    )
    parser.add_argument("source", metavar="SOURCE", help="the folder of pictures and annotations")
    parser.add_argument("dest", metavar="DEST", help="an empty or new folder")
    parser.add_argument(
        "--from",
        dest="form",
        metavar="FORM",
        help="yolo, voc, labelme, cvat, csv, coco, masks (0 and 255) or maps",
    )
    parser.add_argument(
        "--to",
        choices=["coco", "maps", "yolo", "csv"],
        help="default: coco, a COCO folder (data.name=coco-folder); of masks maps (data.name=map-folder)",
    )
    parser.add_argument("--classes", metavar="FILE", help="a class a line: these alone, in this order")
    parser.add_argument(
        "--validation",
        type=float,
        metavar="SHARE",
        help="of the training pictures, where the source has no such split",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of --validation (default: 0)")
    parser.add_argument(
        "--tile", type=int, metavar="PIXELS", help="cut larger training pictures into tiles of this side"
    )
    parser.add_argument(
        "--overlap", type=float, default=0.2, metavar="SHARE", help="of neighbouring tiles (default: 0.2)"
    )
    parser.add_argument(
        "--least",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of an object that a tile must show; with less it is a crowd, neither learned nor judged (default: 0.5)",
    )
    parser.add_argument(
        "--empty",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of tiles without objects that stay (default: 0.1)",
    )
    parser.add_argument(
        "--tile-also", nargs="+", default=[], choices=["validation", "test"], help="tile these splits too"
    )
    parser.add_argument("--link", action="store_true", help="hard links to the pictures in place of copies")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.set_defaults(run=convert_data)


def convert_data(args: argparse.Namespace) -> int:
    from crosshead.cli.terminal.console import reading_bar
    from crosshead.data.conversion.convert import READERS, convert
    from crosshead.data.conversion.tiling import Tiling

    if args.form is not None and args.form not in READERS:
        raise ValueError(f"--from {args.form}: expected one of {', '.join(READERS)}")
    tiling = None if args.tile is None else Tiling(args.tile, args.overlap, args.least, args.empty)
    try:
        with reading_bar("converting") as progress:
            report = convert(
                Path(args.source),
                Path(args.dest),
                form=args.form,
                layout=args.to,
                classes=None if args.classes is None else Path(args.classes),
                validation=args.validation,
                seed=args.seed,
                tiling=tiling,
                tile_also=args.tile_also,
                link=args.link,
                progress=progress,
            )
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from error
    if args.json:
        print(json.dumps(_as_data(report), indent=2, ensure_ascii=False))
    else:
        _print(report, args)
    return 0


def _as_data(report: "Report") -> dict[str, Any]:
    read = report.annotations
    return {
        "from": read.form,
        "to": report.layout,
        "classes": list(read.class_names),
        "pictures": {part or "all": count for part, count in report.written.pictures.items()},
        "objects": {part or "all": count for part, count in report.written.objects.items()},
        "files": {part or "all": str(file) for part, file in report.written.files.items()},
        "notes": list(read.notes),
        "left_out": [
            {"count": count, "what": reason, "first": read.left_out.first[reason]}
            for reason, count in read.left_out.counts.items()
        ],
    }


def _print(report: "Report", args: argparse.Namespace) -> None:
    from crosshead.data.conversion.layouts import LAYOUTS
    from crosshead.files import printable

    read, written = report.annotations, report.written
    objects = sum(len(picture.objects) for picture in read.pictures)
    counted = "" if read.maps else f", {objects:,} objects"
    print(f"{read.form}: {len(read.pictures):,} pictures{counted}, {len(read.class_names):,} classes")
    for note in read.notes:
        print(printable(f"  {note}"))
    for line in read.left_out.lines():
        print(f"left out: {line}")
    for part, count in written.pictures.items():
        counted = "" if read.maps else f", {written.objects[part]:,} objects"
        print(f"{part or 'all'}: {count:,} pictures{counted}")
    dataset = LAYOUTS[report.layout].dataset
    if dataset is not None:
        windows = f" task.window={args.tile}" if args.tile is not None else ""
        print(f"look at it: crosshead data check {dataset} --data-path {args.dest}")
        print(f"train on it: crosshead train {report.recipe} data.root={args.dest}{windows}")
