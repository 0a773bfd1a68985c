"""Anchors from the training set's own boxes (``model.detector.anchors=auto``): k-means of their sizes and aspects.

As Redmon and Farhadi do for YOLO9000 (arXiv 1612.08242, section 2), with sizes and aspects apart, as torchvision's
detectors have them, and on logarithms. What is found is written into the run's recipe, by which it is evaluated.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crosshead.data.base import Splits
from crosshead.data.datasets.dense import ObjectDataset
from crosshead.data.decode.images import BrokenImage
from crosshead.data.transforms.objects import fitting_factor
from crosshead.recipe.schema import DetectorConfig, Recipe
from crosshead.tasks import open_task

_LOOKED_AT = 2000  # pictures, spread over the training set
_RATIOS = (0.5, 1.0, 2.0)  # the detectors' own
_SIZE_KEYS = ("anchor_size", "anchor_sizes")
_FINEST = 1.0  # strides: a smaller anchor would pass between its neighbours
_COARSEST = 8.0


@dataclass(frozen=True)
class Anchoring:
    """How anchors suit boxes: ``options`` of the detector, and the mean over boxes of the largest overlap (IoU) with an
    anchor that stands a quarter of its stride away in both directions, as anchors do on the mean."""

    options: dict[str, Any]
    overlap: float
    boxes: int


def with_fitted_anchors(recipe: Recipe, splits: Splits) -> tuple[Recipe, str]:
    """The recipe with its detector's anchors as numbers, where it says ``auto`` and not these, and what to tell of it.

    Raises:
        ValueError: a detector without anchors.
    """
    detector = recipe.model.detector
    if detector is None or detector.anchors != "auto" or _is_said(detector):
        return recipe, ""
    found = fitted_anchors(recipe, splits)
    if found is None:
        return recipe, ""
    before = anchoring(recipe, splits, {})
    keys = ", ".join(f"{key}={value}" for key, value in found.options.items())
    told = f"anchors of {found.boxes:,} training boxes: {keys}; mean overlap {found.overlap:.2f}"
    told += "" if before is None else f", {before.overlap:.2f} with the detector's own"
    return _with_options(recipe, found.options), told


def as_recorded_anchors(recipe: Recipe, before: dict[str, Any]) -> Recipe:
    """The recipe with the anchors of a run that is gone on with; ``before`` is the run's, as JSON."""
    detector = recipe.model.detector
    recorded = (before.get("model") or {}).get("detector") or {}
    if detector is None or detector.anchors != "auto" or _is_said(detector):
        return recipe
    return _with_options(
        recipe, {key: recorded[key] for key in (*_SIZE_KEYS, "ratios") if recorded.get(key) is not None}
    )


def fitted_anchors(recipe: Recipe, splits: Splits) -> Anchoring | None:
    """Those of the training boxes as the model sees them, at the size of evaluation; None where there are none."""
    detector = recipe.model.detector
    assert detector is not None
    if detector.name == "fcos":
        raise ValueError("model.detector.anchors=auto: fcos has no anchors; leave it out")
    boxes = seen_boxes(recipe, splits)
    if not len(boxes):
        return None
    strides = _strides(recipe, splits)
    tried = [
        {"ratios": ratios, key: value}
        for ratios in (_three(_centres(boxes[:, 0] / boxes[:, 1], 3)), list(_RATIOS))
        for key, value in _sizes(detector.name, boxes, strides)
    ]
    found = [anchoring(recipe, splits, options, boxes=boxes, strides=strides) for options in tried]
    return max((each for each in found if each is not None), key=lambda each: each.overlap)


def _sizes(
    name: str, boxes: NDArray[np.float64], strides: Sequence[int]
) -> list[tuple[str, float | list[float]]]:
    """Those to choose among, the detector's own last: RetinaNet's one number, or one for each level."""
    if name == "retinanet":
        tried = [float(f"{size:.2g}") for size in np.geomspace(_FINEST, _COARSEST, 25)]
        return [("anchor_size", size) for size in (*tried, 4.0)]
    sides = _centres(np.sqrt(boxes.prod(1)), len(strides)).tolist()
    sides += [sides[-1] * 2.0 ** (i + 1) for i in range(len(strides) - len(sides))]
    # A level's anchors stand a stride apart: smaller ones than two strides would miss what lies between.
    fitted = [float(f"{max(side, 2 * stride):.3g}") for side, stride in zip(sides, strides, strict=True)]
    return [("anchor_sizes", fitted), ("anchor_sizes", [8.0 * stride for stride in strides])]


def _three(ratios: NDArray[np.float64]) -> list[float]:
    """Three of them whatever was found, so that the model's shape stays."""
    some = ratios.tolist()
    if len(some) == 1:
        some = [some[0] / 2, some[0], some[0] * 2]
    elif len(some) == 2:
        some.insert(1, (some[0] * some[1]) ** 0.5)
    return [round(each, 2) for each in some]


def anchoring(
    recipe: Recipe,
    splits: Splits,
    options: dict[str, Any],
    *,
    boxes: NDArray[np.float64] | None = None,
    strides: Sequence[int] | None = None,
) -> Anchoring | None:
    """How the recipe's anchors, with ``options`` over its own, suit the training boxes; None where there are none."""
    detector = recipe.model.detector
    if detector is None or detector.name == "fcos":
        return None
    boxes = seen_boxes(recipe, splits) if boxes is None else boxes
    if not len(boxes):
        return None
    strides = _strides(recipe, splits) if strides is None else strides
    said = detector.options | options
    ratios = said.get("ratios", _RATIOS)
    if detector.name == "retinanet":
        shapes = _of_retinanet(said.get("anchor_size", 4.0), said.get("octave", 3), ratios, strides)
    else:
        sides = said.get("anchor_sizes") or [8 * stride for stride in strides]
        shapes = [
            (side, ratio, stride) for side, stride in zip(sides, strides, strict=True) for ratio in ratios
        ]
    return Anchoring(options, mean_overlap(boxes, shapes), len(boxes))


def seen_boxes(recipe: Recipe, splits: Splits) -> NDArray[np.float64]:
    """(n, 2): heights and widths of the training objects in the pixels that the model sees; crowds left out."""
    images: Any = splits.train
    if not isinstance(images, ObjectDataset):
        return np.zeros((0, 2))
    images = images.boxes_alone()
    places = np.unique(np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).astype(int))
    found = [np.zeros((0, 2))]
    for i in places.tolist():
        try:
            objects = images.objects(i) if hasattr(images, "objects") else images.sample(i)[1]
        except BrokenImage:
            continue
        factor = fitting_factor(objects.size, recipe.data.eval_resize, recipe.data.longest)
        boxes = objects.boxes[~objects.crowd]
        found.append((boxes[:, [3, 2]] - boxes[:, [1, 0]]) * factor)
    sizes = np.concatenate(found)
    return sizes[(sizes > 0).all(1)]


def mean_overlap(boxes: NDArray[np.float64], shapes: Sequence[tuple[float, float, float]]) -> float:
    """The mean over ``boxes`` (n, 2), heights and widths, of the largest overlap with one of ``shapes``: (side, height
    over width, stride), a quarter of the stride away in both directions."""
    best = np.zeros(len(boxes))
    for side, ratio, stride in shapes:
        own = np.array([side * ratio**0.5, side / ratio**0.5])
        across = np.minimum(np.minimum(boxes, own), (boxes + own) / 2 - stride / 4).clip(min=0)
        both = across.prod(1)
        best = np.maximum(best, both / (boxes.prod(1) + own.prod() - both))
    return float(best.mean())


def _of_retinanet(
    size: float, octave: int, ratios: Sequence[float], strides: Sequence[int]
) -> list[tuple[float, float, float]]:
    return [
        (size * stride * 2 ** (i / octave), ratio, stride)
        for stride in strides
        for i in range(octave)
        for ratio in ratios
    ]


def _centres(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Ascending centres of ``count`` clusters of the values' logarithms; of fewer where fewer differ."""
    from sklearn.cluster import KMeans

    logs = np.log(values)[:, None]
    count = min(count, len(np.unique(logs.round(6))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of centres that fall together
        found = KMeans(count, n_init=4, random_state=0).fit(logs)
    centres: NDArray[np.float64] = np.sort(np.exp(found.cluster_centers_[:, 0]))
    return centres


def _strides(recipe: Recipe, splits: Splits) -> tuple[int, ...]:
    """Of the levels on which the detector stands, which its backbone and its options decide."""
    with torch.random.fork_rng(devices=[]):
        model: Any = open_task(recipe, splits.info).build_model(from_weights=False)
    strides: tuple[int, ...] = model.pyramid.strides
    return strides


def _is_said(detector: DetectorConfig) -> bool:
    return any(detector.options.get(key) is not None for key in _SIZE_KEYS)


def _with_options(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    assert recipe.model.detector is not None
    detector = DetectorConfig.model_validate(recipe.model.detector.model_dump() | options)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"detector": detector})})
