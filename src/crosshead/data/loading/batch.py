"""What the loaders hand on: images, their targets, and where each came from."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One step's worth of data.

    ``images`` (B, C, H, W) float; ``targets`` (B,) class indices or (B, classes) probabilities after mixing;
    ``index`` (B,) each image's place in its data set; ``names`` what to call each one in a message;
    ``skipped`` (name, reason) of the images that could not be read and are not in the batch.
    """

    images: Tensor
    targets: Tensor
    index: Tensor
    names: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = field(default=())

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(
        self, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format
    ) -> "Batch":
        """The same batch with its tensors on ``device``."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True, memory_format=memory_format),
            targets=self.targets.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from where copies to a GPU need not wait; for the loaders."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())
