"""CVAT's XML, "CVAT for images 1.1": one file for all pictures."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

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
from crosshead.data.conversion.shapes import ellipse, rectangle
from crosshead.data.conversion.sources import SourceFiles, number, size_of, xml_of
from crosshead.data.decode.images import BrokenImage, display_name

LAYOUT = 'annotations.xml of "CVAT for images 1.1" and the pictures in images/ (Save images), or beside it'


def read_cvat(source: Path, left_out: LeftOut) -> Annotations:
    """Shapes of one group and label are one object; later ``z_order`` lies above. A turned box is kept as the polygon
    that it is; polylines, points, skeletons, cuboids, tags and attributes are left out.

    Raises:
        ValueError: an export of a video, or no picture in it.
    """
    files = SourceFiles(source)
    pictures, names, named = [], list[str](), set[Path]()
    for file in files.with_suffix(".xml"):
        root = xml_of(file)
        if root.tag != "annotations":
            left_out.add("XML files that are none of CVAT's", file)
            continue
        if root.find("track") is not None:
            raise ValueError(
                f'{display_name(file)}: tracks of a video; export it as "CVAT for images 1.1", with images'
            )
        names += [
            text for each in root.iterfind("meta//label/name") if (text := each.text) and text not in names
        ]
        for entry in root.findall("image"):
            if (picture := _picture(files, file, entry, left_out)) is not None and picture.file not in named:
                named.add(picture.file)
                pictures.append(picture)
    for path in files.pictures:
        if path not in named:
            left_out.add("pictures without annotations", path)
    names += [label for label in labels_of(pictures) if label not in names]
    return Annotations("CVAT's XML", tuple(pictures), tuple(names), left_out)


def _picture(files: SourceFiles, file: Path, entry: Element, left_out: LeftOut) -> AnnotatedPicture | None:
    said = entry.get("name") or ""
    path = files.picture(f"images/{said}", file) or files.picture(said, file)
    if path is None:
        left_out.add("annotations without their picture", said)
        return None
    try:
        size = size_of(path)
    except BrokenImage as broken:
        left_out.add("pictures that can't be read", f"{broken.name}: {broken.reason}")
        return None
    if (number(entry.get("height")), number(entry.get("width"))) != size:
        left_out.add("pictures of another size than their annotations say", path)
        return None
    split = split_by_folder([entry.get("subset") or "", *files.name(path).split("/")])
    objects = sound(_objects(entry, size, file, left_out), size, path, left_out)
    return AnnotatedPicture(path, files.name(path), size, objects, split)


def _objects(entry: Element, size: tuple[int, int], file: Path, left_out: LeftOut) -> Iterator[DrawnObject]:
    groups: dict[tuple[str, str], list[Element]] = {}
    drawn = sorted(
        (each for each in entry if each.get("label") is not None),
        key=lambda each: number(each.get("z_order", "0")),
    )
    for place, each in enumerate(drawn):
        left_out.add("attributes of objects", file, len(each.findall("attribute")))
        left_out.add("remarks on objects: occluded", file, each.get("occluded") == "1")
        group = each.get("group_id")
        own = (
            (f"group {group}", each.get("label", ""))
            if group and each.tag == "polygon"
            else (f"alone {place}", "")
        )
        groups.setdefault(own, []).append(each)
    for members in groups.values():
        if (made := _object(members, size, file, left_out)) is not None:
            yield made


def _object(
    members: list[Element], size: tuple[int, int], file: Path, left_out: LeftOut
) -> DrawnObject | None:
    each, label = members[0], members[0].get("label", "")
    if each.tag == "polygon":
        return outlined(label, [_points(one) for one in members])
    if each.tag == "box":
        x1, y1, x2, y2 = (number(each.get(side)) for side in ("xtl", "ytl", "xbr", "ybr"))
        if (degrees := number(each.get("rotation", "0"))) != 0:
            return outlined(label, [rectangle((x1, y1, x2, y2), degrees)])
        return DrawnObject(label, (x1, y1, x2, y2))
    if each.tag == "ellipse":
        cx, cy, rx, ry = (number(each.get(side)) for side in ("cx", "cy", "rx", "ry"))
        return outlined(label, [ellipse((cx, cy), (rx, ry), number(each.get("rotation", "0")))])
    if each.tag == "mask":
        try:
            return _masked(each, label, size)
        except ValueError as error:
            left_out.add("masks that can't be read", f"{display_name(file)}: {error}")
            return None
    left_out.add(f"shapes of type {each.tag}", file)
    return None


def _points(each: Element) -> np.ndarray:
    pairs = [pair.split(",") for pair in (each.get("points") or "").split(";") if pair]
    return np.array([[number(x) for x in pair[:2]] for pair in pairs if len(pair) == 2]).reshape(-1, 2)


def _masked(each: Element, label: str, size: tuple[int, int]) -> DrawnObject:
    """CVAT's run lengths go row by row through the mask's own rectangle, background first."""
    left, top, width, height = (int(each.get(side) or 0) for side in ("left", "top", "width", "height"))
    counts = [int(count) for count in (each.get("rle") or "").split(",")]
    if min(counts) < 0 or sum(counts) != width * height or width < 1:
        raise ValueError(f"run lengths of {sum(counts)} pixels for {width} x {height}")
    if left < 0 or top < 0 or top + height > size[0] or left + width > size[1]:
        raise ValueError(f"a mask that leaves the picture of {size[1]} x {size[0]}")
    piece = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    return outlined(label, mask=encode_within(piece, (top, left), size))
