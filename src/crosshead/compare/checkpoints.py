"""Whether two checkpoints differ on the same images: a paired bootstrap. It says nothing of training them again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


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
            f"wanted one value an image of both, for two images or more, got {len(a)} and {len(b)}"
        )
    differences = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return PairedDifference(mean, mean, mean, len(differences))
    generator = np.random.default_rng(seed)
    found = stats.bootstrap((differences,), np.mean, confidence_level=level, method="BCa", rng=generator)
    interval = found.confidence_interval
    return PairedDifference(mean, float(interval.low), float(interval.high), len(differences))
