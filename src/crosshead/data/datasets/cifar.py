"""``cifar10`` and ``cifar100`` in torchvision's layout (Krizhevsky, 2009): pickles, read without running any."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crosshead.data.base import ArrayImages, Splits, dataset_info
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root
from crosshead.recipe.schema import DataConfig


@dataclass(frozen=True)
class _Edition:
    folder: str
    train: tuple[str, ...]
    test: str
    names: str  # the file of the class names ...
    names_key: str  # ... and where they are in it
    labels_key: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def layout(self) -> str:
        return f"ROOT/{self.folder}/{{{', '.join((*self.train, self.test, self.names))}}}"


CIFAR10 = _Edition(
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    names="batches.meta",
    names_key="label_names",
    labels_key="labels",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
CIFAR100 = _Edition(
    folder="cifar-100-python",
    train=("train",),
    test="test",
    names="meta",
    names_key="fine_label_names",
    labels_key="fine_labels",
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def open_cifar10(data: DataConfig, *, hold: HoldOut) -> Splits:
    """The validation split is held out of the 50,000; the 10,000 are the test set."""
    return _open(data, CIFAR10, hold)


def open_cifar100(data: DataConfig, *, hold: HoldOut) -> Splits:
    """As :func:`open_cifar10`, with the 100 fine classes."""
    return _open(data, CIFAR100, hold)


def _open(data: DataConfig, edition: _Edition, hold: HoldOut) -> Splits:
    folder = _folder(data_root(data, edition.layout), edition)
    meta = folder / edition.names
    class_names = [_text(name) for name in _get(meta, read_pickle(meta), edition.names_key, list)]
    whole = _part([folder / name for name in edition.train], data, edition, len(class_names))
    test = _part([folder / edition.test], data, edition, len(class_names))
    train, validation = hold.split(whole, data, strata=whole.targets, fixed=True)
    info = dataset_info(data, class_names, edition.mean, edition.std)
    return Splits(train, validation, test, info, held_out=True)


def _folder(root: Path, edition: _Edition) -> Path:
    files = (*edition.train, edition.test, edition.names)
    folder = root if root.name == edition.folder else root / edition.folder
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise ValueError(f"{folder}: {', '.join(missing)} missing; expected {edition.layout}")
    return folder


def _part(files: list[Path], data: DataConfig, edition: _Edition, classes: int) -> ArrayImages:
    pixels, labels = [], []
    for file in files:
        content = read_pickle(file)
        array, own = _get(file, content, "data", np.ndarray), _get(file, content, edition.labels_key, list)
        if array.ndim != 2 or array.shape[1] != 3 * 32 * 32 or len(array) != len(own):
            raise ValueError(
                f"{file}: {array.shape} pixels and {len(own)} labels; expected (N, 3072) and N, so fetch it again"
            )
        if not all(isinstance(label, int) and 0 <= label < classes for label in own):
            raise ValueError(f"{file}: labels that are not classes 0 ... {classes - 1}; fetch it again")
        pixels.append(array)
        labels += own
    images = torch.from_numpy(np.concatenate(pixels)).view(-1, 3, 32, 32)
    return ArrayImages(images, np.array(labels, dtype=np.int64), f"{data.name}/{files[0].name.split('_')[0]}")


def _get(file: Path, content: dict[Any, Any], wanted: str, kind: type) -> Any:
    value = next((value for key, value in content.items() if _text(key) == wanted), None)
    if not isinstance(value, kind):
        raise ValueError(f"{file}: no {wanted!r} in it; it is another file, or another edition of CIFAR")
    return value


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def read_pickle(file: Path) -> dict[Any, Any]:
    """A pickled dictionary of plain values and byte arrays. Nothing that the file names is imported or called.

    Raises:
        ValueError: the file is damaged, is no dictionary, or asks for anything else.
    """
    try:
        with open(file, "rb") as stream:
            content = _PlainUnpickler(stream, encoding="bytes").load()
    except Exception as error:  # a damaged pickle fails in every way there is
        raise ValueError(f"{file}: not one of CIFAR's files, or damaged ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}, expected a dictionary")
    return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}


class _Dtype:
    """Stands in for ``numpy.dtype``: bytes are the only kind."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if _text(kind) != "u1":
            raise ValueError(f"arrays of {_text(kind)!r}, expected bytes")

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which bytes don't have."""


class _Array:
    """Stands in for ``numpy.ndarray``, whose own unpickling trusts sizes and types that the file gives."""

    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, raw = state
        if not isinstance(dtype, _Dtype) or by_columns:
            raise ValueError("an array that is not one of bytes, row by row")
        raw = raw if isinstance(raw, bytes) else raw.encode("latin1")
        self.array = np.frombuffer(bytearray(raw), dtype=np.uint8).reshape(shape)


def _new_array(*_: Any) -> _Array:
    return _Array()


def _encode(text: str, *_: Any) -> bytes:
    return text.encode("latin1")  # how Python 3 writes bytes into the older pickle formats


class _PlainUnpickler(pickle.Unpickler):
    _ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _new_array,
        ("numpy._core.multiarray", "_reconstruct"): _new_array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise ValueError(f"it asks for {module}.{name}, which no file of CIFAR does: it may be hostile")
        return self._ALLOWED[module, name]
