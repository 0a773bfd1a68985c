"""From a graph's outputs to what a run's task answers, in NumPy, as ``crosshead predict RUN`` prints it: classes, the
class of each pixel, or objects."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosshead.data.coco.rle import encode, to_coco
from crosshead.export.about import About

USUAL = 5  # classes that an answer names unless another number is asked for
NOT_FINITE = "what the model says of it is not finite: its weights or the picture's numbers are damaged"
Floats = NDArray[np.float32]


def softmax(logits: Floats) -> Floats:
    """Along the last axis."""
    powers: Floats = np.exp(logits - logits.max(-1, keepdims=True))
    out: Floats = powers / powers.sum(-1, keepdims=True)
    return out


def sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):  # of very negative ones the power is infinite, and the answer 0
        out: Floats = np.float32(1) / (np.float32(1) + np.exp(-logits))
    return out


def labelled(outputs: Floats, about: About, top: int | None) -> list[dict[str, Any]]:
    """Of outputs (B, N): the most probable classes, or a number where that is the task."""
    if about.answers == "number":
        assert about.scale is not None
        mean, std = about.scale
        values = outputs[:, 0].astype(np.float64) * std + mean
        return [{"value": value} for value in values.tolist()]
    if about.outputs == "logits":
        outputs = sigmoid(outputs) if about.answers == "labels" else softmax(outputs)
    return [{"predictions": _best(row, about, top or USUAL)} for row in outputs]


def _best(row: Floats, about: About, top: int) -> list[dict[str, Any]]:
    found = []
    for index in np.argsort(-row, kind="stable")[:top].tolist():
        name = about.classes[index] if about.classes else str(index)
        entry: dict[str, Any] = {"class": name, "index": index, "probability": round(float(row[index]), 6)}
        if about.answers == "labels":
            entry["given"] = bool(row[index] > 0.5)
        found.append(entry)
    return found


def lines(answer: dict[str, Any], threshold: float = 0.0) -> list[str]:
    """An answer as a person reads it."""
    if "value" in answer:
        return [f"{answer['value']:.6g}"]
    if "segments" in answer:
        return [f"{each['share']:7.2%}  {each['class']}" for each in answer["segments"]]
    if "objects" in answer:
        found = [
            f"{each['score']:7.2%}  {each['class']}  at {', '.join(f'{side:.0f}' for side in each['bbox'])}"
            for each in answer["objects"]
        ]
        return found or [f"nothing that scores {threshold:g} or more"]
    return [
        f"{each['probability']:7.2%}  {each['class']}{'' if each.get('given', True) else '  (not given)'}"
        for each in answer["predictions"]
    ]


_AT_ONCE = 8  # classes at full size


def segmented(logits: Floats, seen: tuple[int, int], own: tuple[int, int], about: About) -> dict[str, Any]:
    """The segments of one picture, the largest first: ``logits`` (classes, h, w), the (height, width) that the model
    saw, and the picture's own."""
    classes = classes_at(logits, about.stride or 1, seen, own)
    numbers, counts = np.unique(classes, return_counts=True)
    segments = [
        {
            "class": about.classes[number],
            "index": number,
            "pixels": count,
            "share": round(count / classes.size, 6),
            "segmentation": to_coco(encode(classes == number)),
        }
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    ]
    segments.sort(key=lambda segment: -segment["pixels"])
    return {"size": list(own), "segments": segments}


def classes_at(logits: Floats, stride: int, seen: tuple[int, int], own: tuple[int, int]) -> NDArray[np.int64]:
    """The most likely class of each pixel, (height, width) of ``own``."""
    best = np.full(own, -np.inf, np.float32)
    chosen = np.zeros(own, np.int64)
    for first in range(0, len(logits), _AT_ONCE):
        grown = bilinear(
            logits[first : first + _AT_ONCE], (logits.shape[1] * stride, logits.shape[2] * stride)
        )[:, : seen[0], : seen[1]]
        grown = grown if seen == own else bilinear(grown, own)
        values = grown.max(0)
        better = values > best
        chosen = np.where(better, grown.argmax(0) + first, chosen)
        best = np.where(better, values, best)
    return chosen


def bilinear(maps: Floats, size: tuple[int, int]) -> Floats:
    """Maps (C, h, w) -> (C, *size), as PyTorch's ``interpolate`` without aligned corners."""
    (top, below, low), (left, right, near) = (
        _places(old, new) for old, new in zip(maps.shape[1:], size, strict=True)
    )
    one = np.float32(1)
    rows = maps[:, top] * (one - low)[:, None] + maps[:, below] * low[:, None]
    out: Floats = rows[:, :, left] * (one - near) + rows[:, :, right] * near
    return out


def _places(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Of each new place the two old ones it lies between, and the share of the second."""
    at = np.maximum(
        (np.arange(new).astype(np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5), 0
    )
    first = np.minimum(at.astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), (at - first).astype(np.float32)
