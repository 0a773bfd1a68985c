"""From a graph's outputs to what a run's task answers, in NumPy; as ``crosshead predict RUN`` prints it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
