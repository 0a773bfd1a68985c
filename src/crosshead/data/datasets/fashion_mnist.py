"""``fashion-mnist``: 70,000 pictures of clothes, 28 x 28, in four IDX files (Xiao, Rasul, Vollgraf, 2017)."""

import gzip
import os
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from crosshead.data.base import ArrayImages, Splits, dataset_info
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.random import Indices
from crosshead.recipe.schema import DataConfig

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip
MEAN, STD = (0.2860,), (0.3530,)
PACKAGED = Path("share", "datasets", "fashion-mnist")
_LARGEST = 1 << 31  # bytes that a header may announce


def open_fashion_mnist(data: DataConfig, *, hold: HoldOut) -> Splits:
    """The validation split is held out of the 60,000; the 10,000 are the test set."""
    folder = _folder(data.root)
    whole, test = (_read_part(folder, part) for part in ("train", "test"))
    train, validation = hold.split(whole, data, strata=whole.targets, fixed=True)
    info = dataset_info(data, CLASS_NAMES, MEAN, STD)
    return Splits(train, validation, test, info, held_out=True)


def _folder(root: str | None) -> Path:
    if root is not None:
        given = Path(root).expanduser()
        for folder in (given, given / "FashionMNIST" / "raw"):  # as published, and as torchvision leaves it
            if not _missing(folder):
                return folder
        raise ValueError(
            f"{given}: no Fashion-MNIST, {', '.join(_missing(given))} missing (each may end in .gz); "
            "leave data.root unset to use Debian's dataset-fashion-mnist or a download"
        )
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix, "/usr/local", "/usr")):
        if not _missing(Path(prefix) / PACKAGED):
            return Path(prefix) / PACKAGED
    return _download()


def _missing(folder: Path) -> list[str]:
    return [name for part in FILES.values() for name in part if _file(folder, name) is None]


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _download() -> Path:
    from torchvision.datasets import FashionMNIST

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crosshead"
    try:
        FashionMNIST(str(cache), download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"fashion-mnist is not installed under {PACKAGED} and its download failed ({error}): "
            "install Debian's dataset-fashion-mnist, or set data.root to a folder with the four IDX files"
        ) from error
    return cache / "FashionMNIST" / "raw"


def _read_part(folder: Path, part: str) -> ArrayImages:
    pixels_path, labels_path = (_file(folder, name) for name in FILES[part])
    assert pixels_path is not None and labels_path is not None
    pixels, labels = read_idx(pixels_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if len(pixels) != len(labels):
        raise ValueError(f"{pixels_path} holds {len(pixels)} pictures and {labels_path} {len(labels)} labels")
    if len(labels) and labels.max() >= len(CLASS_NAMES):
        raise ValueError(f"{labels_path}: class {labels.max()}, expected 0 ... {len(CLASS_NAMES) - 1}")
    return ArrayImages(torch.from_numpy(pixels)[:, None], _as_targets(labels), f"fashion-mnist/{part}")


def _as_targets(labels: np.ndarray) -> Indices:
    return labels.astype(np.int64)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX file of bytes, gzipped or not, as uint8 of so many ``dimensions``.

    Raises:
        ValueError: the file is another one, or shorter or longer than its header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return _read_idx(file, path, dimensions)
    except (EOFError, OSError) as error:
        raise ValueError(f"{path}: can't be read ({error}); fetch it again") from error


def _read_idx(file: BinaryIO | gzip.GzipFile, path: Path, dimensions: int) -> np.ndarray:
    header = file.read(4 + 4 * dimensions)
    if len(header) != 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"{path}: not an IDX file of bytes with {dimensions} dimensions; fetch it again")
    shape = [int(size) for size in np.frombuffer(header, dtype=">u4", offset=4)]
    size = int(np.prod([*shape, 1], dtype=object))
    if size > _LARGEST:
        raise ValueError(f"{path}: its header announces {size} bytes, above the limit of {_LARGEST}")
    body = file.read(size + 1)
    if len(body) != size:
        kind = "longer" if len(body) > size else "shorter"
        raise ValueError(f"{path}: {kind} than the {size} bytes that its header announces; fetch it again")
    return np.frombuffer(bytearray(body), dtype=np.uint8).reshape(shape)
