"""Sets of labelled pictures: what every data set looks like to the loaders, and how one is split."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import BrokenImage, decode_image, display_name, read_file
from crosshead.data.random import Indices
from crosshead.files import printable
from crosshead.recipe.schema import DataConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

IGNORED = 255  # in a map of classes: the pixel has none
BrokenPolicy = Literal["on_broken_train", "on_broken_eval"]


class ImageSet(ABC):
    """Pictures by number. What must be there is abstract; all else has a default, and is asked of every set alike."""

    counted: ClassVar[Literal["images", "pixels", "objects"]] = "images"
    """What has a class: a picture, its pixels (``SegmentationDataset``), or objects in it (``ObjectDataset``)."""

    stored: ClassVar[bool] = False
    """Whether pictures are decoded, from what ``source`` and ``encoded`` give."""

    generated: ClassVar[bool] = False
    """Whether pictures, and what there is to learn of them, are made when asked for, in ``data.image_size``."""

    targets: Sequence[Any]
    """What the task wants to know of each picture: its class; where its map is."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, i: int) -> Image.Image:
        """Picture ``i``: mode ``L`` or ``RGB``, or ``Bands``, see ``decode_image``. Raises ``BrokenImage``."""

    @abstractmethod
    def name(self, i: int) -> str:
        """What to call picture ``i`` in a message: its path, for files."""

    @abstractmethod
    def subset(self, indices: Indices) -> Self:
        """The pictures of ``indices``, in that order."""

    def source(self, i: int) -> str | bytes:
        """What picture ``i`` is decoded from: a path, or the bytes of one. Raises ``BrokenImage``."""
        raise NotImplementedError(f"{type(self).__name__}.stored says that nothing is decoded")

    def encoded(self, i: int) -> tuple[bytes, ...]:
        """The bytes of picture ``i`` as they are kept, and of what belongs to it: its map; or its objects as a COCO
        file of their own, without the categories. Raises ``BrokenImage``."""
        raise NotImplementedError(f"{type(self).__name__}.stored says that nothing is decoded")

    @property
    def known_faults(self) -> list[tuple[str, str]]:
        """(name, reason) of every picture of which it is known without reading it that it is broken."""
        return []

    def precheck(self) -> None:  # noqa: B027  # most sets have nothing to look at
        """An error where a look at a few of what belongs to the pictures shows that none can be learned from."""

    def digest(self) -> str | None:
        """Of what is to be learned of the pictures, to tell whether it has changed, where ``targets`` don't tell."""
        return None


class ArrayImages(ImageSet):
    """Pictures of one size in memory: ``pixels`` (N, C, H, W) uint8, C 1 or 3; ``targets`` (N,).

    ``ids`` (N,) are the numbers under which messages name them, where they are not 0 ... N − 1.
    """

    def __init__(self, pixels: Tensor, targets: Indices, title: str, ids: Indices | None = None) -> None:
        assert pixels.dtype == torch.uint8 and pixels.ndim == 4 and pixels.shape[1] in (1, 3)
        assert len(pixels) == len(targets)
        self.pixels, self.title = pixels, title
        self.targets = targets.tolist()
        self.ids = np.arange(len(targets)) if ids is None else ids

    def __len__(self) -> int:
        return len(self.targets)

    def load(self, i: int) -> Image.Image:
        channels_last = self.pixels[i].permute(1, 2, 0).contiguous().numpy()
        return Image.fromarray(channels_last[..., 0] if channels_last.shape[-1] == 1 else channels_last)

    def name(self, i: int) -> str:
        return f"{self.title}[{self.ids[i]}]"

    def subset(self, indices: Indices) -> Self:
        targets = np.asarray(self.targets, dtype=np.int64)[indices]
        return type(self)(self.pixels[torch.from_numpy(indices)], targets, self.title, self.ids[indices])


class FileImages(ImageSet):
    """Pictures in files, decoded when asked for. ``refused`` holds the reason for paths not to be opened."""

    stored = True

    def __init__(
        self,
        paths: Sequence[Path | str],
        targets: Sequence[Any],
        decoding: Decoding,
        refused: dict[str, str] | None = None,
    ) -> None:
        assert len(paths) == len(targets)
        self.paths = [str(path) for path in paths]
        # A class's number as Python's own; lists of labels, measured numbers and maps' paths as they are.
        self.targets = [
            target if isinstance(target, list | float | str) else int(target) for target in targets
        ]
        self.decoding, self.refused = decoding, refused or {}

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, i: int) -> Image.Image:
        self._check(i)
        return decode_image(self.paths[i], decoding=self.decoding)

    def source(self, i: int) -> str:
        self._check(i)
        return self.paths[i]

    def encoded(self, i: int) -> tuple[bytes, ...]:
        self._check(i)
        return (read_file(self.paths[i]),)

    def _check(self, i: int) -> None:
        if (reason := self.refused.get(self.paths[i])) is not None:
            raise BrokenImage(self.name(i), reason)

    def name(self, i: int) -> str:
        return display_name(self.paths[i])

    def subset(self, indices: Indices) -> Self:
        part = copy(self)
        part.paths, part.targets = [self.paths[i] for i in indices], [self.targets[i] for i in indices]
        return part


@dataclass(frozen=True)
class DatasetInfo:
    """``class_names`` by class index; ``mean`` and ``std`` of pixels in 0 ... 1, one a channel. ``scale`` is the mean
    and standard deviation of the training set's numbers, where its pictures have numbers. ``class_ids`` are the numbers
    by which the data's own files name the classes, where they don't count from 0."""

    name: str
    class_names: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: tuple[float, float] | None = None
    class_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Splits:
    """``test`` is None for data that have none: then nothing is left that selection has not seen.

    ``held_out`` says that the validation split was taken out of the training set, for want of one of its own.
    ``origins`` says of each split where it is from, ``notes`` what a reader of the data should know, and
    ``passed_over`` which files lie among the pictures and are not read, and why. ``resolved`` are keys of ``data`` that
    a look at training pictures decided, ``seen`` says what else it showed, and ``data`` are all keys, as decided.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet | None
    info: DatasetInfo
    held_out: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()
    resolved: Mapping[str, Any] = field(default_factory=dict)
    data: DataConfig | None = None
    seen: tuple[str, ...] = ()

    def parts(self) -> dict[str, ImageSet]:
        """The splits that are there, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in parts.items() if images is not None}

    def part(self, split: str) -> ImageSet:
        """The split of that name. Raises ValueError where there is none."""
        if (images := self.parts().get(split)) is None:
            raise ValueError(
                f"{self.info.name} has no split {split!r}; there are train, validation and, in some, test"
            )
        return images

    def origin(self, split: str) -> str:
        """Where the pictures of ``split`` are from."""
        held = split == "validation" and self.held_out
        return self.origins.get(
            split, "held out of the training pictures" if held else f"the data set {self.info.name}"
        )

    def broken_policy(self, split: str) -> BrokenPolicy:
        """The key of ``data`` that says what a broken picture of ``split`` does. Training pictures are held to the
        training set's, in the part that is held out too: nobody has chosen them for an evaluation."""
        training = split == "train" or (split == "validation" and self.held_out)
        return "on_broken_train" if training else "on_broken_eval"

    def refuse_known_faults(self, data: DataConfig) -> None:
        """``BrokenImage`` where a split holds what its policy does not pass over, as far as that is known without
        reading pictures: training would end there hours later. Of maps some are read, which tell whether the list of
        classes is theirs (``BeyondClasses``)."""
        for split, images in self.parts().items():
            images.precheck()
            faults = images.known_faults
            policy = self.broken_policy(split)
            if faults and getattr(data, policy) == "fail":
                name, reason = faults[0]
                more = f" (and {len(faults) - 1} more of {split})" if len(faults) > 1 else ""
                remedy = f"mend or remove it (crosshead data check lists all), or set data.{policy}=skip"
                raise BrokenImage(name, reason + more, remedy)


def dataset_info(
    data: DataConfig,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    class_ids: Sequence[int] | None = None,
) -> DatasetInfo:
    """The data set's own statistics brought to ``data.channels``, unless the recipe gives others."""
    own_mean, own_std = dataset_statistics(data, mean, std)
    ids = None if class_ids is None else tuple(class_ids)
    return DatasetInfo(
        data.name, tuple(map(printable, class_names)), data.channels, own_mean, own_std, class_ids=ids
    )


def dataset_statistics(
    data: DataConfig, mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """``mean`` and ``std`` brought to ``data.channels``, or what the recipe says in their place."""
    channels = data.channels
    return _statistic(data.mean, mean, channels, "mean"), _statistic(data.std, std, channels, "std")


def _statistic(
    given: list[float] | None, own: Sequence[float], channels: int, what: str
) -> tuple[float, ...]:
    if given is not None:
        if len(given) != channels:
            raise ValueError(
                f"data.{what} has {len(given)} numbers and data.channels is {channels}: give one a channel"
            )
        if what == "std" and min(given) <= 0:
            raise ValueError(f"data.std is {given}: every standard deviation must be above 0")
        return tuple(given)
    if len(own) == channels:
        return tuple(own)
    return (sum(own) / len(own),) * channels


@dataclass(frozen=True)
class Batch:
    """One step's worth of data.

    ``images`` is (B, C, H, W) float, or a list of B images (C, H, W) where they differ in size; ``targets`` is the
    task's: a tensor, or any lists and dicts of tensors. ``index`` (B,) is each image's place in its data set;
    ``names`` what to call each one in a message; ``skipped`` (name, reason) of the images that could not be read and
    are not in the batch.
    """

    images: Any
    targets: Any
    index: Tensor
    names: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = field(default=())

    def __len__(self) -> int:
        return len(self.images)

    def to(
        self, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format
    ) -> "Batch":
        """The same batch with its tensors on ``device``; stacked images in ``memory_format``."""
        move = partial(Tensor.to, device=device, non_blocking=True)
        stacked = partial(move, memory_format=memory_format) if isinstance(self.images, Tensor) else move
        return replace(
            self, images=each_tensor(self.images, stacked), targets=each_tensor(self.targets, move)
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from where copies to a GPU need not wait; for the loaders."""
        images, targets = (each_tensor(part, Tensor.pin_memory) for part in (self.images, self.targets))
        return replace(self, images=images, targets=targets)


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with every tensor in its lists, tuples and dicts changed; all else as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(each_tensor(item, change) for item in value)
    if isinstance(value, dict):
        return {name: each_tensor(item, change) for name, item in value.items()}
    return value
