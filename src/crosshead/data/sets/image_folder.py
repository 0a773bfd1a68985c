"""``folder``: any folder of pictures with one folder a class, split by ``train/`` and ``val/`` or by seed."""

import os
from collections.abc import Sequence
from pathlib import Path

from crosshead.data.files.images import SUFFIXES, display_name
from crosshead.data.sets.common import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    FileImages,
    Splits,
    dataset_info,
    stratified_split,
)
from crosshead.recipe.schema import DataConfig

LAYOUT = "ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg (and ROOT/test/...), or ROOT/CLASS/*.jpg"


def open_folder(data: DataConfig, *, seed: int) -> Splits:
    """``train/``, ``val/`` and ``test/`` where they are; what has no ``val/`` is split by class and seed."""
    root = data_root(data, LAYOUT)
    train_root = root / "train" if (root / "train").is_dir() else root
    class_names = class_folders(train_root)
    train = read_classes(train_root, class_names, data, inside=root)
    test = None
    if train_root != root and (root / "test").is_dir():
        test = read_classes(root / "test", class_names, data, inside=root)
    held_out = train_root == root or not (root / "val").is_dir()
    if not held_out:
        validation = read_classes(root / "val", class_names, data, inside=root)
    else:
        rest, held = stratified_split(train.targets, data.validation, purpose="validation split", seed=seed)
        train, validation = train.subset(rest), train.subset(held)
    names = [display_name(name) for name in class_names]
    info = dataset_info(data, names, IMAGENET_MEAN, IMAGENET_STD)
    return Splits(train, validation, test, info, held_out)


def data_root(data: DataConfig, layout: str) -> Path:
    """``data.root`` as a folder that is there; the error shows the ``layout`` wanted."""
    if data.root is None:
        raise ValueError(f"data.root is not set, and {data.name} needs it: set it to ROOT of {layout}")
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise ValueError(f"data.root {root} is not a folder; wanted ROOT of {layout}")
    return root


def class_folders(root: Path) -> list[str]:
    """The names of the class folders of ``root``, in the order of their class index (by bytes)."""
    try:
        names = [
            entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")
        ]
    except OSError as error:
        raise ValueError(f"{display_name(root)}: can't be listed ({error.strerror})") from error
    if not names:
        raise ValueError(f"{display_name(root)}: no class folders in it; wanted {LAYOUT}")
    return sorted(names, key=os.fsencode)


def read_classes(root: Path, class_names: Sequence[str], data: DataConfig, *, inside: Path) -> FileImages:
    """The pictures of ``root``, with ``class_names`` deciding the index of each class.

    A link that leads out of the folder ``inside`` is not followed unless ``data.follow_links``: a file then
    counts as broken, a folder is an error. Files without a picture's suffix and hidden ones are left out.

    Raises:
        ValueError: a class without pictures, or a class folder that ``class_names`` doesn't have.
    """
    if unknown := sorted(set(class_folders(root)) - set(class_names), key=os.fsencode):
        raise ValueError(
            f"{display_name(root)}: class folders {', '.join(map(display_name, unknown[:5]))} are not among "
            f"the {len(class_names)} training classes; add them to train/ or remove them"
        )
    paths: list[str] = []
    links: list[str] = []
    targets: list[int] = []
    for target, name in enumerate(class_names):
        folder = root / name
        found, linked = (
            _pictures(folder, None if data.follow_links else inside) if folder.is_dir() else ([], [])
        )
        if not found:
            raise ValueError(
                f"{display_name(root / name)}: no pictures of this class ({', '.join(SUFFIXES)}); "
                "remove the class everywhere or add pictures"
            )
        paths += found
        links += linked
        targets += [target] * len(found)
    return FileImages(paths, targets, data.max_megapixels, refused_links(links, inside, data))


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


def _is_inside(path: str | Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _pictures(folder: Path, inside: Path | None) -> tuple[list[str], list[str]]:
    """Every picture below ``folder``, in byte order, and those of them that are links.

    ValueError for a folder that leads out of ``inside``.
    """
    found: list[str] = []
    links: list[str] = []
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
        pending += [entry.path for entry in entries if entry.is_dir()]
        pictures = [e for e in entries if e.name.lower().endswith(SUFFIXES) and not e.is_dir()]
        found += [entry.path for entry in pictures]
        links += [
            entry.path for entry in pictures if entry.is_symlink()
        ]  # the listing told: no call for each
    return sorted(found, key=os.fsencode), links
