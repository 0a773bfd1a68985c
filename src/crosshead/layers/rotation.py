"""Rotary positions as a host brings them: of its tokens, and of landmarks in the middle of cells of their grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..ops.interactive.arguments import Geometry


@dataclass(frozen=True)
class Rotation:
    """The rotation of queries or keys (B, h, N, d) behind the prefix tokens.

    Args:
        turn: what turns tokens (B, h, N, d) by angles.
        angles: (..., N, 2·w), the sines of all channels and then their cosines, as timm has them.
        prefix: tokens that come first and are not turned.
    """

    turn: Callable[[Tensor, Tensor], Tensor]
    angles: Tensor
    prefix: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        prefix = self.prefix
        return torch.cat([x[:, :, :prefix], self.turn(x[:, :, prefix:], self.angles)], dim=2)

    def of_landmarks(self, geometry: Geometry) -> Rotation:
        """That of landmarks: each as a token in the middle of its cell.

        Angles grow evenly along rows and columns, so the middle's lies halfway between those of the two tokens around
        it, along the shorter way: one turns less than half a circle from a token to the next.
        """
        (rows, columns), cells, _ = geometry
        down, across = (
            _middles(length, count, self.angles.device)
            for length, count in zip((rows, columns), cells, strict=True)
        )
        at, to = (
            self.angles[..., (row[:, None] * columns + column).flatten(), :]
            for row, column in zip(down, across, strict=True)
        )
        sines, cosines = (at + to).chunk(2, dim=-1)
        # Not torch.hypot, for which ONNX has nothing.
        length = (sines.square() + cosines.square()).sqrt().clamp(min=torch.finfo(at.dtype).tiny)
        return replace(self, angles=torch.cat([sines / length, cosines / length], dim=-1))


def _middles(length: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of ``cells`` cells of a side (``cell_spans``) the places on either side of the middle; as tensors, so that an
    exported graph finds them for a side of any length."""
    numbers = torch.arange(cells, device=device)
    first = numbers * length // cells
    last = ((numbers + 1) * length + cells - 1) // cells - 1
    middle = first + last
    return middle // 2, (middle + 1) // 2
