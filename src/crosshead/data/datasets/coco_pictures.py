"""A COCO file and the pictures that it names."""

import json
import os
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from crosshead.data.coco.forms import named_forms
from crosshead.data.coco.instances import POLYGONS, Instances, Objects
from crosshead.data.coco.reader import Read, read_instances
from crosshead.data.datasets.archives import leaves_archive
from crosshead.data.datasets.dense import StoredObjects, Told
from crosshead.data.datasets.image_folder import is_folder, refused_links
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import SUFFIXES, BrokenImage, decode_image, display_name, read_file
from crosshead.data.random import Indices
from crosshead.files import regular
from crosshead.libraries import need
from crosshead.recipe.schema import DataConfig

_SHOWN = 3


class CocoObjects(StoredObjects):
    """The pictures of ``rows`` in ``instances``, which lie below ``folder``.

    Args:
        faults: the reason for pictures that are not to be used, by their row.
        mask_fault: why the masks can't be learned from.
    """

    def __init__(
        self,
        instances: Instances,
        rows: Indices,
        folder: Path,
        faults: dict[int, str],
        decoding: Decoding,
        mask_fault: str | None = None,
    ) -> None:
        self.instances, self.folder, self.faults = instances, folder, faults
        self._take(rows)
        self.decoding, self.masked = decoding, instances.masked
        self.partly, self.mask_fault = instances.masked and instances.unmasked > 0, mask_fault

    def _take(self, rows: Indices) -> None:
        self.rows = rows
        self.targets = [self.instances.file_names[row] for row in rows.tolist()]

    @property
    def known_faults(self) -> list[tuple[str, str]]:
        return [
            (self.name(i), self.faults[row]) for i, row in enumerate(self.rows.tolist()) if row in self.faults
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, i: int) -> Image.Image:
        self._check(i)
        return decode_image(self._path(i), decoding=self.decoding)

    def source(self, i: int) -> str:
        self._check(i)
        return str(self._path(i))

    def objects(self, i: int) -> Objects:
        self._check(i)
        return self.instances.objects(int(self.rows[i]), masked=self.masked)

    def encoded(self, i: int) -> tuple[bytes, ...]:
        self._check(i)
        own = self.instances.as_coco(int(self.rows[i]))
        return read_file(self._path(i)), json.dumps(own, ensure_ascii=False).encode()

    def told_objects(self) -> Told:
        whole = [row for row in self.rows.tolist() if row not in self.faults]
        own = [self.instances.rows(row) for row in whole]
        objects = np.concatenate([*own, np.zeros(0, np.int64)])
        places = np.repeat(np.arange(len(own)), [len(each) for each in own])
        told = ~self.instances.crowd[objects]
        return Told(self.instances.labels[objects[told]], self.instances.areas[objects[told]], places[told])

    def picture_id(self, i: int) -> int:
        return int(self.instances.image_ids[self.rows[i]])

    def name(self, i: int) -> str:
        return display_name(self._path(i))

    def digest(self) -> str:
        return self.instances.digest()

    def subset(self, indices: Indices) -> Self:
        part = copy(self)
        part._take(self.rows[indices])
        return part

    def _path(self, i: int) -> Path:
        return self.folder / self.instances.file_names[self.rows[i]]

    def _check(self, i: int) -> None:
        if (reason := self.faults.get(int(self.rows[i]))) is not None:
            raise BrokenImage(self.name(i), reason)


@dataclass(frozen=True)
class CocoPart:
    """What a file holds; ``unlisted`` are pictures that lie in its folder and that it does not name."""

    images: CocoObjects
    notes: tuple[str, ...]
    unlisted: tuple[str, ...]


def read_coco(file: Path, folders: Sequence[Path], data: DataConfig, *, inside: Path) -> CocoPart:
    """The pictures of ``file``, which lie below that one of ``folders`` in which most of them are.

    A picture that is missing, a link that leaves ``inside`` (unless ``data.follow_links``), or one of whose entries
    something is wrong, counts as broken.

    Raises:
        ValueError: no COCO file, or more that are broken than ``data.max_broken``.
    """
    where = display_name(file)
    try:
        with open(file, encoding="utf-8-sig", opener=regular) as stream:
            read = read_instances(
                stream,
                max_megapixels=data.max_megapixels,
                skip_objects=data.on_broken_object == "skip",
                max_objects=data.max_objects,
            )
    except OSError as error:
        raise ValueError(f"{where}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}{named_forms([file])}") from None
    instances = read.instances
    if (instances.outlines.kinds == POLYGONS).any():
        need("faster_coco_eval")  # now, not at the first picture
    folder, there = _folder_of(instances.file_names, folders)
    faults = _without_picture(instances.file_names, folder, there, inside, data) | read.faults
    names = [f"{display_name(folder / instances.file_names[row])}: {faults[row]}" for row in sorted(faults)]
    _check(names, len(instances), read, where, data)
    rows = np.arange(len(instances))
    fault = _mask_fault(read, where, data)
    images = CocoObjects(instances, rows, folder, faults, Decoding.of(data), fault)
    listed = set(instances.file_names)
    unlisted = sorted(name for name in there if name not in listed and name.lower().endswith(SUFFIXES))
    return CocoPart(images, _notes(names, read, where, fault), tuple(str(folder / name) for name in unlisted))


def _folder_of(names: Sequence[str], folders: Sequence[Path]) -> tuple[Path, dict[str, bool]]:
    """The folder, and what lies in it, by name: whether it is a link."""
    best: tuple[int, Path, dict[str, bool]] = (-1, folders[0], {})
    for folder in folders:
        there = _listed(folder, names)
        found = sum(name in there for name in names)
        if found > best[0]:
            best = found, folder, there
        if found == len(names):
            break
    return best[1], best[2]


def _listed(folder: Path, names: Sequence[str]) -> dict[str, bool]:
    """The files beside those that ``names`` say, by their names below ``folder``: whether each is a link."""
    there: dict[str, bool] = {}
    for parent in {os.path.dirname(name) for name in names if not leaves_archive(name)}:
        try:
            entries = list(os.scandir(folder / parent))
        except OSError:
            continue
        head = f"{parent}/" if parent else ""
        there |= {head + entry.name: entry.is_symlink() for entry in entries if not is_folder(entry)}
    return there


def _without_picture(
    names: Sequence[str], folder: Path, there: dict[str, bool], inside: Path, data: DataConfig
) -> dict[int, str]:
    faults = {}
    for row, name in enumerate(names):
        if leaves_archive(name):
            faults[row] = f"its file_name {display_name(name)!r} leaves the data folder"
        elif name not in there:
            faults[row] = f"the picture is missing below {display_name(folder)}"
        elif there[name] and (refused := refused_links([folder / name], inside, data)):
            faults[row] = next(iter(refused.values()))
    return faults


def _check(faults: list[str], count: int, read: Read, where: str, data: DataConfig) -> None:
    """ValueError where all pictures are broken, or more than are allowed."""
    limit = f"data.max_broken is {data.max_broken}"
    if faults and (len(faults) == count or len(faults) > data.max_broken):
        raise ValueError(f"{where}: {len(faults)} of {count} pictures are broken ({limit}): {_few(faults)}")
    if len(read.stray) > data.max_broken:
        raise ValueError(f"{where}: {_strays(read)} ({limit})")
    if (out := len(read.left_out)) and (out > data.max_broken or out == len(read.instances.ids)):
        raise ValueError(f"{where}: {_left_out(read)} ({limit})")


def _mask_fault(read: Read, where: str, data: DataConfig) -> str | None:
    """Why masks can't be learned from, where boxes can."""
    if not read.instances.masked:
        return None
    if read.apart is not None:
        return f"{where}: {read.apart}"
    if (without := read.instances.unmasked) > data.max_broken:
        return (
            f"{where}: {without:,} of {len(read.instances.order):,} objects have no mask (data.max_broken is "
            f"{data.max_broken}): give them one, or learn from the boxes alone (model.detector.name=faster_rcnn or "
            "retinanet)"
        )
    return None


def _few(words: Sequence[str]) -> str:
    more = len(words) - _SHOWN
    return "; ".join(words[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")


def _strays(read: Read) -> str:
    return f"{len(read.stray):,} annotations are of no picture in it: {_few(read.stray)}"


def _left_out(read: Read) -> str:
    return f"{len(read.left_out):,} of {len(read.instances.ids):,} objects are broken: {_few(read.left_out)}"


def _notes(faults: list[str], read: Read, where: str, mask_fault: str | None) -> tuple[str, ...]:
    notes = []
    if faults:
        notes.append(
            f"{where}: {len(faults):,} of {len(read.instances):,} pictures count as broken: {_few(faults)}"
        )
    if read.stray:
        notes.append(f"{where}: {_strays(read)}; they are left out")
    if read.left_out:
        notes.append(
            f"{where}: {_left_out(read)}; they are left out (data.on_broken_object=picture leaves out their pictures)"
        )
    if mask_fault is not None:
        notes.append(mask_fault)
    elif read.instances.masked and (without := read.instances.unmasked):
        notes.append(
            f"{where}: {without:,} of {len(read.instances.order):,} objects have no mask: a detector of boxes learns "
            "from all, mask_rcnn from those that have one"
        )
    if read.beyond:
        notes.append(
            f"{where}: {read.beyond:,} boxes reach beyond their pictures by more than a pixel; training cuts them off, "
            "evaluation takes them as they are"
        )
    return tuple(notes)
