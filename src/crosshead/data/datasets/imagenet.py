"""``imagenet``: class folders, or the zip files with map texts of the Swin Transformer's users."""

import os
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from crosshead.data.base import IMAGENET_MEAN, IMAGENET_STD, Splits, dataset_info
from crosshead.data.datasets.archives import ENTRY, ArchivedImages, check_member, leaves_archive, read_exactly
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root, open_folder
from crosshead.data.decode.decoding import Decoding
from crosshead.files import read_text
from crosshead.recipe.schema import DataConfig

LAYOUT = "ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG, or ROOT/{train.zip, train_map.txt, val.zip, val_map.txt}"
ZIPPED = ("train.zip", "train_map.txt", "val.zip", "val_map.txt")
_LOCAL_HEADER = 30


def open_imagenet(data: DataConfig, *, hold: HoldOut) -> Splits:
    """``val`` is the validation split; there is no test set."""
    root = data_root(data, LAYOUT)
    there = [name for name in ZIPPED if (root / name).is_file()]
    if not there:
        if missing := [name for name in ("train", "val") if not (root / name).is_dir()]:
            raise ValueError(f"{root}: {' and '.join(missing)} missing; expected {LAYOUT}")
        return open_folder(data, hold=hold)
    if missing := [name for name in ZIPPED if name not in there]:
        raise ValueError(f"{root}: {', '.join(missing)} missing; expected {LAYOUT}")
    train, validation = (
        _zipped(root / f"{part}.zip", root / f"{part}_map.txt", data) for part in ("train", "val")
    )
    class_names = _class_names(train)
    if (extra := max(validation.targets)) >= len(class_names):
        raise ValueError(
            f"{root / 'val_map.txt'}: class {extra}, but train_map.txt has {len(class_names)} classes"
        )
    return Splits(train, validation, None, dataset_info(data, class_names, IMAGENET_MEAN, IMAGENET_STD))


def _zipped(archive: Path, map_file: Path, data: DataConfig) -> ArchivedImages:
    names, targets = read_map(map_file, archive.name)
    entries = _entries(archive, names, map_file)
    return ArchivedImages([archive], entries, names, targets, read_zip_member, Decoding.of(data))


def read_map(map_file: Path, archive: str) -> tuple[list[str], list[int]]:
    """(members, classes) of a text with one member, a tab and its class number a line.

    A member may stand behind the name of its ``archive``, ``train.zip@/MEMBER``, as Swin's loader joins the two.
    """
    names, targets = [], []
    text = read_text(map_file, errors="surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        name, _, target = line.rstrip("\r").rpartition("\t")
        if not name or not re.fullmatch(r"[0-9]{1,12}", target.strip()):
            raise ValueError(
                f"{map_file}:{number}: {line!r}; expected a path in the zip, a tab and a class number"
            )
        member = name.removeprefix(f"{archive}@/")
        if leaves_archive(member):
            raise ValueError(
                f"{map_file}:{number}: the path {name!r} leaves {archive}; it may be hostile: get the map from its "
                "source again"
            )
        names.append(member)
        targets.append(int(target))
    if not names:
        raise ValueError(f"{map_file}: empty; expected a path in the zip, a tab and a class number a line")
    return names, targets


def _entries(archive: Path, names: list[str], map_file: Path) -> np.ndarray:
    """Where each of ``names`` lies, from the zip's directory, which is read once."""
    try:
        with zipfile.ZipFile(archive) as file:
            directory = {info.filename: info for info in file.infolist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{archive}: no whole zip file ({error}); copy it again") from error
    for name in directory:
        check_member(archive, name)
    if missing := [name for name in names if name not in directory]:
        raise ValueError(
            f"{archive}: {len(missing)} of the {len(names)} pictures in {map_file.name} are not in it, "
            f"the first is {missing[0]!r}"
        )
    entries = np.zeros(len(names), dtype=ENTRY)
    for i, name in enumerate(names):
        info = directory[name]
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"{archive}: {name!r} is encrypted or packed otherwise than by deflate; zip it anew"
            )
        entries[i] = (0, info.compress_type, info.header_offset, info.file_size, info.compress_size, info.CRC)
    return entries


def read_zip_member(archive: str, entry: np.void) -> bytes:
    """The bytes of one member, checked against their CRC. ValueError or EOFError where they are damaged."""
    with open(archive, "rb", buffering=0) as file:
        header = os.pread(file.fileno(), _LOCAL_HEADER, int(entry["offset"]))
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise ValueError("its header is damaged")
        # The name and the extra field stand between the header and the data.
        skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        packed = read_exactly(
            file.fileno(), int(entry["offset"]) + _LOCAL_HEADER + skip, int(entry["packed"])
        )
    body = packed if entry["method"] == zipfile.ZIP_STORED else _inflated(packed, int(entry["size"]))
    if len(body) != entry["size"] or zlib.crc32(body) != entry["crc"]:
        raise ValueError("its bytes are damaged (wrong CRC)")
    return body


def _inflated(packed: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(f"its bytes are damaged ({error})") from error


def _class_names(train: ArchivedImages) -> list[str]:
    """The folder that all pictures of a class share, or the class number."""
    there = set(train.targets)
    empty = next((i for i in range(len(there)) if i not in there), None)
    if empty is not None:
        raise ValueError(f"train_map.txt: no picture of class {empty}, but of class {max(there)}")
    folders: list[set[str]] = [set() for _ in there]
    for name, target in zip(train.names, train.targets, strict=True):
        folders[target].add(name.rpartition("/")[0].rpartition("/")[2])
    shared = [next(iter(own)) if len(own) == 1 else "" for own in folders]
    telling = all(shared) and len(set(shared)) == len(shared)
    return shared if telling else [str(i) for i in range(len(folders))]
