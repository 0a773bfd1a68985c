"""``shards``: tar files in WebDataset's form, read at random through an index.

A sample is a run of members with one key: ``KEY.jpg`` (or another picture) and ``KEY.cls``, its class number.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from crosshead.data.base import IMAGENET_MEAN, IMAGENET_STD, Splits, dataset_info
from crosshead.data.datasets.archives import ENTRY, ArchivedImages, check_member, read_exactly
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import SUFFIXES, display_name
from crosshead.files import read_json
from crosshead.recipe.schema import DataConfig

LAYOUT = "ROOT/train-000000.tar ... (and val-*.tar, test-*.tar; or in folders train/, val/, test/), with classes.json"
CLASSES = "classes.json"
INDEX_SUFFIX = ".index.json"
OBJECTS_SUFFIX = ".objects.json"  # of the objects of a picture, in shards of their own
_END = bytes(1024)  # a tar file ends in two empty blocks
_MOST_DIGITS = 9
_MOST_UNNAMED = 100_000  # classes without classes.json: a damaged number must not fill the memory
_NUMBERED = re.compile(r"(.*?)([0-9]{1,9})\.tar")

Sample = tuple[str, int, int, int]  # member, class, where its bytes begin, how many


def open_shards(data: DataConfig, *, hold: HoldOut) -> Splits:
    """The splits by the shards' names; without ``val`` shards a share of ``train`` is held out, seeded by class."""
    root = data_root(data, LAYOUT)
    parts = {part: shard_files(root, part) for part in ("train", "val", "test")}
    if not parts["train"]:
        raise ValueError(f"{root}: no shards of train; expected {LAYOUT}")
    sets = {part: read_shards(files, data) for part, files in parts.items() if files}
    class_names = _class_names(root, 1 + max(max(images.targets) for images in sets.values()))
    train, validation = sets["train"], sets.get("val")
    if validation is None:
        train, validation = hold.split(train, data, strata=train.targets, class_names=class_names)
    info = dataset_info(data, class_names, IMAGENET_MEAN, IMAGENET_STD)
    return Splits(train, validation, sets.get("test"), info, held_out="val" not in sets)


def shard_files(root: Path, part: str) -> list[Path]:
    """``PART-*.tar`` and ``PART/*.tar``, in the order of their names.

    Raises:
        ValueError: one is missing: a number is left out, or an index lies there without its shard.
    """
    files = sorted([*root.glob(f"{part}-*.tar"), *(root / part).glob("*.tar")])
    missing = _left_out(files)
    for index in [*root.glob(f"{part}-*.tar{INDEX_SUFFIX}"), *(root / part).glob(f"*.tar{INDEX_SUFFIX}")]:
        missing |= {index.with_name(index.name.removesuffix(INDEX_SUFFIX))} - set(files)
    if missing:
        first = ", ".join(display_name(str(file.relative_to(root))) for file in sorted(missing)[:3])
        raise ValueError(
            f"{root}: {len(missing)} of {part}'s shards missing, expected {first}"
            f"{', ...' if len(missing) > 3 else ''}; copy them here, or "
            "number the others without a gap and remove the indices of those left out"
        )
    return files


def _left_out(files: list[Path]) -> set[Path]:
    """Between the first and the last number of files that only differ in it; numbers mostly absent are no row."""
    rows: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        numbered = _NUMBERED.fullmatch(file.name)
        if numbered:
            head, digits = numbered.groups()
            rows.setdefault((file.parent, head, len(digits)), set()).add(int(digits))
    return {
        folder / f"{head}{number:0{width}d}.tar"
        for (folder, head, width), numbers in rows.items()
        if max(numbers) - min(numbers) < 2 * len(numbers)
        for number in set(range(min(numbers), max(numbers))) - numbers
    }


def read_shards(files: list[Path], data: DataConfig) -> ArchivedImages:
    samples = [(number, *sample) for number, file in enumerate(files) for sample in shard_samples(file)]
    if not samples:
        raise ValueError(f"{files[0]}: no samples in it and its {len(files) - 1} fellows; pack the data anew")
    entries = np.zeros(len(samples), dtype=ENTRY)
    for i, (number, _, _, offset, size) in enumerate(samples):
        entries[i] = (number, 0, offset, size, size, 0)
    names, targets = [sample[1] for sample in samples], [sample[2] for sample in samples]
    return ArchivedImages(files, entries, names, targets, read_tar_member, Decoding.of(data))


def read_tar_member(archive: str, entry: np.void) -> bytes:
    """The bytes of one member. EOFError where the shard ends before."""
    with open(archive, "rb", buffering=0) as file:
        return read_exactly(file.fileno(), int(entry["offset"]), int(entry["size"]))


def shard_samples(shard: Path) -> list[Sample]:
    """The samples of one shard, from the index beside it if there is one, else from the members' headers.

    Raises:
        ValueError: the shard is cut short or is no tar file, a picture has no class, or a path leaves it.
    """
    index = shard.with_name(shard.name + INDEX_SUFFIX)
    return _indexed(shard, index) if index.is_file() else list(_scanned(shard))


def write_index(shard: Path, samples: list[Sample]) -> None:
    """The index beside ``shard``, with the size of the shard that it belongs to."""
    index = shard.with_name(shard.name + INDEX_SUFFIX)
    index.write_text(json.dumps({"bytes": shard.stat().st_size, "samples": samples}), encoding="utf-8")


def _indexed(shard: Path, index: Path) -> list[Sample]:
    try:
        content = read_json(index)
        size, samples = int(content["bytes"]), [_sample(*entry) for entry in content["samples"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index}: damaged ({error}); remove it, and the shard is read without") from error
    if (there := shard.stat().st_size) != size:
        raise ValueError(
            f"{shard}: {there} bytes, but its index was written for {size}: the shard is cut short or another one; "
            f"copy both again, or remove {index.name} if the shard is right"
        )
    for name, _, offset, length in samples:
        check_member(shard, name)
        if offset + length > there:
            raise ValueError(f"{index}: damaged ({name!r} would end behind the shard); remove it")
    return samples


def _sample(name: object, target: object, offset: object, size: object) -> Sample:
    numbers = (target, offset, size)
    if not isinstance(name, str) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError(f"{name!r}: expected a name, a class, an offset and a size")
    return name, target, offset, size  # type: ignore[return-value]  # checked just above


def _scanned(shard: Path) -> Iterator[Sample]:
    members = ((_key(member.name), member, body) for member, body in _members(shard))
    for _, run in groupby(members, key=lambda item: item[0]):
        files = [(member, body) for _, member, body in run]
        pictures = [
            member for member, _ in files if member.name.lower().endswith((*SUFFIXES, OBJECTS_SUFFIX))
        ]
        classes = [body for member, body in files if member.name.endswith(".cls")]
        if pictures or classes:
            yield _sample_of(shard, files[0][0].name, pictures, classes)


def _members(shard: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every file of the shard; of the classes, which are short, with its bytes."""
    try:
        with open(shard, "rb") as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            for member in tar:
                check_member(shard, member.name)
                if member.isdir():
                    continue
                if not member.isreg():
                    raise ValueError(
                        f"{shard}: {member.name!r} is a link or a device; pack the files themselves"
                    )
                is_class = member.name.endswith(".cls")
                if is_class and member.size > _MOST_DIGITS + 1:
                    raise ValueError(
                        f"{shard}: {member.name!r} has {member.size} bytes; expected a class number"
                    )
                yield member, os.pread(raw.fileno(), member.size, member.offset_data) if is_class else b""
            raw.seek(max(0, os.fstat(raw.fileno()).st_size - len(_END)))
            if raw.read() != _END:
                raise ValueError(
                    f"{shard}: cut short (the end of the archive is missing); copy or pack it again"
                )
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{shard}: no whole tar file ({error}); copy or pack it again") from error


def _key(name: str) -> str:
    """WebDataset ends the key at the first dot after the last slash."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _sample_of(shard: Path, name: str, pictures: list[tarfile.TarInfo], classes: list[bytes]) -> Sample:
    if len(pictures) != 1 or len(classes) != 1 or not classes[0].strip().isdigit():
        raise ValueError(
            f"{shard}: the sample of {display_name(name)!r} has {len(pictures)} pictures and the classes {classes}; "
            "expected one picture and one KEY.cls with a class number in it (the key ends at the first dot)"
        )
    return pictures[0].name, int(classes[0]), pictures[0].offset_data, pictures[0].size


def _class_names(root: Path, needed: int) -> list[str]:
    """Those of ``classes.json``, or the class numbers."""
    file = root / CLASSES
    if not file.is_file():
        if needed > _MOST_UNNAMED:
            raise ValueError(
                f"{root}: class number {needed - 1} in the shards; above {_MOST_UNNAMED - 1:,} their names must be "
                f"there ({CLASSES}), or the shards are damaged: pack them anew"
            )
        return [str(i) for i in range(needed)]
    try:
        names = read_json(file)
    except ValueError as error:
        raise ValueError(f"{file}: damaged ({error}); expected a JSON list of the class names") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file}: expected a JSON list of the class names")
    if len(names) < needed:
        raise ValueError(f"{file}: {len(names)} class names, but the shards have class {needed - 1}")
    return names
