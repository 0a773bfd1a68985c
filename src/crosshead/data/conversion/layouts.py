"""The layouts that are written: a COCO folder and maps, which recipes read, and YOLO's text and a table for others."""

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from crosshead.data.base import IGNORED
from crosshead.data.coco.rle import to_coco
from crosshead.data.conversion.annotated import Annotations, DrawnObject
from crosshead.data.conversion.samples import Sample

_BACKGROUND = ("background", "_background_")
_SHORT = {"validation": "val"}


@dataclass
class Written:
    """By split, pictures and objects; the files that name them."""

    pictures: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    def count(self, split: str, objects: int) -> None:
        self.pictures[split] = self.pictures.get(split, 0) + 1
        self.objects[split] = self.objects.get(split, 0) + objects


def _part(sample: Sample) -> str:
    return _SHORT.get(sample.picture.split or "", sample.picture.split or "")


def write_coco(annotations: Annotations, samples: Iterable[Sample], dest: Path, *, link: bool) -> Written:
    """``images/`` and a file a split, or ``annotations.json`` where there are none. Numbers are not rounded."""
    written, content = Written(), dict[str, dict[str, list[Any]]]()
    ids = annotations.class_ids or tuple(range(1, len(annotations.class_names) + 1))
    number = dict(zip(annotations.class_names, ids, strict=True))
    categories = [{"id": number[name], "name": name} for name in annotations.class_names]
    object_number = 0
    for picture_number, sample in enumerate(samples, 1):
        picture, part = sample.picture, _part(sample)
        sample.save(dest / "images" / picture.name, link=link)
        own = content.setdefault(part, {"images": [], "annotations": [], "categories": categories})
        height, width = picture.size
        own["images"].append(
            {"id": picture_number, "file_name": picture.name, "width": width, "height": height}
        )
        for each in picture.objects:
            object_number += 1
            own["annotations"].append(
                {"id": object_number, "image_id": picture_number, "category_id": number[each.label]}
                | _entry(each)
            )
        written.count(part, len(picture.objects))
    for part, said in content.items():
        file = dest / f"{part or 'annotations'}.json"
        file.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
        written.files[part] = file
    return written


def _entry(each: DrawnObject) -> dict[str, Any]:
    x1, y1, x2, y2 = each.box
    entry: dict[str, Any] = {
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": each.area,
        "iscrowd": int(each.crowd),
    }
    if each.polygons:
        entry["segmentation"] = [points.ravel().tolist() for points in each.polygons]
    elif each.mask is not None:
        entry["segmentation"] = to_coco(each.mask)
    return entry


def write_maps(annotations: Annotations, samples: Iterable[Sample], dest: Path, *, link: bool) -> Written:
    """``images/`` and ``maps/``, below these the splits, and ``classes.txt``. Objects become the number of their class,
    0 is background where none lies, 255 where there is a crowd; boxes without an outline are left out."""
    written, names = Written(), list(annotations.class_names)
    if not annotations.maps:
        names = ["background", *(name for name in names if name.lower() not in _BACKGROUND)]
    if len(names) > IGNORED:
        raise ValueError(f"{len(names)} classes: a map holds {IGNORED} at most; choose some with --classes")
    numbers = {name: i for i, name in enumerate(names)} | dict.fromkeys(_BACKGROUND, 0)
    for sample in samples:
        picture, part = sample.picture, _part(sample)
        boxes = sum(not each.polygons and each.mask is None for each in picture.objects)
        annotations.left_out.add("objects without an outline", picture.file, boxes)
        classes = sample.map(numbers)
        sample.save(dest / "images" / part / picture.name, link=link)
        file = (dest / "maps" / part / picture.name).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(classes)).save(file)
        written.count(part, len(picture.objects))
    (dest / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    written.files[""] = dest / "classes.txt"
    return written


def write_yolo(annotations: Annotations, samples: Iterable[Sample], dest: Path, *, link: bool) -> Written:
    """``images/`` and ``labels/``, below these the splits, and ``data.yaml``: a polygon where an object has one of one
    part, else its box."""
    written, left_out = Written(), annotations.left_out
    number = {name: i for i, name in enumerate(annotations.class_names)}
    for sample in samples:
        picture, part = sample.picture, _part(sample)
        sample.save(dest / "images" / part / picture.name, link=link)
        file = (dest / "labels" / part / picture.name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        left_out.add(
            "crowds, which YOLO's text has not", picture.file, sum(each.crowd for each in picture.objects)
        )
        several = sum(len(each.polygons) > 1 or each.mask is not None for each in picture.objects)
        left_out.add(
            "outlines of several parts or with holes, of which the box is kept", picture.file, several
        )
        kept = [each for each in picture.objects if not each.crowd]
        file.write_text("".join(yolo_line(number[each.label], each, picture.size) for each in kept))
        written.count(part, len(kept))
    said: dict[str, Any] = {"path": "."} | {
        "val" if part == "val" else part or "train": f"images/{part}" if part else "images"
        for part in written.pictures
    }
    said |= {"names": dict(enumerate(annotations.class_names))}
    file = dest / "data.yaml"
    file.write_text(yaml.safe_dump(said, sort_keys=False, allow_unicode=True), encoding="utf-8")
    written.files[""] = file
    return written


def yolo_line(number: int, each: DrawnObject, size: tuple[int, int], score: float | None = None) -> str:
    """Shares with nine digits: a thousandth of a pixel in a picture of a million."""
    x1, y1, x2, y2 = each.box
    values = [(x1 + x2) / 2 / size[1], (y1 + y2) / 2 / size[0], (x2 - x1) / size[1], (y2 - y1) / size[0]]
    if len(each.polygons) == 1:
        values = (each.polygons[0] / (size[1], size[0])).ravel().tolist()
    words = [f"{value:.9g}" for value in values] + ([] if score is None else [f"{score:.6g}"])
    return " ".join([str(number), *words]) + "\n"


def write_table(annotations: Annotations, samples: Iterable[Sample], dest: Path, *, link: bool) -> Written:
    """``images/`` and ``annotations.csv``: a row an object, and one without a box for a picture without objects."""
    written, left_out, rows = Written(), annotations.left_out, []
    for sample in samples:
        picture, part = sample.picture, _part(sample)
        sample.save(dest / "images" / picture.name, link=link)
        left_out.add(
            "crowds, which a table has not", picture.file, sum(each.crowd for each in picture.objects)
        )
        outlined = sum(bool(each.polygons) or each.mask is not None for each in picture.objects)
        left_out.add("outlines, of which the box is kept", picture.file, outlined)
        kept = [each for each in picture.objects if not each.crowd]
        rows += [[picture.name, each.label, *each.box, part] for each in kept]
        if not kept:
            rows.append([picture.name, "", "", "", "", "", part])
        written.count(part, len(kept))
    file = dest / "annotations.csv"
    with open(file, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["filename", "class", "xmin", "ymin", "xmax", "ymax", "split"])
        writer.writerows(rows)
    written.files[""] = file
    return written


class Layout(NamedTuple):
    """How it is written, which data set reads it, and a recipe to begin with."""

    write: Callable[..., Written]
    dataset: str | None
    recipe: str | None


LAYOUTS = {
    "coco": Layout(write_coco, "coco-folder", "detect_folder"),
    "maps": Layout(write_maps, "map-folder", "segment_folder"),
    "yolo": Layout(write_yolo, None, None),
    "csv": Layout(write_table, None, None),
}
