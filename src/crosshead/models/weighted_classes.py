"""Weights of classes in the losses of torchvision's detectors, which know none.

An object of class c weighs w_c where its class is learned; background weighs 1. Boxes and masks are left alone. Sums
are divided as without weights: by the objects' anchors or the sampled regions, not by the weights.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..libraries import need

_BETWEEN = -2  # torchvision's number of an anchor that is neither an object's nor background


def weigh_classes(detector: nn.Module, weights: Tensor) -> None:
    """``weights`` (classes,), from class 0, for RetinaNet, FCOS, Faster and Mask R-CNN of here.

    What computes the loss gets a class of its own, so that copies of the model (an average's) have it too.
    """
    net: Any = detector.net
    regions = hasattr(net, "roi_heads")
    part = net.roi_heads if regions else net.head
    mixin = _WeightedRegions if regions else _WeightedAnchors
    part.register_buffer("class_weights", weights, persistent=False)
    part.__class__ = type(f"Weighted{type(part).__name__}", (mixin, type(part)), {})


class _WeightedAnchors:
    """Before the head of RetinaNet or FCOS."""

    class_weights: Tensor

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        outputs: dict[str, Tensor],
        anchors: Any,
        matched: list[Tensor],
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = super().compute_loss(targets, outputs, anchors, matched)  # type: ignore[misc]
        focal = need("torchvision.ops").sigmoid_focal_loss
        parts, counts = [], []
        for target, logits, match in zip(targets, outputs["cls_logits"], matched, strict=True):
            found = match >= 0
            wanted = torch.zeros_like(logits)
            wanted[found, target["labels"][match[found]]] = 1.0
            known = match != _BETWEEN
            terms = focal(logits[known], wanted[known], reduction="none")
            parts.append((terms * torch.where(wanted[known] > 0, self.class_weights, 1.0)).sum())
            counts.append(found.sum())
        sums, numbers = torch.stack(parts), torch.stack(counts)
        if "bbox_ctrness" in outputs:  # FCOS divides by the points of the batch, RetinaNet picture by picture
            return losses | {"classification": sums.sum() / numbers.sum().clamp(min=1)}
        return losses | {"classification": (sums / numbers.clamp(min=1)).mean()}


class _WeightedRegions:
    """Before torchvision's RoIHeads: the regions' labels, and what is said of them, are heard on their way."""

    class_weights: Tensor

    def select_training_samples(self, proposals: Any, targets: Any) -> Any:
        found = super().select_training_samples(proposals, targets)  # type: ignore[misc]
        self._labels = torch.cat(found[2])
        return found

    def forward(self, *args: Any, **options: Any) -> Any:
        own: Any = self
        if not own.training:
            return super().forward(*args, **options)  # type: ignore[misc]
        heard: list[Tensor] = []
        hook = own.box_predictor.register_forward_hook(
            lambda module, inputs, outputs: heard.append(outputs[0])
        )
        try:
            found, losses = super().forward(*args, **options)  # type: ignore[misc]
        finally:
            hook.remove()
        by_class = torch.cat([self.class_weights.new_ones(1), self.class_weights])  # 0 is background
        labels = self._labels
        terms = F.cross_entropy(heard[0], labels, reduction="none") * by_class[labels]
        return found, losses | {"loss_classifier": terms.mean()}
