"""What validation pictures choose for using a model: a temperature, a threshold of two classes, scores of objects."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosshead.files import read_json
from crosshead.formats import numbered, read_numbered
from crosshead.tasks.metrics import metric_named
from crosshead.train.files import replace_file

CHOICES_FILE = "judging.json"
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Choices:
    """As keys of ``task`` take them; None of what the task doesn't have. ``step`` are the weights that they are for."""

    step: int | None = None
    temperature: float | None = None
    threshold: float | None = None
    score_threshold: dict[str, float] | None = None

    def values(self) -> dict[str, Any]:
        """By key: ``task.temperature`` and its like."""
        return {
            f"task.{key}": value for key, value in asdict(self).items() if key != "step" and value is not None
        }

    def save(self, folder: Path) -> None:
        content = {key: value for key, value in asdict(self).items() if value is not None}
        replace_file(folder / CHOICES_FILE, (json.dumps(numbered(content), indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> "Choices":
        """ValueError where there are none, or they are damaged."""
        file = folder / CHOICES_FILE
        try:
            content = read_numbered(read_json(file), file)
            return cls(**{key: content.get(key) for key in cls.__dataclass_fields__})
        except FileNotFoundError:
            raise ValueError(
                f"{folder} has no {CHOICES_FILE}: nothing was chosen for this run so far (crosshead judge {folder})"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"{file} is damaged ({error}); crosshead judge {folder} writes it anew"
            ) from None


def fit_temperature(log_probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """The temperature T by which logits (N, classes) are divided so that their cross entropy is the least (Guo et al.,
    arXiv 1706.04599, section 4.2). It moves no class before another: accuracy stays. Logs of probabilities serve as
    logits do. Within 0.05 to 20."""
    from scipy.optimize import minimize_scalar

    def cross_entropy(log_t: float) -> float:
        return float(
            -cooled(log_probabilities, float(np.exp(log_t)))[np.arange(len(targets)), targets].mean()
        )

    found = minimize_scalar(
        cross_entropy, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded", options={"xatol": 1e-5}
    )
    return float(np.exp(found.x))


def cooled(log_probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Logs of the probabilities (N, classes) at another temperature."""
    from scipy.special import log_softmax

    out: NDArray[np.float64] = log_softmax(log_probabilities / temperature, axis=1)
    return out


def best_threshold(scores: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    """Of the second class's probabilities (N,): from which on it is to be said so that the two recalls' mean, balanced
    accuracy, is the highest (Youden 1950); half way between two neighbouring scores.

    Raises:
        ValueError: a class has no picture.
    """
    if there.all() or not there.any():
        raise ValueError("a threshold can't be chosen: one of the two classes has no picture to choose it by")
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order], there[order]
    recall = np.cumsum(hits) / hits.sum()
    false = np.cumsum(~hits) / (~hits).sum()
    last = np.append(np.diff(falling) != 0, True)  # equal scores are said together
    place = int(np.argmax(np.where(last, recall - false, -np.inf)))
    below = falling[place + 1] if place + 1 < len(falling) else 0.0
    return float((falling[place] + below) / 2)


def told(name: str, value: float) -> str:
    """A metric's number as people read it."""
    return metric_named(name).text(value)
