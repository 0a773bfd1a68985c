"""What a model said of every picture of a split, in files for others: tables, COCO's results, YOLO's text."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosshead.data.base import DatasetInfo

Row = dict[str, Any]


def write_predictions(rows: Sequence[Row], target: Path, info: "DatasetInfo") -> None:
    """``rows`` of an evaluation, one a picture. Of objects: COCO's results (``.json``, image ids and category ids of
    the data's files, all that was found), a row an object (``.csv``), or a folder with YOLO's text, a file a picture.
    Of others a row a picture, as a table or as JSON.

    Raises:
        ValueError: another suffix, or ``target`` can't be written.
    """
    objects, suffix = bool(rows) and "objects" in rows[0], target.suffix.lower()
    if suffix not in (".csv", ".json", "") or (suffix == "" and not objects):
        kinds = "FILE.json, FILE.csv" + (" or a folder (YOLO's text)" if objects else "")
        raise ValueError(f"--predictions {target}: expected {kinds}")
    try:
        if suffix == "":
            _write_yolo(rows, target)
        elif suffix == ".csv":
            _write(target, _table(_object_rows(rows, info) if objects else rows))
        else:
            said = [entry for row in rows for entry in coco_results(row, info)] if objects else list(rows)
            _write(target, json.dumps(said, ensure_ascii=False))
    except OSError as error:
        raise ValueError(f"--predictions {target}: can't be written: {error.strerror}") from error


def coco_results(row: Row, info: "DatasetInfo") -> list[Row]:
    """The entries of a picture. Categories without numbers of the data's own are counted from 1."""
    ids = info.class_ids or tuple(range(1, len(info.class_names) + 1))
    entries = []
    for each in row["objects"]:
        x1, y1, x2, y2 = each["box"]
        own = {"image_id": row["image_id"], "category_id": ids[each["label"]]}
        own |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": each["score"]}
        entries.append(own | ({"segmentation": each["segmentation"]} if "segmentation" in each else {}))
    return entries


def _object_rows(rows: Iterable[Row], info: "DatasetInfo") -> list[Row]:
    sides = ("xmin", "ymin", "xmax", "ymax")
    return [
        {"path": row["path"], "image_id": row["image_id"], "class": info.class_names[each["label"]]}
        | {"score": each["score"]}
        | dict(zip(sides, each["box"], strict=True))
        for row in rows
        for each in row["objects"]
    ]


def _write_yolo(rows: Sequence[Row], folder: Path) -> None:
    """``class cx cy width height score`` a line, in shares; a picture in which nothing was found has an empty file."""
    from crosshead.data.conversion.annotated import DrawnObject
    from crosshead.data.conversion.layouts import yolo_line

    top = os.path.commonpath([os.path.dirname(row["path"]) for row in rows])
    for row in rows:
        file = (folder / os.path.relpath(row["path"], top or ".")).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            yolo_line(each["label"], DrawnObject("", tuple(each["box"])), row["size"], each["score"])
            for each in row["objects"]
        ]
        file.write_text("".join(lines))


def _table(rows: Sequence[Row]) -> str:
    from crosshead.files import spreadsheet_cell

    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0] if rows else ["path"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: spreadsheet_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _write(file: Path, text: str) -> None:
    from crosshead.train.files import replace_file

    replace_file(file, text.encode("utf-8", "surrogateescape"))
