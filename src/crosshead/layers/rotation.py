"""Rotary positions as a host brings them: of its tokens, and of landmarks in the middle of cells of their grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..ops.interactive.arguments import Geometry
from ..ops.interactive.naive import cell_spans


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
        first, last = [], []
        for top, bottom in cell_spans(rows, cells[0]):
            for left, right in cell_spans(columns, cells[1]):
                first.append((top + bottom - 1) // 2 * columns + (left + right - 1) // 2)
                last.append((top + bottom) // 2 * columns + (left + right) // 2)
        at, to = (self.angles[..., places, :] for places in (first, last))
        sines, cosines = (at + to).chunk(2, dim=-1)
        length = torch.hypot(sines, cosines).clamp(min=torch.finfo(at.dtype).tiny)
        return replace(self, angles=torch.cat([sines / length, cosines / length], dim=-1))
