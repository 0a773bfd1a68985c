"""Tables of boxes: a row an object, in the columns that people's tools give them."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crosshead.data.conversion.annotated import (
    AnnotatedPicture,
    Annotations,
    DrawnObject,
    LeftOut,
    labels_of,
    sound,
    split_by_folder,
)
from crosshead.data.conversion.sources import SourceFiles, number, size_of
from crosshead.data.decode.images import BrokenImage, display_name
from crosshead.files import read_text

LAYOUT = (
    "TABLE.csv with a row an object: a column of pictures (filename, image_path ...), one of classes (class, label "
    "...), and xmin, ymin, xmax, ymax (or x1, y1, x2, y2; x, y, width, height) in pixels, or shares as in Open Images; "
    "without a header: path,x1,y1,x2,y2,class. A row without a box is a picture without objects"
)
_PICTURE = (
    "filename",
    "file_name",
    "image_path",
    "image",
    "path",
    "img",
    "image_id",
    "imageid",
    "file",
    "picture",
)
_LABEL = ("class", "label", "class_name", "category", "name", "labelname")
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
_SIZED = (
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
)
_SPLIT = ("split", "subset", "set")
Row = dict[str, str]
Box = tuple[float, float, float, float]
Said = tuple[str, Box | None]  # the class, and x1, y1, x2, y2 as they stand there


@dataclass(frozen=True)
class _Columns:
    picture: str
    label: str
    sides: tuple[str, ...]
    split: str | None

    def of(self, row: Row) -> Said:
        label, words = row[self.label].strip(), [row[side].strip() for side in self.sides]
        if not any(words):
            return label, None
        x1, y1, x2, y2 = map(number, words)
        return label or "unnamed", (x1, y1, x1 + x2, y1 + y2) if self.sides in _SIZED else (x1, y1, x2, y2)


def read_table(source: Path, left_out: LeftOut) -> Annotations:
    """Corners are pixels counted from 0, the right and lower ones where the box ends."""
    files = SourceFiles(source)
    rows: dict[Path, dict[Said, None]] = {}
    splits: dict[Path, str] = {}
    faults = list[ValueError]()
    for file in files.with_suffix(".csv", ".tsv"):
        try:
            table = _rows(file)
            columns = _columns(table[0] if table else {}, file)
        except ValueError as error:
            faults.append(error)
            continue
        for row in table:
            path = files.picture(row[columns.picture], file)
            if path is None:
                left_out.add("rows without their picture", f"{display_name(file)}: {row[columns.picture]}")
                continue
            said = row[columns.split] if columns.split else file.stem
            if (split := split_by_folder([said, *files.name(path).split("/")])) is not None:
                splits[path] = split
            own, entry = rows.setdefault(path, {}), columns.of(row)
            left_out.add("rows that say an object twice", file, entry in own)
            own[entry] = None
    if not rows:
        raise faults[0] if faults else ValueError(f"{display_name(files.root)}: no row; expected {LAYOUT}")
    left_out.add("tables without columns of objects", str(faults[0]) if faults else "", len(faults))
    shares = _are_shares(box for own in rows.values() for _, box in own)
    pictures = list(_pictures(files, rows, splits, shares, left_out))
    for path in files.pictures:
        if path not in rows:
            left_out.add("pictures without a row", path)
    notes = ("corners are shares of the picture",) * shares
    return Annotations("a table", tuple(pictures), tuple(labels_of(pictures)), left_out, notes)


def _pictures(
    files: SourceFiles,
    rows: dict[Path, dict[Said, None]],
    splits: dict[Path, str],
    shares: bool,
    left_out: LeftOut,
) -> Iterator[AnnotatedPicture]:
    for path, own in rows.items():
        try:
            size = size_of(path)
        except BrokenImage as broken:
            left_out.add("pictures that can't be read", f"{broken.name}: {broken.reason}")
            continue
        wide, high = (size[1], size[0]) if shares else (1, 1)
        objects = [
            DrawnObject(label, (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high))
            for label, box in own
            if box is not None
        ]
        yield AnnotatedPicture(
            path, files.name(path), size, sound(objects, size, path, left_out), splits.get(path)
        )


def _rows(file: Path) -> list[Row]:
    """Column names in small letters."""
    try:
        text = read_text(file).removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{display_name(file)}: can't be read ({error})") from None
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    lines = [line for line in csv.reader(io.StringIO(text), delimiter=delimiter) if any(map(str.strip, line))]
    if not lines:
        return []
    header = [name.strip().lower() for name in lines[0]]
    if len(header) == 6 and not set(header) & {*_PICTURE, *_LABEL}:  # as keras-retinanet has them
        header, lines = ["path", "x1", "y1", "x2", "y2", "class"], [[], *lines]
    return [dict(zip(header, [*line, *[""] * len(header)], strict=False)) for line in lines[1:]]


def _columns(row: Row, file: Path) -> _Columns:
    """Which columns say what; ValueError where one is missing."""
    sides = next((names for names in (*_CORNERS, *_SIZED) if set(names) <= row.keys()), ())
    picture, label, split = (
        next((name for name in names if name in row), None) for names in (_PICTURE, _LABEL, _SPLIT)
    )
    if picture is None or label is None or not sides:
        raise ValueError(
            f"{display_name(file)}: no column of pictures, classes or corners among {', '.join(row) or 'none'}; "
            f"expected {LAYOUT}"
        )
    return _Columns(picture, label, sides, split)


def _are_shares(boxes: Iterable[Box | None]) -> bool:
    """Whether all numbers lie between 0 and 1, and some between the two."""
    told = [side for box in boxes if box is not None for side in box]
    return bool(told) and all(0 <= side <= 1 for side in told) and any(0 < side < 1 for side in told)
