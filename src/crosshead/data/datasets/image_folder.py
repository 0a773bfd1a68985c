"""``folder``: any folder of pictures with one folder a class, split by ``train/`` and ``val/`` or by seed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crosshead.data.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    FileImages,
    Splits,
    dataset_info,
)
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import SUFFIXES, display_name, why_passed_over
from crosshead.recipe.schema import DataConfig

LAYOUT = "ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg (and ROOT/test/...), or ROOT/CLASS/*.jpg"
_VALIDATION = ("val", "valid", "validation")  # as different tools export it


def open_folder(data: DataConfig, *, hold: HoldOut) -> Splits:
    """``train/``, ``val/`` (or ``valid/``) and ``test/`` where they are; without a validation split the training
    pictures are split by class and seed."""
    root = data_root(data, LAYOUT)
    train_root = root / "train" if (root / "train").is_dir() else root
    class_names = class_folders(train_root)
    folders = {"train": train_root} | ({} if train_root == root else further_folders(root))
    listings = {
        split: list_classes(folder, class_names, data, inside=root, needed=split == "train")
        for split, folder in folders.items()
    }
    sets = {split: listing.images for split, listing in listings.items()}
    origins = {split: display_name(folder) for split, folder in folders.items()}
    held_out = "validation" not in sets
    names = [display_name(name) for name in class_names]
    if held_out:
        train, validation = hold.split(sets["train"], data, strata=sets["train"].targets, class_names=names)
        sets |= {"train": train, "validation": validation}
        share = f"{data.validation:.0%} of each class"
        origins["validation"] = (
            f"{share} held out of {origins['train']}, by seed {hold.seed}: there is no val/ or valid/"
        )
        origins["train"] += ", less what is held out for validation"
    return Splits(
        sets["train"],
        sets["validation"],
        sets.get("test"),
        dataset_info(data, names, IMAGENET_MEAN, IMAGENET_STD),
        held_out,
        {split: origins[split] for split in ("train", "validation", "test") if split in origins},
        tuple(note for listing in listings.values() for note in listing.notes),
        tuple(each for listing in listings.values() for each in listing.passed_over),
    )


def further_folders(root: Path) -> dict[str, Path]:
    """The folders of validation and test beside ``train``."""
    there = [root / name for name in _VALIDATION if (root / name).is_dir()]
    if len(there) > 1:
        names = " and ".join(folder.name for folder in there)
        raise ValueError(
            f"{display_name(root)}: {names} are both there; keep one folder of validation pictures"
        )
    test = {"test": root / "test"} if (root / "test").is_dir() else {}
    return ({"validation": there[0]} if there else {}) | test


def data_root(data: DataConfig, layout: str) -> Path:
    """``data.root`` as a folder that is there; the error shows the ``layout`` wanted."""
    if data.root is None:
        raise ValueError(f"data.root is not set, and {data.name} needs it: set it to ROOT of {layout}")
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise ValueError(f"data.root {root} is not a folder; expected ROOT of {layout}")
    return root


def class_folders(root: Path) -> list[str]:
    """The names of the class folders of ``root``, in the order of their class index (by bytes)."""
    try:
        names = [
            entry.name for entry in os.scandir(root) if is_folder(entry) and not entry.name.startswith(".")
        ]
    except OSError as error:
        raise ValueError(f"{display_name(root)}: can't be listed ({error.strerror})") from error
    if not names:
        raise ValueError(f"{display_name(root)}: no class folders in it; expected {LAYOUT}")
    return sorted(names, key=os.fsencode)


@dataclass(frozen=True)
class Listing:
    """What one split's folders hold."""

    images: FileImages
    notes: tuple[str, ...]
    passed_over: tuple[tuple[str, str], ...]  # (path, why)


def read_classes(root: Path, class_names: Sequence[str], data: DataConfig, *, inside: Path) -> FileImages:
    """The pictures of ``list_classes``, each class with some."""
    return list_classes(root, class_names, data, inside=inside, needed=True).images


def list_classes(
    root: Path, class_names: Sequence[str], data: DataConfig, *, inside: Path, needed: bool
) -> Listing:
    """What is below ``root``, with ``class_names`` deciding the index of each class.

    A link that leads out of the folder ``inside`` is not followed unless ``data.follow_links``: a file then
    counts as broken, a folder is an error. Files without a picture's suffix are passed over, hidden ones ignored.

    Raises:
        ValueError: a class without pictures where each is ``needed``, a class folder that ``class_names`` doesn't
            have, no picture at all, or more links that are not followed than broken pictures are allowed.
    """
    if unknown := sorted(set(class_folders(root)) - set(class_names), key=os.fsencode):
        raise ValueError(
            f"{display_name(root)}: class folders {', '.join(map(display_name, unknown[:5]))} are not among "
            f"the {len(class_names)} training classes; add them to train/ or remove them"
        )
    found: list[tuple[str, int]] = []
    links: list[str] = []
    others: list[str] = []
    empty: list[str] = []
    for target, name in enumerate(class_names):
        folder = root / name
        limit = None if data.follow_links else inside
        pictures, linked, other = files_below(folder, limit) if folder.is_dir() else ([], [], [])
        if not pictures and needed:
            raise ValueError(
                f"{display_name(root / name)}: no pictures of this class ({', '.join(SUFFIXES)}); "
                "remove the class everywhere or add pictures"
                + (f". {display_name(other[0])}: {why_passed_over(other[0])}" if other else "")
            )
        if not pictures:
            empty.append(display_name(name))
        found += [(path, target) for path in pictures]
        links += linked
        others += other
    if not found:
        raise ValueError(f"{display_name(root)}: no pictures ({', '.join(SUFFIXES)}); expected {LAYOUT}")
    refused = refused_links(links, inside, data)
    _check_links(refused, len(found), root, data)
    images = FileImages(
        [path for path, _ in found], [target for _, target in found], Decoding.of(data), refused
    )
    notes = []
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        notes.append(
            f"{display_name(root)}: no pictures of {', '.join(empty[:5])}{more} ({len(empty)} of {len(class_names)} "
            "classes): nothing is measured of them there"
        )
    if refused:
        notes.append(
            f"{_links(refused, len(found), root)}: they count as broken; data.follow_links=true reads them"
        )
    return Listing(
        images, tuple(notes), tuple((display_name(path), why_passed_over(path)) for path in others)
    )


def _links(refused: dict[str, str], count: int, root: Path) -> str:
    first, where = display_name(next(iter(refused))), display_name(root)
    return (
        f"{where}: {len(refused)} of {count} pictures are links that leave the data folder ({first} for one)"
    )


def _check_links(refused: dict[str, str], count: int, root: Path, data: DataConfig) -> None:
    if refused and (len(refused) == count or len(refused) > data.max_broken):
        raise ValueError(
            f"{_links(refused, count, root)}, and are not read; data.follow_links=true reads them, if you trust them"
        )


def refused_links(paths: Sequence[str | Path], inside: Path, data: DataConfig) -> dict[str, str]:
    """The reason for every path that is a link out of the folder ``inside``; none if ``data.follow_links``."""
    if data.follow_links:
        return {}
    return {
        str(path): f"a link that leaves the data folder, to {display_name(os.path.realpath(path))}: "
        "copy the file in, or set data.follow_links=true"
        for path in paths
        if os.path.islink(path) and not _is_inside(path, inside)
    }


def is_folder(entry: os.DirEntry[str]) -> bool:
    """A link that leads round in a circle is none; opened as a picture it counts as broken."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_inside(path: str | Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def files_below(folder: Path, inside: Path | None) -> tuple[list[str], list[str], list[str]]:
    """Every picture below ``folder``, in byte order, those of them that are links, and the files that are none.

    ValueError for a folder that leads out of ``inside``.
    """
    found: list[str] = []
    links: list[str] = []
    others: list[str] = []
    pending, seen = [str(folder)], set()
    while pending:
        here = pending.pop()
        real = os.path.realpath(here)
        if real in seen:  # a link back up would go round for ever
            continue
        seen.add(real)
        if inside is not None and not _is_inside(here, inside):
            raise ValueError(
                f"{display_name(here)} is a link that leaves the data folder, to {display_name(real)}; "
                "copy it in, or set data.follow_links=true"
            )
        try:
            entries = [entry for entry in os.scandir(here) if not entry.name.startswith(".")]
        except OSError as error:
            raise ValueError(f"{display_name(here)}: can't be listed ({error.strerror})") from error
        pending += [entry.path for entry in entries if is_folder(entry)]
        pictures = [e for e in entries if e.name.lower().endswith(SUFFIXES) and not is_folder(e)]
        found += [entry.path for entry in pictures]
        others += [e.path for e in entries if not e.name.lower().endswith(SUFFIXES) and not is_folder(e)]
        links += [
            entry.path for entry in pictures if entry.is_symlink()
        ]  # the listing told: no call for each
    return sorted(found, key=os.fsencode), links, sorted(others, key=os.fsencode)
