"""What the loaders hand on: images, their targets, and where each came from."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor


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
