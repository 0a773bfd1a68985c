"""From a folder in a tool's own form to another layout: ``crosshead data convert``."""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crosshead.data.coco.forms import form_of
from crosshead.data.conversion import coco_files, cvat, labelme, masks, pascal_voc, table, yolo
from crosshead.data.conversion.annotated import Annotations, LeftOut, only_classes
from crosshead.data.conversion.layouts import LAYOUTS, Written
from crosshead.data.conversion.samples import Progress, hold_out, samples_of
from crosshead.data.conversion.sources import SourceFiles
from crosshead.data.conversion.tiling import Tiling
from crosshead.data.datasets import coco_folder
from crosshead.data.decode.images import display_name
from crosshead.files import read_text

READERS: dict[str, tuple[Callable[[Path, LeftOut], Annotations], str]] = {
    "yolo": (yolo.read_yolo, yolo.LAYOUT),
    "voc": (pascal_voc.read_voc, pascal_voc.LAYOUT),
    "labelme": (labelme.read_labelme, labelme.LAYOUT),
    "cvat": (cvat.read_cvat, cvat.LAYOUT),
    "csv": (table.read_table, table.LAYOUT),
    "coco": (coco_files.read_coco_files, coco_folder.LAYOUT),
    "masks": (lambda source, left_out: masks.read_masks(source, left_out, binary=True), masks.LAYOUT),
    "maps": (lambda source, left_out: masks.read_masks(source, left_out, binary=False), masks.LAYOUT),
}
_LOOKED_AT = 400  # files of a suffix


@dataclass(frozen=True)
class Report:
    """What was read, and what was written where."""

    annotations: Annotations
    written: Written
    layout: str

    @property
    def recipe(self) -> str | None:
        """One to begin with: of objects with outlines one that learns these."""
        objects = [
            each for picture in self.annotations.pictures for each in picture.objects if not each.crowd
        ]
        outlined = all(each.polygons or each.mask is not None for each in objects)
        return (
            "instances_folder"
            if self.layout == "coco" and objects and outlined
            else LAYOUTS[self.layout].recipe
        )


def convert(
    source: Path,
    dest: Path,
    *,
    form: str | None = None,
    layout: str | None = None,
    classes: Path | None = None,
    validation: float | None = None,
    seed: int = 0,
    tiling: Tiling | None = None,
    tile_also: Sequence[str] = (),
    link: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Reads ``source`` (``form`` is one of ``READERS``, told from its files unless given) and writes ``dest``
    (``layout`` is one of ``LAYOUTS``; by default maps of maps, and COCO's of objects).

    ``validation`` is a share of the training pictures; without it the source's own splits stand, but that of tiled
    pictures a fifth is held out where there is no validation split: tiles of one picture must not lie in two splits.
    ``tiling`` cuts the training pictures alone, and those of the splits ``tile_also``: others are judged whole, in
    windows. ``link``: hard links in place of copies.

    Raises:
        ValueError: no annotations, several forms, numbers that can't be meant, or ``dest`` is not empty.
    """
    form = form or told_form(source)
    annotations = READERS[form][0](source, LeftOut())
    if classes is not None:
        names = [line.strip() for line in read_text(classes).splitlines() if line.strip()]
        annotations = (
            only_classes(annotations, names)
            if not annotations.maps
            else _renamed(annotations, names, classes)
        )
    layout = layout or ("maps" if annotations.maps else "coco")
    _check(annotations, source, form, layout)
    splits = {picture.split for picture in annotations.pictures}
    if validation is None and tiling is not None and "validation" not in splits:
        validation = 0.2
    if validation is not None:
        if "validation" in splits:
            raise ValueError("--validation: the source has a validation split of its own; leave it out")
        annotations = hold_out(annotations, validation, seed)
    elif None in splits and len(splits) > 1:
        annotations = _in_training(annotations)
    _make_empty(dest)
    samples = samples_of(annotations, tiling, (None, "train", *tile_also), progress)
    try:
        written = LAYOUTS[layout].write(annotations, samples, dest, link=link)
    except BaseException:  # half a data set would pass for a whole one
        _empty(dest)
        raise
    return Report(annotations, written, layout)


def told_form(source: Path) -> str:
    """Which of ``READERS`` reads ``source``; ValueError where none or several may."""
    files = SourceFiles(source)
    found: Counter[str] = Counter()
    words = {
        "LabelMe": "labelme",
        "Pascal": "voc",
        "CVAT": "cvat",
        "YOLO": "yolo",
        "a table": "csv",
        "VIA": "via",
    }
    for suffix in (".json", ".xml", ".txt", ".csv", ".tsv"):
        for file in files.with_suffix(suffix)[:_LOOKED_AT]:
            said = form_of(file)
            if said is None and suffix == ".json" and re.search('"(annotations|categories)"', _head(file)):
                said = "coco"
            found.update(name for word, name in words.items() if said and said.startswith(word))
            found.update(["coco"] if said == "coco" else [])
    if any(re.search(r"^names\s*:", _head(file), re.M) for file in files.with_suffix(".yaml", ".yml")):
        found["yolo"] += 1
    if not found and (drawn := masks.mask_files(source)):
        return "masks" if all(map(masks.looks_binary, drawn[:8])) else "maps"
    if len(found) == 1 and "via" not in found:
        return next(iter(found))
    where = display_name(source)
    if found:
        raise ValueError(
            f"{where}: annotations of several kinds, or of one that is not read ({', '.join(found)}): say which with "
            f"--from {'|'.join(READERS)}"
        )
    layouts = "; ".join(f"{name}: {layout}" for name, (_, layout) in READERS.items())
    raise ValueError(f"{where}: no annotations of a known kind. Expected one of: {layouts}")


def _head(file: Path) -> str:
    try:
        with open(file, "rb") as stream:
            return stream.read(1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""


def _check(annotations: Annotations, source: Path, form: str, layout: str) -> None:
    where = display_name(source)
    if not annotations.pictures:
        lines = annotations.left_out.lines()
        raise ValueError(
            f"{where}: no picture with annotations came of {annotations.form}"
            + (f" (left out: {'; '.join(lines[:3])})" if lines else "")
            + f"; expected {READERS[form][1]}"
        )
    if annotations.maps and layout != "maps":
        raise ValueError(f"--to {layout}: {where} has maps of classes, no objects; they go to maps")
    if not annotations.class_names:
        raise ValueError(f"{where}: no object in it, and no list of classes (--classes FILE)")
    names = Counter(picture.name for picture in annotations.pictures)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{where}: two pictures would be called {twice[0]}: rename one")


def _renamed(annotations: Annotations, names: Sequence[str], file: Path) -> Annotations:
    if annotations.form == "binary masks" and len(names) != 2:
        raise ValueError(
            f"{display_name(file)}: a binary mask has two classes, background first, got {len(names)} names"
        )
    return replace(annotations, class_names=tuple(names))


def _in_training(annotations: Annotations) -> Annotations:
    """Pictures of no split beside others that have one."""
    pictures = tuple(replace(each, split=each.split or "train") for each in annotations.pictures)
    return replace(annotations, pictures=pictures)


def _make_empty(dest: Path) -> None:
    try:
        dest.mkdir(parents=True, exist_ok=True)
        taken = next(dest.iterdir(), None)
    except OSError as error:
        raise ValueError(f"{dest}: can't be written ({error.strerror}); choose another folder") from error
    if taken is not None:
        raise ValueError(f"{dest}: has {taken.name} in it already; choose an empty or new folder")


def _empty(dest: Path) -> None:
    for entry in dest.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
