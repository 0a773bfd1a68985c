"""From the raw outputs of a detector of dense anchors (RetinaNet) to objects, in NumPy, as torchvision does it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosshead.export.about import About
from crosshead.export.answers import sigmoid

_MOST = 100  # objects of a picture, unless more are asked for
Floats = NDArray[np.float32]


def found_objects(
    logits: Floats,
    boxes: Floats,
    seen: tuple[int, int],
    own: tuple[int, int],
    about: About,
    top: int | None,
) -> dict[str, Any]:
    """The objects of one picture, the best first: of each anchor the ``logits`` (N, classes) and the box (N, 4) that it
    was moved to; the (height, width) that the model saw, and the picture's own."""
    settings = about.detector
    assert settings is not None
    kept = []
    for part in _levels(seen, about.multiple, settings["strides"], settings["per_location"]):
        scores = sigmoid(logits[part]).ravel()
        likely = np.flatnonzero(scores > settings["score_threshold"])
        best = likely[np.argsort(-scores[likely], kind="stable")[: settings["candidates"]]]
        anchors, labels = np.divmod(best, logits.shape[1])
        kept.append((boxes[part][anchors], scores[best], labels))
    corners, scores, labels = (np.concatenate(each) for each in zip(*kept, strict=True))
    corners = np.clip(corners, 0, np.asarray([seen[1], seen[0]] * 2, np.float32))
    order = _apart(corners, scores, labels, settings["nms_threshold"])[: settings["max_detections"]]
    shown = np.asarray(settings["shown_threshold"])  # one for all, or one a class
    order = order[scores[order] >= (shown[labels[order]] if shown.ndim else shown)][
        : _MOST if top is None else top
    ]
    corners = np.clip(
        corners[order] * np.asarray([own[1] / seen[1], own[0] / seen[0]] * 2, np.float32),
        0,
        np.asarray([own[1], own[0]] * 2, np.float32),
    )
    return {"size": list(own), "objects": _entries(corners, scores[order], labels[order], about)}


def _levels(seen: tuple[int, int], multiple: int, strides: Sequence[int], per_location: int) -> list[slice]:
    """Which anchors are those of each level."""
    height, width = (side + -side % multiple for side in seen)
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


def _entries(boxes: Floats, scores: Floats, labels: NDArray[np.int64], about: About) -> list[dict[str, Any]]:
    """In the form of COCO's results."""
    assert about.detector is not None
    ids = about.detector["class_ids"]
    objects = []
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
        objects.append(entry if ids is None else entry | {"category_id": ids[label]})
    return objects
