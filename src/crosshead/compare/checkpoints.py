"""Whether two checkpoints differ on the same images: a paired bootstrap. It says nothing of training them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from crosshead.compare.differences import is_constant


@dataclass(frozen=True)
class PairedDifference:
    """Checkpoint B less checkpoint A, image by image: the mean difference and its interval over the images."""

    difference: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        return (
            f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}] over {self.images} images: of these two "
            "checkpoints, not of their recipes"
        )


def compare_checkpoints(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """B less A by a BCa bootstrap over images; ``a`` and ``b`` hold one value an image, in the same order.

    Raises:
        ValueError: other numbers of images, or fewer than two.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(
            f"expected one value an image of both, for two images or more, got {len(a)} and {len(b)}"
        )
    differences = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    mean = float(differences.mean())
    if is_constant(differences):
        return PairedDifference(mean, mean, mean, len(differences))
    generator = np.random.default_rng(seed)
    found = stats.bootstrap((differences,), np.mean, confidence_level=level, method="BCa", rng=generator)
    interval = found.confidence_interval
    return PairedDifference(mean, float(interval.low), float(interval.high), len(differences))


def compare_selected(a: Path, b: Path, device: str | None = None) -> PairedDifference:
    """The selected checkpoint of run ``b`` less that of run ``a``, in accuracy, image by image of the test split.

    Raises:
        ValueError: runs that don't classify, or whose test images are not the same.
    """
    from crosshead.train.inference import evaluate_loaded, load_run

    hits = []
    for folder in (a, b):
        trained = load_run(folder, device=device)
        if trained.task.answers != "classes":
            raise ValueError(
                f"{folder} learned to {trained.recipe.task.name}; two checkpoints of classifiers are compared"
            )
        rows = sorted(
            evaluate_loaded(trained, split="test", predictions=True).predictions,
            key=lambda row: str(row["path"]),
        )
        hits.append({row["path"]: (row["target"], row["predicted"] == row["target"]) for row in rows})
    first, second = hits
    if {n: target for n, (target, _) in first.items()} != {n: target for n, (target, _) in second.items()}:
        raise ValueError(f"{a} and {b} were not tested on the same images, so that they can't be compared")
    return compare_checkpoints(
        [float(hit) for _, hit in first.values()], [float(hit) for _, hit in second.values()]
    )
