"""The data sets by name. One that is registered is found by the recipes and by every command."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Protocol

from crosshead.data.digits import open_digits
from crosshead.data.fashion_mnist import open_fashion_mnist
from crosshead.data.folder import open_folder
from crosshead.data.sets import Splits
from crosshead.recipe.schema import DataConfig


class Opener(Protocol):
    def __call__(self, data: DataConfig, /, *, seed: int) -> Splits: ...


_OPENERS: dict[str, Opener] = {
    "digits": open_digits,
    "fashion-mnist": open_fashion_mnist,
    "folder": open_folder,
}


def register_dataset(name: str) -> Callable[[Opener], Opener]:
    """Decorator: the function opens the data set ``name``. A name already taken is a ValueError."""

    def register(opener: Opener) -> Opener:
        if name in _OPENERS:
            raise ValueError(f"data set {name!r} is registered already; choose another name")
        _OPENERS[name] = opener
        return opener

    return register


def dataset_names() -> list[str]:
    return sorted(_OPENERS)


def open_splits(data: DataConfig, *, seed: int) -> Splits:
    """The data set that ``data.name`` names; ``seed`` decides only what the data set itself leaves open.

    Raises:
        ValueError: no such data set, or what is at ``data.root`` is not one.
    """
    if data.name not in _OPENERS:
        near = get_close_matches(data.name, dataset_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"data.name: no data set {data.name!r}; {hint}known are {', '.join(dataset_names())}"
        )
    return _OPENERS[data.name](data, seed=seed)
