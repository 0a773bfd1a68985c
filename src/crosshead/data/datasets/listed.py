"""``csv``: pictures that a table names, each with a class, several labels, or a number."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crosshead.data.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    FileImages,
    Splits,
    dataset_info,
)
from crosshead.data.datasets.held_out import PURPOSE, HoldOut
from crosshead.data.datasets.image_folder import data_root, refused_links
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import display_name
from crosshead.data.random import permutation
from crosshead.files import regular
from crosshead.recipe.schema import DataConfig

TABLE = "labels.csv"
LAYOUT = f"ROOT/{TABLE} with the columns path[,split][,group] and one of: label | labels (names parted by ;) | value"
_SPLITS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_KINDS = ("label", "labels", "value")


def open_listed(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Split by the column ``split`` where there is one, else a share held out by seed (by class where there are some).

    Raises:
        ValueError: the table is not one, naming the line.
    """
    root = data_root(data, LAYOUT)
    kind, paths, splits, words = _read(root / TABLE)
    class_names, targets = _targets(kind, words, root / TABLE)
    chosen = {
        split: [i for i, each in enumerate(splits) if each == split]
        for split in ("train", "validation", "test")
    }
    if not chosen["train"]:
        raise ValueError(f"{root / TABLE}: no row has the split train")
    files = [root / path for path in paths]
    whole = FileImages(files, targets, Decoding.of(data), refused_links(files, root, data))
    sets = {split: whole.subset(np.asarray(rows, dtype=np.int64)) for split, rows in chosen.items() if rows}
    held_out = "validation" not in sets
    if held_out:
        sets["train"], sets["validation"] = _split(kind, sets["train"], data, hold, class_names)
    info = dataset_info(data, class_names, IMAGENET_MEAN, IMAGENET_STD)
    if kind == "value":
        numbers = np.asarray(sets["train"].targets, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            scale = float(numbers.mean()), float(numbers.std()) or 1.0
        if not np.isfinite(scale).all():
            raise ValueError(
                f"{root / TABLE}: numbers from {numbers.min():g} to {numbers.max():g} are too far apart for a mean and "
                "a standard deviation; learn their logarithms, say"
            )
        info = replace(info, scale=scale)
    return Splits(sets["train"], sets["validation"], sets.get("test"), info, held_out)


def _read(table: Path) -> tuple[str, list[str], list[str], list[str]]:
    """What kind of label the table has, and of every row the path, the split and the label as it is written."""
    try:
        with open(table, encoding="utf-8-sig", newline="", opener=regular) as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            kinds = [name for name in header if name in _KINDS]
            if "path" not in header or len(kinds) != 1 or set(header) - {"path", "split", "group", *kinds}:
                raise ValueError(f"{table}: the columns are {', '.join(header) or 'none'}; expected {LAYOUT}")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table}: can't be read ({error}); expected {LAYOUT}") from error
    if not rows:
        raise ValueError(f"{table}: no pictures in it; expected {LAYOUT}")
    paths, splits, words = [], [], []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{table}:{number}"
        path, split, word = row.get("path"), row.get("split", "train"), row.get(kinds[0])
        if not path or word is None or split is None or None in row:
            raise ValueError(f"{where}: expected {len(header)} fields ({', '.join(header)}), got {row}")
        normal = os.path.normpath(path)
        if os.path.isabs(path) or normal.startswith(".."):
            raise ValueError(
                f"{where}: {display_name(path)} leads out of {table.parent}; expected a path inside it"
            )
        if split not in _SPLITS:
            raise ValueError(f"{where}: split {split!r}; expected train, val or test")
        if (before := seen.setdefault(normal, number)) != number:
            raise ValueError(f"{where}: {display_name(path)} stands in line {before} too; remove one")
        paths.append(normal)
        splits.append(_SPLITS[split])
        words.append(word.strip())
    return kinds[0], paths, splits, words


def _targets(kind: str, words: Sequence[str], table: Path) -> tuple[list[str], Sequence[Any]]:
    """The classes' names in order, and a class index, a list of 0 and 1, or a number for each row."""
    if kind == "value":
        return [], [_number(word, f"{table}:{number}") for number, word in enumerate(words, start=2)]
    parts = [[name.strip() for name in word.split(";") if name.strip()] for word in words]
    if kind == "label":
        for number, names in enumerate(parts, start=2):
            if len(names) != 1:
                raise ValueError(f"{table}:{number}: label {words[number - 2]!r}; expected one name")
    names = sorted({name for each in parts for name in each})
    places = {name: i for i, name in enumerate(names)}
    if kind == "label":
        return names, [places[each[0]] for each in parts]
    return names, [[float(name in set(each)) for name in names] for each in parts]


def _number(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: value {word!r}; expected a number")
    return value


def _split(
    kind: str, images: FileImages, data: DataConfig, hold: HoldOut, class_names: Sequence[str]
) -> tuple[FileImages, FileImages]:
    """(the rest, the held out)."""
    if kind == "label":
        return hold.split(images, data, strata=images.targets, class_names=class_names)
    if len(images) < 2:
        raise ValueError(
            f"{data.name}: one picture; expected two at least, to train and validate, or a column split"
        )
    if not hold.by_place:
        return hold.split(images, data)
    count = min(max(1, round(data.validation * len(images))), len(images) - 1)
    order = permutation(PURPOSE, hold.seed, 0, len(images))
    return images.subset(np.sort(order[count:])), images.subset(np.sort(order[:count]))
