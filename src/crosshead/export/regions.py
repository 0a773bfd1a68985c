"""What of two-stage detectors depends on the picture in its number, as operators whose shapes do not: which boxes a
suppression keeps, and regions read from the level of the pyramid that is theirs. In ONNX they are ``NonMaxSuppression``
and ``RoiAlign`` of as many boxes as there are."""

from typing import Any

import torch
from torch import Tensor

from crosshead.libraries import need

_ALL = 2**63 - 1


@torch.library.custom_op("crosshead::kept_apart", mutates_args=())
def kept_apart(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Of each of G groups of boxes (G, N, 4) with scores (G, N), which ones stay (G, N) when of two that overlap by
    more than ``threshold`` the better one does; a score below 0 is of no box, and does not stay."""
    nms = need("torchvision.ops").nms
    out = torch.zeros_like(scores, dtype=torch.bool)
    for its, scored, kept in zip(boxes, scores, out, strict=True):
        there = torch.where(scored >= 0)[0]
        kept[there[nms(its[there], scored[there], threshold)]] = True
    return out


@kept_apart.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


@torch.library.custom_op("crosshead::read_level", mutates_args=())
def read_level(
    into: Tensor, level: Tensor, regions: Tensor, here: Tensor, scale: float, sampling_ratio: int
) -> Tensor:
    """``into`` (R, C, side, side) with what is read from ``level`` (B, C, h, w) for those of the ``regions``
    (R, 5: image, x1, y1, x2, y2) that ``here`` (R,) says."""
    roi_align = need("torchvision.ops").roi_align
    found = roi_align(level, regions[here], into.shape[-1], scale, sampling_ratio)
    out = into.clone()
    out[here] = found
    return out


@read_level.register_fake
def _(
    into: Tensor, level: Tensor, regions: Tensor, here: Tensor, scale: float, sampling_ratio: int
) -> Tensor:
    return torch.empty_like(into)


def translations() -> dict[Any, Any]:
    """For ``torch.onnx.export``'s ``custom_translation_table``."""
    from onnx import TensorProto
    from onnxscript import opset18

    op: Any = opset18

    def kept(boxes: Any, scores: Any, threshold: float) -> Any:
        apart = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[_ALL]),
            op.Constant(value_floats=[threshold]),
            op.Constant(value_floats=[-0.5]),
        )
        places = op.Gather(apart, op.Constant(value_ints=[0, 2]), axis=1)  # group, class (one alone), box
        ones = op.Expand(op.Constant(value_float=1.0), op.Shape(places, start=0, end=1))
        none = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
        return op.Cast(op.ScatterND(none, places, ones), to=TensorProto.BOOL)

    def read(into: Any, level: Any, regions: Any, here: Any, scale: float, sampling_ratio: int) -> Any:
        places = op.Transpose(op.NonZero(here), perm=[1, 0])
        some = op.GatherND(regions, places)
        found = op.RoiAlign(
            level,
            op.Gather(some, op.Constant(value_ints=[1, 2, 3, 4]), axis=1),
            op.Cast(op.Gather(some, op.Constant(value_int=0), axis=1), to=TensorProto.INT64),
            coordinate_transformation_mode="output_half_pixel",
            output_height=into.shape[-1],
            output_width=into.shape[-1],
            sampling_ratio=max(sampling_ratio, 0),
            spatial_scale=scale,
        )
        return op.ScatterND(into, places, found)

    ops = torch.ops.crosshead
    return {ops.kept_apart.default: kept, ops.read_level.default: read}
