"""LabelMe's JSON: a file a picture, with polygons, rectangles, circles and masks."""

import base64
import binascii
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crosshead.data.coco.rle import encode_within
from crosshead.data.conversion.annotated import (
    AnnotatedPicture,
    Annotations,
    DrawnObject,
    LeftOut,
    labels_of,
    outlined,
    sound,
    split_by_folder,
)
from crosshead.data.conversion.shapes import circle
from crosshead.data.conversion.sources import SourceFiles, size_of
from crosshead.data.decode.images import SUFFIXES, BrokenImage, display_name
from crosshead.files import read_json, read_text

LAYOUT = "NAME.json beside the picture that its imagePath names, or with the picture inside (imageData); labels.txt"


def read_labelme(source: Path, left_out: LeftOut) -> Annotations:
    """Shapes of one ``group_id`` and label are one object. A rectangle is a box without an outline; a circle becomes a
    polygon; lines and points are left out."""
    files = SourceFiles(source)
    pictures, named = [], set[str]()
    for file in files.with_suffix(".json"):
        try:
            content = read_json(file)
        except (OSError, ValueError) as error:
            left_out.add("annotation files that can't be read", f"{display_name(file)}: {error}")
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            left_out.add("JSON files that are none of LabelMe's", file)
            continue
        if (picture := _picture(files, file, content, left_out)) is None:
            continue
        if picture.name in named:
            left_out.add("annotation files of a picture that has one", file)
            continue
        named.add(picture.name)
        flags = content.get("flags") or {}
        left_out.add("flags of pictures", file, sum(bool(flag) for flag in flags.values()))
        objects = sound(
            _objects(content["shapes"], picture.size, file, left_out), picture.size, file, left_out
        )
        pictures.append(
            AnnotatedPicture(
                picture.file, picture.name, picture.size, objects, picture.split, content=picture.content
            )
        )
    there = {picture.file for picture in pictures}
    for path in files.pictures:
        if path not in there:
            left_out.add("pictures without annotations", path)
    return Annotations("LabelMe's JSON", tuple(pictures), tuple(_names(files, pictures)), left_out)


def _picture(
    files: SourceFiles, file: Path, content: dict[str, Any], left_out: LeftOut
) -> AnnotatedPicture | None:
    """Without objects."""
    said = content.get("imagePath")
    path = files.picture(said, file) if isinstance(said, str) and said else None
    data = None
    try:
        if path is None and isinstance(content.get("imageData"), str):
            data = base64.b64decode(content["imageData"], validate=True)
            path = file.with_suffix(_suffix(str(said)))
        if path is None:
            left_out.add("annotation files without their picture", file)
            return None
        size = size_of(io.BytesIO(data) if data else path, name=display_name(path))
    except (BrokenImage, binascii.Error) as error:
        left_out.add("pictures that can't be read", f"{display_name(file)}: {error}")
        return None
    stated = (content.get("imageHeight"), content.get("imageWidth"))
    if None not in stated and stated != size:
        left_out.add("pictures of another size than their annotations say", path)
        return None
    name = files.name(path) if data is None else path.relative_to(files.root).as_posix()
    return AnnotatedPicture(path, name, size, split=split_by_folder(name.split("/")), content=data)


def _suffix(said: str) -> str:
    suffix = Path(said.replace("\\", "/")).suffix.lower()
    return suffix if suffix in SUFFIXES else ".png"


def _objects(shapes: list[Any], size: tuple[int, int], file: Path, left_out: LeftOut) -> list[DrawnObject]:
    groups: dict[Any, list[DrawnObject]] = {}
    for place, shape in enumerate(shapes):
        if not isinstance(shape, dict) or (drawn := _shape(shape, size, file, left_out)) is None:
            continue
        group = shape.get("group_id")
        groups.setdefault(("alone", place) if group is None else (group, drawn.label), []).append(drawn)
    return [_joined(parts) for parts in groups.values()]


def _shape(shape: dict[str, Any], size: tuple[int, int], file: Path, left_out: LeftOut) -> DrawnObject | None:
    label, kind = str(shape.get("label")), shape.get("shape_type") or "polygon"
    left_out.add(
        "descriptions and flags of objects", file, bool(shape.get("description") or shape.get("flags"))
    )
    try:
        points = np.array(shape.get("points"), np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        left_out.add("shapes whose points are no numbers", file)
        return None
    if kind == "polygon" and len(points):
        return outlined(label, [points])
    if kind in ("rectangle", "mask") and len(points) == 2:
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
        if kind == "rectangle":
            return DrawnObject(label, (x1, y1, x2, y2))
        try:
            return _masked(label, shape.get("mask"), (round(y1), round(x1)), size)
        except (BrokenImage, ValueError) as error:
            left_out.add("masks that can't be read", f"{display_name(file)}: {error}")
            return None
    if kind == "circle" and len(points) == 2:
        return outlined(label, [circle(points[0], float(np.linalg.norm(points[1] - points[0])))])
    left_out.add(f"shapes of type {kind}", file)
    return None


def _masked(label: str, encoded: Any, place: tuple[int, int], size: tuple[int, int]) -> DrawnObject:
    """A mask is a picture of the piece between its two points."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as image:
            piece = np.asarray(image.convert("L")) > 0
    except Exception as error:  # whatever is wrong with it
        raise BrokenImage("mask", " ".join(str(error).split())) from None
    top, left = max(place[0], 0), max(place[1], 0)
    piece = piece[top - place[0] : size[0] - place[0], left - place[1] : size[1] - place[1]]
    return outlined(label, mask=encode_within(piece, (top, left), size))


def _joined(parts: list[DrawnObject]) -> DrawnObject:
    """One object of several shapes: polygons stay such, of anything else the box around all is kept."""
    if len(parts) == 1:
        return parts[0]
    if all(part.polygons for part in parts):
        return outlined(parts[0].label, [points for part in parts for points in part.polygons])
    boxes = np.array([part.box for part in parts])
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    return DrawnObject(parts[0].label, (float(low[0]), float(low[1]), float(high[0]), float(high[1])))


def _names(files: SourceFiles, pictures: list[AnnotatedPicture]) -> list[str]:
    """Those of labels.txt, which LabelMe's own tools take, where it has all; else by name."""
    own = labels_of(pictures)
    for file in files.others:
        if file.name == "labels.txt":
            listed = [line.strip() for line in read_text(file).splitlines() if line.strip()]
            if set(own) <= set(listed):
                return listed
    return own
