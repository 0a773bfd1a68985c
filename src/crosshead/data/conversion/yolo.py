"""YOLO's text: a file a picture, a class and shares of the picture's width and height a line (boxes as centre and size,
polygons as points), as Ultralytics' tools read and write it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crosshead.data.conversion.annotated import (
    AnnotatedPicture,
    Annotations,
    DrawnObject,
    LeftOut,
    outlined,
    sound,
    split_by_folder,
)
from crosshead.data.conversion.sources import SourceFiles, size_of
from crosshead.data.decode.images import BrokenImage, display_name
from crosshead.files import read_text

LAYOUT = (
    "data.yaml (names, train, val, test) or classes.txt; images/.../NAME.jpg and labels/.../NAME.txt, or the text "
    "beside the picture; a picture without a text has no objects"
)
_PARTS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}
_FAR = 1.5  # shares beyond this are no shares


def read_yolo(source: Path, left_out: LeftOut) -> Annotations:
    """ValueError where the list of classes is damaged, or the numbers are no shares."""
    files = SourceFiles(source)
    described = _described(files)
    names, splits = _names(files, described), _splits(files, described)
    skeleton = bool(described.get("kpt_shape"))
    pictures, unlabelled, seen = [], 0, set[int]()
    for path in files.pictures:
        split = splits.get(path, "") if splits else split_by_folder(files.name(path).split("/"))
        if split == "":
            left_out.add("pictures that data.yaml names in no split", path)
            continue
        try:
            size = size_of(path)
        except BrokenImage as broken:
            left_out.add("pictures that can't be read", f"{broken.name}: {broken.reason}")
            continue
        label_file = _label_file(path)
        unlabelled += not label_file.is_file()
        lines = _lines(label_file, left_out) if label_file.is_file() else []
        found = [each for line in lines for each in _objects(line, label_file, size, skeleton, left_out)]
        seen |= {number for number, _ in found}
        objects = [_labelled(each, _name(names, number, label_file)) for number, each in found]
        pictures.append(
            AnnotatedPicture(path, files.name(path), size, sound(objects, size, label_file, left_out), split)
        )
    notes = [f"{unlabelled:,} of {len(pictures):,} pictures have no text beside them: no objects"] * bool(
        unlabelled
    )
    if not names:
        names = [str(number) for number in range(max(seen, default=-1) + 1)]
        notes.append("no data.yaml and no classes.txt: classes are called by their numbers")
    return Annotations("YOLO's text", tuple(pictures), tuple(names), left_out, tuple(notes))


def _described(files: SourceFiles) -> dict[str, Any]:
    """data.yaml, by whatever name it has."""
    for file in files.with_suffix(".yaml", ".yml"):
        try:
            said = yaml.safe_load(read_text(file))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{display_name(file)}: can't be read as YAML: {error}") from None
        if isinstance(said, dict) and "names" in said:
            return said | {"": file}
    return {}


def _names(files: SourceFiles, described: Mapping[str, Any]) -> list[str]:
    names = described.get("names")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if names is None:
        lists = [path for path in files.others if path.name in ("classes.txt", "obj.names", "labels.txt")]
        names = [line.strip() for line in read_text(lists[0]).splitlines() if line.strip()] if lists else []
    if not isinstance(names, list) or len({*map(str, names)}) < len(names):
        where = display_name(described.get("", files.root))
        raise ValueError(
            f"{where}: expected names as a list, each once, or by their numbers from 0, got {names!r:.80}"
        )
    return [str(name) for name in names]


def _name(names: list[str], number: int, file: Path) -> str:
    if names and not 0 <= number < len(names):
        raise ValueError(
            f"{display_name(file)}: class {number}, and the list has {len(names)} names (0 to {len(names) - 1}): "
            "complete the list"
        )
    return names[number] if names else str(number)


def _splits(files: SourceFiles, described: Mapping[str, Any]) -> dict[Path, str]:
    """The split of each picture that data.yaml names."""
    found: dict[Path, str] = {}
    for key, split in _PARTS.items():
        entries = described.get(key)
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str) and entry:
                for path in _of_entry(files, described, entry):
                    if found.setdefault(path, split) != split:
                        raise ValueError(
                            f"{display_name(path)} is in {found[path]} and in {split} of data.yaml"
                        )
    return found


def _of_entry(files: SourceFiles, described: Mapping[str, Any], entry: str) -> Iterator[Path]:
    """The pictures of a folder, or of a text that lists them. ``path`` is often another machine's: then entries are
    taken from where data.yaml lies."""
    base = described[""].parent
    tried = [base / str(described.get("path", ".")) / entry, base / entry, base / entry.lstrip("./")]
    for place in (Path(os.path.normpath(each)) for each in tried):
        if place.is_dir():
            yield from (path for path in files.pictures if path.is_relative_to(place))
            return
        if place.is_file() and place.is_relative_to(files.root):
            listed = [line.strip() for line in read_text(place).splitlines() if line.strip()]
            found = [files.picture(line, place) for line in listed]
            yield from (path for path in found if path is not None)
            return
    raise ValueError(
        f"{display_name(described[''])}: {entry!r} is neither a folder nor a list below {display_name(base)}"
    )


def _label_file(picture: Path) -> Path:
    parts = list(picture.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    other = Path(*parts).with_suffix(".txt")
    return other if other.is_file() else picture.with_suffix(".txt")


def _lines(file: Path, left_out: LeftOut) -> list[str]:
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    left_out.add("lines that say an object twice", file, len(lines) - len(set(lines)))
    return list(dict.fromkeys(lines))


def _objects(
    line: str, file: Path, size: tuple[int, int], skeleton: bool, left_out: LeftOut
) -> Iterator[tuple[int, DrawnObject]]:
    words = line.split()
    try:
        number, values = int(float(words[0])), np.array([float(word) for word in words[1:]])
    except ValueError:
        left_out.add("lines that are no numbers", f"{display_name(file)}: {line[:40]}")
        return
    if len(values) == 5 or (skeleton and len(values) > 4):
        left_out.add("scores" if len(values) == 5 else "skeletons (keypoints) of objects", file)
        values = values[:4]
    if len(values) < 4 or len(values) % 2:
        left_out.add("lines that are neither a box nor a polygon", f"{display_name(file)}: {line[:40]}")
        return
    if np.abs(values[np.isfinite(values)]).max(initial=0) > _FAR:
        raise ValueError(
            f"{display_name(file)}: {line[:60]!r}: expected shares of the picture, 0 to 1, got pixels or others: "
            "divide x by the picture's width and y by its height"
        )
    points = values.reshape(-1, 2) * (size[1], size[0])
    if len(values) > 4:
        yield number, outlined("", [points])
        return
    (cx, cy), (wide, high) = points.tolist()
    yield number, DrawnObject("", (cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2))


def _labelled(each: DrawnObject, label: str) -> DrawnObject:
    return DrawnObject(label, each.box, each.polygons)
