"""Which findings are right: matching them to what is there, and what follows for thresholds and for mistakes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from crosshead.data.coco.instances import Objects
from crosshead.tasks.coco_numbers import MOST, Predictions

USUAL_SCORE = 0.3  # the default of task.score_threshold
IOU = 0.5  # of the boxes, from which on a finding is of an object
NEITHER = -1  # a finding of a crowd: neither right nor wrong


@dataclass(frozen=True)
class Curve:
    """Of one class over all pictures: what keeping all that scores ``scores[i]`` (K,) or more comes to; falling, one
    entry for each different score. ``objects`` is how many there are.
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    objects: int

    @property
    def f1(self) -> NDArray[np.float64]:
        both = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, both, out=np.zeros_like(both), where=both > 0)

    @property
    def best(self) -> tuple[float, float]:
        """(threshold, F1) where F1 is the highest: half way to the next lower score, so that nothing hangs on the last
        digit. (1, 0) where nothing was found right."""
        if not len(self.scores) or not self.f1.any():
            return 1.0, 0.0
        place = int(np.argmax(self.f1))
        below = self.scores[place + 1] if place + 1 < len(self.scores) else 0.0
        return float((self.scores[place] + below) / 2), float(self.f1[place])


def overlaps(a: NDArray[np.float64], b: NDArray[np.float64], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, m): intersection over union of boxes ``a`` (n, 4) and ``b`` (m, 4); of those of ``b`` that are crowds over
    the box of ``a`` alone, as COCO's are."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    of_a, of_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    whole = np.where(crowd[None], of_a[:, None], of_a[:, None] + of_b[None] - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def match(
    truth: Objects, found: Predictions, most: int = MOST
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each finding (n,) 1 where it is right, 0 where it is wrong, ``NEITHER`` where it is not judged: of a crowd, or
    beyond the ``most`` of its class. And which object it is of, -1 for none.

    As COCO does at an IoU of .5: class by class, in falling order of scores, each with the object that it overlaps most
    of those that no other has.
    """
    verdict = np.zeros(len(found.labels), np.int64)
    partner = np.full(len(found.labels), -1, np.int64)
    iou = overlaps(found.boxes, truth.boxes, truth.crowd)
    order = np.argsort(-found.scores, kind="stable")
    for label in np.unique(found.labels):
        own = order[found.labels[order] == label]
        verdict[own[most:]] = NEITHER
        free = (truth.labels == label) & ~truth.crowd
        crowds = (truth.labels == label) & truth.crowd
        for i in own[:most]:
            open_to = np.where(free, iou[i], 0.0)
            best = int(np.argmax(open_to)) if len(open_to) else 0
            if len(open_to) and open_to[best] >= IOU:
                verdict[i], partner[i], free[best] = 1, best, False
            elif (iou[i][crowds] >= IOU).any():
                verdict[i] = NEITHER
    return verdict, partner


def curves(
    truth: Sequence[Objects], found: Sequence[Predictions], classes: int, most: int = MOST
) -> list[Curve]:
    """Precision and recall of each class, at an IoU of .5."""
    verdicts = [match(there, said, most)[0] for there, said in zip(truth, found, strict=True)]
    nothing = np.zeros(0)
    verdict = np.concatenate([nothing, *verdicts])
    labels = np.concatenate([nothing, *(said.labels for said in found)])
    scores = np.concatenate([nothing, *(said.scores for said in found)]).astype(np.float64)
    there = np.concatenate([nothing, *(each.labels[~each.crowd] for each in truth)])
    return [
        _curve(scores[mine], verdict[mine] == 1, int(np.count_nonzero(there == k)))
        for k in range(classes)
        for mine in [(labels == k) & (verdict != NEITHER)]
    ]


def _curve(scores: NDArray[np.float64], right: NDArray[np.bool_], objects: int) -> Curve:
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if len(scores) else np.zeros(0, np.int64)
    precision = hits[last] / (last + 1)
    recall = hits[last] / objects if objects else np.zeros(len(last))
    return Curve(scores[last], precision, recall, objects)


def confusion(
    truth: Objects, found: Predictions, thresholds: Sequence[float], most: int = MOST
) -> NDArray[np.int64]:
    """(classes + 1, classes + 1): a row a class that is there, the last one for nothing; a column a class that was
    said, the last one for nothing. The last column counts what was missed, the last row what was invented.

    Findings that score their class's threshold or more are matched within their class first, then what is left over, of
    whatever class, by falling overlap.
    """
    classes = len(thresholds)
    told = found.scores >= np.asarray(thresholds)[found.labels]
    kept = Predictions(found.boxes[told], found.labels[told], found.scores[told])
    verdict, partner = match(truth, kept, most)
    table = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(table, (truth.labels[partner[verdict == 1]], kept.labels[verdict == 1]), 1)
    free = ~truth.crowd
    free[partner[verdict == 1]] = False
    left = verdict == 0
    iou = overlaps(kept.boxes, truth.boxes, truth.crowd)
    for place in np.argsort(-iou, axis=None, kind="stable"):
        i, j = divmod(int(place), iou.shape[1])
        if iou[i, j] < IOU:
            break
        if left[i] and free[j]:
            table[truth.labels[j], kept.labels[i]] += 1
            left[i] = free[j] = False
    np.add.at(table[classes], kept.labels[left], 1)
    np.add.at(table[:, classes], truth.labels[free], 1)
    return table


def score_thresholds(chosen: float | Mapping[str, float], names: Sequence[str]) -> list[float]:
    """The lowest score to tell, one a class: all alike, or by name, where others have ``USUAL_SCORE``.

    Raises:
        ValueError: there is no class of that name.
    """
    if not isinstance(chosen, Mapping):
        return [float(chosen)] * len(names)
    check_names(chosen, names, "task.score_threshold")
    return [float(chosen.get(name, USUAL_SCORE)) for name in names]


def words(chosen: float | Mapping[str, float]) -> str:
    """A threshold as a person reads it."""
    return "its class's threshold" if isinstance(chosen, Mapping) else f"{chosen:g}"


def check_names(given: Iterable[str], names: Sequence[str], key: str) -> None:
    """ValueError for a name that no class has."""
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.0)
            raise ValueError(f"{key}: no class {name!r}; the nearest is {near[0]!r}")
