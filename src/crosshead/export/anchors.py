"""Anchors, and the boxes that they are moved to, traced without a picture's size in them."""

from typing import Any

import torch
from torch import Tensor


def anchors_of(generator: Any, level: Tensor, i: int) -> Tensor:
    """(h * w * per location, 4) of one level; in torchvision's order."""
    base = generator.generator.cell_anchors[i].to(level)
    stride = generator.strides[i]
    rows = torch.arange(level.shape[-2], dtype=torch.float32)[:, None, None] * stride
    columns = torch.arange(level.shape[-1], dtype=torch.float32)[None, :, None] * stride
    # Sums, not broadcast_tensors: that asks while tracing whether a side is 1.
    everywhere = torch.zeros(level.shape[-2], level.shape[-1], 1)
    rows, columns = rows + everywhere, columns + everywhere
    at = torch.stack([columns, rows, columns, rows], -1)
    return (at + base).reshape(-1, 4)


def moved(anchors: Tensor, deltas: Tensor, coder: Any) -> Tensor:
    """torchvision's ``BoxCoder.decode_single``, of a batch."""
    sides = anchors[..., 2:] - anchors[..., :2]
    centers = anchors[..., :2] + 0.5 * sides
    weights = deltas.new_tensor(coder.weights)
    deltas = deltas / weights
    centers = deltas[..., :2] * sides + centers
    half = 0.5 * (deltas[..., 2:].clamp(max=coder.bbox_xform_clip).exp() * sides)
    return torch.cat([centers - half, centers + half], -1)


def stretched(points: Tensor, distances: Tensor) -> Tensor:
    """torchvision's ``BoxLinearCoder.decode``, of a batch."""
    sides = points[:, 2:] - points[:, :2]
    centers = 0.5 * (points[:, :2] + points[:, 2:])
    distances = distances * torch.cat([sides, sides], -1)
    return torch.cat([centers - distances[..., :2], centers + distances[..., 2:]], -1)
