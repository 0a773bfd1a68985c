"""From a detector's graph's outputs to the objects of a picture, in NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosshead.data.coco.rle import encode_within, to_coco
from crosshead.export.about import About
from crosshead.export.answers import Floats, bilinear, sigmoid

_MOST = 100  # objects of a picture, unless more are asked for
_MASK = 0.5  # probability from which on a pixel is the object's


def found_objects(
    outputs: Sequence[Floats],
    given: tuple[int, int],
    seen: tuple[int, int],
    own: tuple[int, int],
    about: About,
    top: int | None,
) -> dict[str, Any]:
    """The objects of one picture, the best first, in pixels of its ``own`` (height, width); see ``kept``."""
    assert about.detector is not None
    corners, scores, labels, *within = kept(outputs, given, seen, about)
    shown = np.asarray(about.detector["shown_threshold"])  # one for all, or one a class
    order = np.flatnonzero(scores >= (shown[labels] if shown.ndim else shown))[
        : _MOST if top is None else top
    ]
    corners = np.clip(
        corners[order] * np.asarray([own[1] / seen[1], own[0] / seen[0]] * 2, np.float32),
        0,
        np.asarray([own[1], own[0]] * 2, np.float32),
    )
    masks = [masks_of(each[order], corners, own) for each in within]
    return {"size": list(own), "objects": _entries(corners, scores[order], labels[order], about, *masks)}


def kept(
    outputs: Sequence[NDArray[Any]], given: tuple[int, int], seen: tuple[int, int], about: About
) -> tuple[NDArray[Any], ...]:
    """Boxes (n, 4), scores (n,) and labels (n,) of one picture, the best first, as the detector itself keeps them; and
    of Mask R-CNN the probabilities (n, 28, 28) within the boxes. Of two stages the graph has kept them, and marks empty
    places by a score of -1."""
    assert about.detector is not None
    if "strides" in about.detector:
        return kept_boxes(outputs, given, seen, about)
    there = outputs[1] >= 0
    return tuple(each[there] for each in outputs)


def kept_boxes(
    outputs: Sequence[Floats], given: tuple[int, int], seen: tuple[int, int], about: About
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Boxes (n, 4), scores (n,) and labels (n,) of one picture, the best first, as the detector itself keeps them.

    ``outputs``: of each anchor the logits (N, classes), the box (N, 4) that it was moved to, and of FCOS the logit
    (N, 1) of its centerness. ``given`` and ``seen`` are the (height, width) of what the graph took, and of the picture
    in its top left corner.
    """
    settings = about.detector
    assert settings is not None
    logits, boxes, *centerness = outputs
    kept = []
    for part in _levels(given, settings["strides"], settings["per_location"]):
        scores = sigmoid(logits[part])
        if centerness:
            scores = np.sqrt(scores * sigmoid(centerness[0][part]))
        scores = scores.ravel()
        likely = np.flatnonzero(scores > settings["score_threshold"])
        best = likely[np.argsort(-scores[likely], kind="stable")[: settings["candidates"]]]
        anchors, labels = np.divmod(best, logits.shape[1])
        kept.append((boxes[part][anchors], scores[best], labels))
    corners, scores, labels = (np.concatenate(each) for each in zip(*kept, strict=True))
    corners = np.clip(corners, 0, np.asarray([seen[1], seen[0]] * 2, np.float32))
    order = _apart(corners, scores, labels, settings["nms_threshold"])[: settings["max_detections"]]
    return corners[order], scores[order], labels[order]


def _levels(given: tuple[int, int], strides: Sequence[int], per_location: int) -> list[slice]:
    """Which anchors are those of each level."""
    height, width = given
    counts = [per_location * -(-height // stride) * -(-width // stride) for stride in strides]
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


def _apart(boxes: Floats, scores: Floats, labels: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Which boxes stay, the best first, when of two of a class that overlap by more than ``threshold`` the better one
    alone does."""
    left = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        low = np.maximum(boxes[first, :2], boxes[left, :2])
        high = np.minimum(boxes[first, 2:], boxes[left, 2:])
        shared = np.maximum(high - low, 0).prod(1)
        with np.errstate(invalid="ignore"):  # two boxes without an area
            overlap = shared / (area[first] + area[left] - shared)
        left = left[(labels[left] != labels[first]) | ~(overlap > threshold)]
    return np.asarray(kept, np.int64)


def masks_of(probabilities: Floats, boxes: Floats, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Probabilities within boxes (n, m, m), and the boxes (n, 4) -> masks of ``size`` (height, width), in COCO's form.

    torchvision's ``paste_masks_in_image``, but each mask in no more room than its box.
    """
    grown = np.pad(probabilities, ((0, 0), (1, 1), (1, 1)))
    scale = np.float32(grown.shape[-1] / probabilities.shape[-1])
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * scale
    center = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    around = np.concatenate([center - half, center + half], 1).astype(np.int64)
    found = []
    for mask, (left, top, right, bottom) in zip(grown, around.tolist(), strict=True):
        x, y = max(left, 0), max(top, 0)
        wide, high = min(right + 1, size[1]) - x, min(bottom + 1, size[0]) - y
        piece = np.zeros((0, 0), bool)
        if wide > 0 and high > 0:
            full = bilinear(mask[None], (max(bottom - top + 1, 1), max(right - left + 1, 1)))[0]
            piece = full[y - top :, x - left :][:high, :wide] >= _MASK
        found.append(to_coco(encode_within(piece, (y, x), size)))
    return found


def _entries(
    boxes: Floats,
    scores: Floats,
    labels: NDArray[np.int64],
    about: About,
    masks: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """In the form of COCO's results."""
    assert about.detector is not None
    ids = about.detector["class_ids"]
    objects: list[dict[str, Any]] = []
    for box, score, label in zip(
        boxes.astype(np.float64).tolist(), scores.tolist(), labels.tolist(), strict=True
    ):
        x1, y1, x2, y2 = box
        entry: dict[str, Any] = {
            "class": about.classes[label],
            "index": label,
            "score": round(score, 6),
            "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
        }
        if ids is not None:
            entry["category_id"] = ids[label]
        if masks is not None:
            entry["segmentation"] = masks[len(objects)]
        objects.append(entry)
    return objects
