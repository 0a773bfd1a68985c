"""Mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899) of a batch."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from crosshead.data.random import key, seeded_globals
from crosshead.recipe.schema import AugmentConfig


class Mixing:
    """Mixes each batch with its own neighbours by torchvision's transforms; any batch size, odd ones too.

    Of every batch one kind of mixing is chosen: CutMix with ``mixup_switch_prob`` where both are on; none at
    all with 1 − ``mixup_prob``. The draws are keyed on (seed, epoch, position in the epoch's order).
    """

    def __init__(self, augment: AugmentConfig, classes: int) -> None:
        self.probability = augment.mixup_prob if augment.mixup or augment.cutmix else 0.0
        self.cutmix_share = (
            augment.mixup_switch_prob if augment.mixup and augment.cutmix else float(not augment.mixup)
        )
        self.mixup = v2.MixUp(alpha=augment.mixup, num_classes=classes) if augment.mixup else None
        self.cutmix = v2.CutMix(alpha=augment.cutmix, num_classes=classes) if augment.cutmix else None

    def __call__(
        self, images: Tensor, targets: Tensor, *, seed: int, epoch: int, position: int
    ) -> tuple[Tensor, Tensor]:
        """Mixed ``images`` (B, C, H, W) and ``targets`` (B, classes); unmixed ones stay indices, (B,)."""
        if self.probability == 0 or len(images) == 0:
            return images, targets
        with seeded_globals() as seed_all:
            seed_all(key("mixing", seed, epoch, position))
            mix, cut = torch.rand(2, dtype=torch.float64).tolist()
            if mix >= self.probability:
                return images, targets
            chosen = self.cutmix if cut < self.cutmix_share else self.mixup
            assert chosen is not None
            return chosen(images, targets)
