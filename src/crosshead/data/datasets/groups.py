"""Pictures that belong together (of one patient, one flight, one camera), and the folds of a cross-validation.

What belongs together lies on one side of every split: a model that has seen a patient knows the patient's other
pictures too well, and judging by them says more than the truth.
"""

import csv
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from crosshead.data.decode.images import display_name
from crosshead.data.random import Indices, keys, uniforms
from crosshead.files import regular
from crosshead.recipe.schema import DataConfig

_COLUMNS = ("path", "group")
_SHOWN = 3


class Named(Protocol):
    """What is asked of pictures here; see ``ImageSet``."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str: ...


def names_below(images: Named, root: str | None) -> Iterator[str]:
    """Each picture's name, counted from ``root``."""
    above = "" if root is None else display_name(Path(root).expanduser()) + "/"
    return (images.name(i).removeprefix(above) for i in range(len(images)))


def groups_of(images: Named, data: DataConfig) -> list[str] | None:
    """The group of each picture, by ``data.groups``; None where that is unset.

    Raises:
        ValueError: a picture has none, or the table or the expression can't be read.
    """
    if data.groups is None:
        return None
    names = list(names_below(images, data.root))
    if data.groups.lower().endswith(".csv"):
        return _by_table(names, data)
    expression = re.compile(data.groups)  # the schema has seen to it that it is one
    found = [expression.search(name) for name in names]
    if (first := next((n for n, match in zip(names, found, strict=True) if match is None), None)) is not None:
        raise ValueError(
            f"data.groups is {data.groups!r}, and finds no group in {first!r}; expected an expression that matches "
            "every picture's name below data.root, or a table with the columns path and group"
        )
    matches = [match for match in found if match is not None]
    return [(match[1] if expression.groups else match[0]) or "" for match in matches]


def _by_table(names: Sequence[str], data: DataConfig) -> list[str]:
    assert data.groups is not None
    file = Path(data.groups).expanduser()
    if data.root is not None and not file.is_absolute():
        file = Path(data.root).expanduser() / file
    try:
        with open(file, encoding="utf-8-sig", newline="", opener=regular) as opened:
            reader = csv.DictReader(opened)
            if not set(_COLUMNS) <= set(reader.fieldnames or ()):
                raise ValueError(
                    f"{file}: the columns are {', '.join(reader.fieldnames or ()) or 'none'}; expected path and group "
                    "(data.groups)"
                )
            table = {display_name(row["path"]): row["group"] or "" for row in reader if row["path"]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"data.groups: {file} can't be read ({error})") from error
    if missing := [name for name in names if not table.get(name)]:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise ValueError(f"data.groups: {file} has no group of {missing[0]}{more}; give every picture one")
    return [table[name] for name in names]


def deal(
    parts: int,
    *,
    purpose: str,
    seed: int,
    ids: Indices,
    labels: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
) -> Indices:
    """Which of ``parts`` each picture falls to, (N,): every class spread over all of them as evenly as can be, groups
    left whole. A function of ``seed``, ``ids`` (what each picture is known by) and the groups' names.

    Whole groups are dealt by scikit-learn's ``StratifiedGroupKFold``.

    Raises:
        ValueError: there are fewer pictures, or fewer groups, than parts.
    """
    y = np.zeros(len(ids), np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
    what = "pictures" if groups is None else "groups (data.groups)"
    if (count := len(ids) if groups is None else len(set(groups))) < parts:
        raise ValueError(
            f"there are {count} {what}, and {parts} parts to be made of them; expected {parts} at least"
        )
    if groups is None:
        order = np.lexsort((uniforms(keys(purpose, seed, 0, ids), 1)[:, 0], y))
        dealt = np.empty(len(ids), dtype=np.int64)
        dealt[order] = np.arange(len(ids)) % parts
        return dealt
    from sklearn.model_selection import StratifiedGroupKFold

    different = sorted(set(groups))
    places = {group: place for place, group in enumerate(different)}
    # The library takes groups of one make in the order of their numbers: of a drawn one here.
    drawn = keys(purpose, seed, 0, np.array([_digest(group) for group in different]))
    rank = np.empty(len(different), dtype=np.int64)
    rank[np.argsort(drawn, kind="stable")] = np.arange(len(different))
    numbers = rank[[places[group] for group in groups]]
    dealt = np.empty(len(ids), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class with fewer pictures than parts
        # A class smaller than all parts is refused there only if every class is.
        y = y if len(y) and np.bincount(y).max() >= parts else np.zeros_like(y)
        for part, (_, members) in enumerate(StratifiedGroupKFold(parts).split(y, y, numbers)):
            dealt[members] = part
    return dealt


def _digest(group: str) -> int:
    from hashlib import blake2b

    return int.from_bytes(blake2b(group.encode(), digest_size=8).digest(), "little", signed=True)


def shared_groups(parts: Mapping[str, Sequence[str]]) -> str | None:
    """In words, which groups lie in more than one split; None where none does."""
    held = {name: set(groups) for name, groups in parts.items()}
    counts = Counter(group for groups in held.values() for group in groups)
    shared = sorted(group for group, count in counts.items() if count > 1)
    if not shared:
        return None
    where = " and ".join(name for name, groups in held.items() if groups & set(shared))
    more = f" and {len(shared) - _SHOWN:,} more" if len(shared) > _SHOWN else ""
    return (
        f"{len(shared):,} of {len(counts):,} groups (data.groups) have pictures in {where}: "
        f"{', '.join(shared[:_SHOWN])}{more}; what is judged there is partly known"
    )
