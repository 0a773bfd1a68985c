"""Whether a two-stage detector's file finds what the detector finds, object by object."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosshead.export.about import About
from crosshead.export.checks import TOLERANCE, Compared, Images, first_line
from crosshead.libraries import need
from crosshead.models.detectors import RCNN

Run = Callable[[NDArray[Any], Sequence[tuple[int, int]]], Sequence[NDArray[Any]]]
Found = dict[str, Tensor]


def check_options(about: About, varying: Sequence[str], precision: str) -> None:
    """ValueError for what a two-stage detector's file can't have."""
    if "size" in varying:
        raise ValueError(
            "the file of a two-stage detector takes images of one size: its proposals are as many as that has places "
            "for; leave size out (--dynamic batch), or export retinanet or fcos, or backbone and pyramid (--pyramid)"
        )
    if precision != "fp32":
        raise ValueError(
            f"the file of a two-stage detector is fp32: in {precision} its first stage proposes other boxes, which "
            "nothing can be compared with; take fp32, or export backbone and pyramid (--pyramid)"
        )
    if about.input == "pixels":
        raise ValueError("a detector's pictures are padded after they were normalised, outside of the file")


@torch.no_grad()
def compare_found(model: RCNN, run: Run, images: Images, shapes: Sequence[tuple[int, int, int]]) -> Compared:
    """Of the detector and a file that is run by ``run``, on pictures that fill the images and on smaller ones.

    Boxes may be ``TOLERANCE`` of the image's longer side apart, scores and masks that much as they are. An object that
    only one of both has counts among the ties where its score is no more than that from where the detector cuts off,
    or where what only the other has suppresses it, with a score as high; and what only the file has must be what the
    model finds too, were nothing suppressed.

    Raises:
        ValueError: they find something else.
    """
    compared = Compared()
    for batch, height, width in shapes:
        given, seen = images.of(batch, height, width)
        most = images.about.multiple
        for less in ((0, 0), (most // 2, most // 3)) if most > 1 else ((0, 0),):
            size = (height - less[0], width - less[1])
            for each in (given, seen):
                each[:, :, size[0] :] = each[:, :, :, size[1] :] = 0
            try:
                outputs = run(given, [size] * batch)
            except Exception as error:  # ONNX Runtime's exceptions have no class in common
                raise ValueError(
                    f"ONNX Runtime fails on images of {batch} x {height} x {width}: {first_line(error)}"
                ) from None
            for i, (want, *of_one) in enumerate(zip(model(seen, [size] * batch), *outputs, strict=True)):
                _match(model, _found(of_one), want, (seen[i : i + 1], size), compared)
        compared.shapes.append((batch, height, width))
    return compared


def _found(outputs: Sequence[NDArray[Any]]) -> Found:
    there = ~(outputs[1] < 0)
    found = {
        name: torch.from_numpy(each[there])
        for name, each in zip(("boxes", "scores", "labels", "masks"), outputs, strict=False)
    }
    return found | ({"masks": found["masks"][:, None]} if "masks" in found else {})


def _match(
    model: RCNN, got: Found, want: Found, picture: tuple[Tensor, tuple[int, int]], compared: Compared
) -> None:
    side, counts = max(picture[0].shape[-2:]), (len(got["scores"]), len(want["scores"]))
    missing, left = _pairs(_apart(got, want, side), compared)
    compared.objects += counts[1]
    if not missing and not left:
        return
    known = _pairs(_apart(got, _candidates(model, *picture), side), Compared())[1]
    for i in missing:
        if not _at_the_end(model, want["scores"][i], want) and not _suppressed(model, want, i, got, left):
            raise _other(want, i, "the model finds", *counts)
    for j in left:
        fine = _at_the_end(model, got["scores"][j], want) or _suppressed(model, got, j, want, missing)
        if j in known or not fine:
            raise _other(got, j, "the file finds", *counts)
    compared.ties += max(len(missing), len(left))


def _pairs(apart: Tensor, compared: Compared) -> tuple[list[int], list[int]]:
    """Which of (got, want) are no pair: of ``want``, and of ``got``."""
    left, missing = list(range(apart.shape[0])), []
    for i in range(apart.shape[1]):
        near = min(left, key=lambda j: float(apart[j, i]), default=None)
        if near is None or not apart[near, i] <= TOLERANCE["fp32"]:
            missing.append(i)
            continue
        left.remove(near)
        compared.difference = max(compared.difference, float(apart[near, i]))
    return missing, left


def _candidates(model: RCNN, picture: Tensor, size: tuple[int, int]) -> Found:
    """All that the model would find, were nothing suppressed or cut off."""
    heads: Any = model.net.roi_heads
    before = heads.nms_thresh, heads.detections_per_img
    heads.nms_thresh, heads.detections_per_img = 1.0, 2**31
    try:
        (found,) = model(picture, [size])
    finally:
        heads.nms_thresh, heads.detections_per_img = before
    out: Found = found
    return out


def _apart(got: Found, want: Found, side: int) -> Tensor:
    """(got, want): the largest difference of boxes over ``side``, scores and masks; infinite for another class."""
    boxes = (got["boxes"][:, None] - want["boxes"]).abs().amax(-1) / side
    apart = torch.maximum(boxes, (got["scores"][:, None] - want["scores"]).abs())
    if "masks" in want:
        masks = [(got["masks"] - mask).abs().flatten(1).amax(1) for mask in want["masks"]]
        apart = torch.maximum(apart, torch.stack(masks, 1)) if masks else apart
    return apart.where(got["labels"][:, None] == want["labels"], np.inf).nan_to_num(np.inf, np.inf)


def _at_the_end(model: RCNN, score: Tensor, want: Found) -> bool:
    """Whether a score is where the detector cuts off: at its threshold, or at the last of as many as it keeps."""
    heads: Any = model.net.roi_heads
    full = len(want["scores"]) == heads.detections_per_img
    end = float(want["scores"][-1]) if full else heads.score_thresh
    return abs(float(score) - end) <= TOLERANCE["fp32"]


def _suppressed(model: RCNN, found: Found, i: int, others: Found, among: list[int]) -> bool:
    """Whether one of the others suppresses an object: of its class, overlapping, and as good or better."""
    rows = torch.tensor(among, dtype=torch.int64)
    overlap = need("torchvision.ops").box_iou(others["boxes"][rows], found["boxes"][i : i + 1])[:, 0]
    better = others["scores"][rows] >= found["scores"][i] - TOLERANCE["fp32"]
    same = others["labels"][rows] == found["labels"][i]
    return bool((same & better & (overlap > model.nms_threshold)).any())


def _other(found: Found, i: int, who: str, got: int, want: int) -> ValueError:
    box = ", ".join(f"{side:.1f}" for side in found["boxes"][i].tolist())
    return ValueError(
        f"it finds other objects than the model ({got}, the model {want}): one of class {int(found['labels'][i])} at "
        f"{box} that scores {float(found['scores'][i]):.4f} is what only {who}"
    )
