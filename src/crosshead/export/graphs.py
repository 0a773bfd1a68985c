"""What of a model becomes a graph: the modules that are traced, and what is to be said of them."""

from typing import Any

import torch
from torch import Tensor, nn

from crosshead.export.anchors import anchors_of, moved, stretched
from crosshead.export.two_stage import TwoStages
from crosshead.layers.grid_sources import patches_of
from crosshead.models.detectors import FCOS, RCNN, Detector, RetinaNet
from crosshead.models.pyramid import Maps

# What models raise at images of sizes that they don't take.
NOT_TAKEN = (ValueError, RuntimeError, AssertionError, IndexError)


class Pixels(nn.Module):
    """uint8 images (B, C, H, W), normalised, then the model."""

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor) -> Any:
        return self.model((images.float() / 255 - self.mean) / self.std)


class Probabilities(nn.Module):
    """The model, and of its logits (B, N) the probabilities."""

    def __init__(self, model: nn.Module, each_for_itself: bool) -> None:
        super().__init__()
        self.model, self.each_for_itself = model, each_for_itself

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        out: Tensor = logits.sigmoid() if self.each_for_itself else logits.softmax(-1)
        return out


class DenseAnchors(nn.Module):
    """RetinaNet or FCOS up to its raw outputs: of every anchor (FCOS: point) the logits (B, N, classes), and the box
    (B, N, 4) that it is moved to, not cut off at the picture's edges; of FCOS the logit (B, N, 1) of its centerness."""

    def __init__(self, model: RetinaNet | FCOS) -> None:
        super().__init__()
        self.model = model
        net: Any = model.net
        net.anchor_generator.generator.set_cell_anchors(torch.float32, torch.device("cpu"))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        net: Any = self.model.net
        levels = self.model.pyramid(images)
        outputs = net.head(levels)
        anchors = torch.cat([anchors_of(net.anchor_generator, level, i) for i, level in enumerate(levels)])
        deltas = outputs["bbox_regression"]
        if isinstance(self.model, FCOS):
            return outputs["cls_logits"], stretched(anchors, deltas), outputs["bbox_ctrness"]
        return outputs["cls_logits"], moved(anchors, deltas, net.box_coder)


def whole(model: nn.Module) -> nn.Module:
    """What of a model is exported as "whole"."""
    if isinstance(model, RetinaNet | FCOS):
        return DenseAnchors(model)
    if isinstance(model, RCNN):
        return TwoStages(model)
    return model


def output_names(model: nn.Module, part: str) -> list[str] | None:
    """None: as many as there are levels."""
    if part != "whole":
        return None
    if isinstance(model, FCOS):
        return ["logits", "boxes", "centerness"]
    if isinstance(model, RCNN):
        return ["boxes", "scores", "labels", *(["masks"] if model.net.roi_heads.has_mask() else [])]
    return ["logits", "boxes"] if isinstance(model, Detector) else ["logits"]


def step_of(module: nn.Module) -> int:
    """What sides of images are multiples of where they vary; a MaxViT's maps are cut into whole windows."""
    maps = next((each for each in module.modules() if isinstance(each, Maps)), None)
    if maps is not None:
        return maps.multiple
    partitions: list[Any] = [getattr(each, "partition_size", None) for each in module.modules()]
    windows = [max(sides) for sides in partitions if sides is not None]
    for each in module.modules():
        info = getattr(each, "feature_info", None)
        if info:
            return max(int(stage["reduction"]) for stage in info) * max(windows, default=1)
    patches = [found[0] for each in module.modules() if (found := patches_of(each)) is not None]
    return max((max(each.stride) for each in patches if isinstance(each, nn.Conv2d)), default=1)


def periods_of(module: nn.Module) -> int:
    """After how many steps of a side its remainders by landmarks and windows have all been seen."""
    found = [2]
    for each in module.modules():
        for name in ("landmarks", "window_size", "agent_num"):
            value = getattr(each, name, None)
            interaction = getattr(getattr(each, "interaction", None), name, None)
            for number in (value, interaction):
                number = max(number) if isinstance(number, tuple | list) and number else number
                if isinstance(number, int):
                    found.append(number)
    return max(found)
