"""Detectors on a pyramid: RetinaNet, FCOS, Faster R-CNN and Mask R-CNN, their heads and losses torchvision's.

arXiv 1708.02002, 1904.01355, 1506.01497, 1703.06870. torchvision's image transform takes no part: pictures come
resized and normalised, so that training and prediction see what the data pipeline made.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..libraries import need
from .dense import OnBackbone, check_options
from .pyramid import Maps, Pyramid, group_norm, heads_precision

Targets = list[dict[str, Tensor]]
Sizes = list[tuple[int, int]]


class Detector(OnBackbone):
    """What all three share. The heads compute in float32, whatever the precision of the backbone.

    ``forward(images, sizes, targets)``: ``images`` (B, C, H, W), each picture in the top left corner, its own
    (height, width) in ``sizes``. In training, with ``targets`` (a dict a picture: ``boxes`` (n, 4) as x1, y1, x2, y2 in
    pixels, ``labels`` (n,) from 0, and for Mask R-CNN ``masks`` (n, h, w)), a dict of losses, each a mean over the
    pictures or samples of the batch. In evaluation a list of dicts: ``boxes``, ``labels`` from 0, ``scores`` in falling
    order, and ``masks`` (n, 1, 28, 28), probabilities within the boxes. Where a head gave something that is not finite,
    which a threshold of scores would pass over in silence, each picture of the batch has one object whose box and score
    are NaN.
    """

    first_label = 0  # the number under which the heads know class 0

    def __init__(self, pyramid: Pyramid, num_classes: int, nms_threshold: float, max_detections: int) -> None:
        super().__init__()
        self.pyramid, self.num_classes = pyramid, num_classes
        self.nms_threshold, self.max_detections = nms_threshold, max_detections
        self._unsound = False

    def _watch(self, *heads: nn.Module) -> None:
        for head in heads:
            head.register_forward_hook(self._note)

    def _note(self, head: nn.Module, inputs: Any, outputs: Any) -> None:
        if not self.training and not torch.compiler.is_compiling():  # a graph asks no numbers
            self._unsound = self._unsound or not all(
                bool(each.isfinite().all()) for each in _tensors(outputs)
            )

    def forward(self, images: Tensor, sizes: Sizes, targets: Targets | None = None) -> Any:
        if self.training and targets is None:
            raise ValueError("training a detector needs targets, one dict of boxes and labels a picture")
        self._unsound = False
        levels = self.pyramid(images)
        with heads_precision(images):
            if targets is not None and self.first_label:
                targets = [t | {"labels": t["labels"] + self.first_label} for t in targets]
            result = self.heads(images, sizes, levels, targets)
        if not self.training and self.first_label:
            result = [found | {"labels": found["labels"] - self.first_label} for found in result]
        if not self.training and self._unsound:
            result = [_no_number(found) for found in result]
        return result

    def heads(self, images: Tensor, sizes: Sizes, levels: list[Tensor], targets: Targets | None) -> Any:
        raise NotImplementedError

    def leave_overlaps(self) -> None:
        """From now on all that is found stays, overlaps too, up to five times ``max_detections``: for who puts findings
        together otherwise."""
        net: Any = self.net
        kept = net.roi_heads if hasattr(net, "roi_heads") else net
        kept.nms_thresh, kept.detections_per_img = 1.0, 5 * self.max_detections


class RetinaNet(Detector):
    """Boxes from dense anchors, by focal loss (Lin et al., arXiv 1708.02002).

    Args:
        pyramid: of the levels to look for objects in; the paper's is strides 8 to 128.
        num_classes: without background.
        anchor_size: side of the smallest anchor over its level's stride.
        octave: anchors an octave of sizes.
        ratios: height over width of the anchors.
        norm: group normalisation in the heads' convolutions, and He's initialisation. Without it they start as in
            the paper, with weights of 0.01: that keeps a signal alive at a width of 256 on a trained backbone, and
            loses it at a width of 48, where each of the four layers passes a seventh.
        score_threshold, nms_threshold, max_detections: of what is found in a picture.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        num_classes: int,
        *,
        anchor_size: float = 4.0,
        octave: int = 3,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        norm: bool = False,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__(pyramid, num_classes, nms_threshold, max_detections)
        detection = need("torchvision.models.detection")
        sizes = [
            tuple(anchor_size * stride * 2 ** (i / octave) for i in range(octave))
            for stride in pyramid.strides
        ]
        anchors = Anchors(sizes, ratios, pyramid.strides)
        head = detection.retinanet.RetinaNetHead(
            pyramid.width, anchors.per_location, num_classes, norm_layer=group_norm if norm else None
        )
        if norm:
            for tower in (head.classification_head.conv, head.regression_head.conv):
                _init_for_training(tower)
        self.net = detection.RetinaNet(
            _Width(pyramid.width),
            num_classes,
            head=head,
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=max_detections,
        )
        self.net.anchor_generator = anchors
        self.net.transform = None
        self._watch(self.net.head)

    def heads(self, images: Tensor, sizes: Sizes, levels: list[Tensor], targets: Targets | None) -> Any:
        outputs = self.net.head(levels)
        anchors = self.net.anchor_generator(_pictures(images, sizes), levels)
        if self.training:
            losses = self.net.compute_loss(targets, outputs, anchors)
            return {"classes": losses["classification"], "boxes": losses["bbox_regression"]}
        counts = [
            self.net.anchor_generator.per_location * level.shape[2] * level.shape[3] for level in levels
        ]
        by_level = {name: list(output.split(counts, dim=1)) for name, output in outputs.items()}
        return self.net.postprocess_detections(by_level, [list(a.split(counts)) for a in anchors], sizes)


class FCOS(Detector):
    """Boxes without anchors: each point of each level says how far the sides of its object are (Tian et al., arXiv
    1904.01355; torchvision's, with centre sampling).

    Args:
        pyramid: of the levels to look for objects in; the paper's is strides 8 to 128. Its width is a multiple of 32,
            for the groups of the heads' normalisation.
        num_classes: without background.
        convolutions: layers of each of the two towers.
        radius: of centre sampling, in strides: how far from an object's middle a point may lie that learns it.
        score_threshold, nms_threshold, max_detections: of what is found in a picture.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        num_classes: int,
        *,
        convolutions: int = 4,
        radius: float = 1.5,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__(pyramid, num_classes, nms_threshold, max_detections)
        if pyramid.width % 32:
            raise ValueError(
                f"pyramid.width must be a multiple of 32, for the groups of FCOS's normalisation, got {pyramid.width}"
            )
        detection = need("torchvision.models.detection")
        # Not boxes to choose among: one a point, as large as its stride, by which distances are measured.
        points = Anchors([(float(stride),) for stride in pyramid.strides], (1.0,), pyramid.strides)
        self.net = detection.FCOS(
            _Width(pyramid.width),
            num_classes,
            head=detection.fcos.FCOSHead(pyramid.width, 1, num_classes, convolutions),
            center_sampling_radius=radius,
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=max_detections,
        )
        self.net.anchor_generator = points
        self.net.transform = None
        self._watch(self.net.head)

    def heads(self, images: Tensor, sizes: Sizes, levels: list[Tensor], targets: Targets | None) -> Any:
        outputs = self.net.head(levels)
        points = self.net.anchor_generator(_pictures(images, sizes), levels)
        counts = [level.shape[2] * level.shape[3] for level in levels]
        if self.training:
            losses = self.net.compute_loss(targets, outputs, points, counts)
            names = {"classes": "classification", "boxes": "bbox_regression", "centerness": "bbox_ctrness"}
            return {name: losses[its] for name, its in names.items()}
        by_level = {name: list(output.split(counts, dim=1)) for name, output in outputs.items()}
        return self.net.postprocess_detections(by_level, [list(p.split(counts)) for p in points], sizes)


class RCNN(Detector):
    """Proposals, then boxes, and masks where asked for: Faster R-CNN and Mask R-CNN.

    Args:
        pyramid: proposals come from all its levels, regions are read from all but an extra pooled one.
        num_classes: without background.
        masks: whether to predict them.
        anchor_sizes: one a level; eight times its stride unless given.
        ratios: height over width of the anchors.
        proposals: kept before and after suppression of overlaps, in training and in evaluation.
        rpn_samples, roi_samples: anchors and proposals an image that the losses look at.
        canonical: side of an object in pixels, and the level (log2 of its stride) that it is read from.
        sampling_ratio: samples along each side of a cell of the region.
        box_width: of the two layers of the box head.
        mask_layers: widths of the mask head's convolutions.
        norm: group normalisation in the mask head.
        score_threshold, nms_threshold, max_detections: of what is found in a picture.
    """

    first_label = 1  # torchvision's 0 is background

    def __init__(
        self,
        pyramid: Pyramid,
        num_classes: int,
        *,
        masks: bool,
        anchor_sizes: Sequence[float] | None = None,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        proposals: Sequence[int] = (2000, 1000, 1000, 1000),
        rpn_samples: int = 256,
        roi_samples: int = 512,
        roi_positive: float = 0.25,
        canonical: tuple[int, int] = (224, 4),
        sampling_ratio: int = 2,
        box_width: int = 1024,
        mask_layers: Sequence[int] = (256, 256, 256, 256),
        norm: bool = False,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__(pyramid, num_classes, nms_threshold, max_detections)
        detection = need("torchvision.models.detection")
        if anchor_sizes is None:
            anchor_sizes = [8 * stride for stride in pyramid.strides]
        if len(anchor_sizes) != len(pyramid.strides):
            raise ValueError(
                f"anchor_sizes must have one entry a level, {len(pyramid.strides)} (strides "
                f"{', '.join(map(str, pyramid.strides))}), got {len(anchor_sizes)}"
            )
        if len(proposals) != 4:
            raise ValueError(
                "proposals must be four numbers: before and after suppression in training, and in evaluation, "
                f"got {list(proposals)}"
            )
        if masks and not mask_layers:
            raise ValueError(
                "mask_layers is empty: the mask head needs one convolution or more, such as [256]"
            )
        anchors = Anchors([(float(size),) for size in anchor_sizes], ratios, pyramid.strides)
        read = pyramid.strides[:-1] if pyramid.extra == "pool" else pyramid.strides
        faster, mask = detection.faster_rcnn, detection.mask_rcnn
        options: dict[str, Any] = {
            "rpn_head": detection.rpn.RPNHead(pyramid.width, anchors.per_location),
            "rpn_pre_nms_top_n_train": proposals[0],
            "rpn_post_nms_top_n_train": proposals[1],
            "rpn_pre_nms_top_n_test": proposals[2],
            "rpn_post_nms_top_n_test": proposals[3],
            "rpn_batch_size_per_image": rpn_samples,
            "box_roi_pool": _pooler(7, read, canonical, sampling_ratio),
            "box_head": faster.TwoMLPHead(pyramid.width * 49, box_width),
            "box_predictor": faster.FastRCNNPredictor(box_width, num_classes + 1),
            "box_batch_size_per_image": roi_samples,
            "box_positive_fraction": roi_positive,
            "box_score_thresh": score_threshold,
            "box_nms_thresh": nms_threshold,
            "box_detections_per_img": max_detections,
        }
        build = detection.FasterRCNN
        if masks:
            build = detection.MaskRCNN
            options |= {
                "mask_roi_pool": _pooler(14, read, canonical, sampling_ratio),
                "mask_head": mask.MaskRCNNHeads(
                    pyramid.width, mask_layers, 1, norm_layer=group_norm if norm else None
                ),
                "mask_predictor": mask.MaskRCNNPredictor(mask_layers[-1], mask_layers[-1], num_classes + 1),
            }
        self.net = build(_Width(pyramid.width), **options)
        self.net.rpn.anchor_generator = anchors
        self.net.transform = None
        roi = self.net.roi_heads
        self._watch(self.net.rpn.head, roi.box_predictor, *([roi.mask_predictor] if masks else []))

    def heads(self, images: Tensor, sizes: Sizes, levels: list[Tensor], targets: Targets | None) -> Any:
        features = {str(i): level for i, level in enumerate(levels)}
        proposals, rpn_losses = self.net.rpn(_pictures(images, sizes), features, targets)
        found, losses = self.net.roi_heads(features, proposals, sizes, targets)
        if not self.training:
            return found
        names = {
            "loss_objectness": "objectness",
            "loss_rpn_box_reg": "proposals",
            "loss_classifier": "classes",
            "loss_box_reg": "boxes",
            "loss_mask": "masks",
        }
        return {names[name]: loss for name, loss in (rpn_losses | losses).items()}


def _tensors(outputs: Any) -> list[Tensor]:
    """All tensors in what a head gave: one, or several in lists, tuples and dicts."""
    if isinstance(outputs, Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for part in parts for tensor in _tensors(part)]


def _no_number(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """One object of class 0 in the place of ``found``; all else of it is NaN."""
    label = found["labels"].new_zeros(1)
    unknown = {
        name: values.new_full((1, *values.shape[1:]), math.nan)
        for name, values in found.items()
        if name != "labels"
    }
    return unknown | {"labels": label}


class Anchors(nn.Module):
    """torchvision's anchors on grids of known strides.

    torchvision divides the picture's side by the map's, which is another number where the map covers padding.

    Args:
        sizes: the sides of the anchors, a tuple for each level.
        ratios: height over width, the same for all.
        strides: of the levels.
    """

    def __init__(
        self, sizes: Sequence[tuple[float, ...]], ratios: Sequence[float], strides: Sequence[int]
    ) -> None:
        super().__init__()
        generator = need("torchvision.models.detection.anchor_utils").AnchorGenerator
        self.generator = generator(tuple(sizes), (tuple(ratios),) * len(sizes))
        self.strides = tuple(strides)
        self.per_location: int = self.generator.num_anchors_per_location()[0]

    def num_anchors_per_location(self) -> list[int]:
        out: list[int] = self.generator.num_anchors_per_location()
        return out

    def forward(self, images: Any, levels: list[Tensor]) -> list[Tensor]:
        first = levels[0]
        self.generator.set_cell_anchors(first.dtype, first.device)
        strides = [[torch.tensor(stride, device=first.device)] * 2 for stride in self.strides]
        grids = [list(level.shape[-2:]) for level in levels]
        anchors = torch.cat(self.generator.grid_anchors(grids, strides))
        return [anchors] * len(images.image_sizes)


class _Width(nn.Module):
    """In the place of a backbone, which torchvision's constructors ask for its width."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels


def _pictures(images: Tensor, sizes: Sizes) -> Any:
    return need("torchvision.models.detection.image_list").ImageList(images, sizes)


def _pooler(side: int, strides: Sequence[int], canonical: tuple[int, int], sampling_ratio: int) -> nn.Module:
    """Reads regions. Its scales are given: torchvision guesses them from the first batch, padding included."""
    poolers = need("torchvision.ops.poolers")
    names = [str(i) for i in range(len(strides))]
    pooler = poolers.MultiScaleRoIAlign(
        names, side, sampling_ratio, canonical_scale=canonical[0], canonical_level=canonical[1]
    )
    pooler.scales = [1 / stride for stride in strides]
    levels = [stride.bit_length() - 1 for stride in strides]
    pooler.map_levels = poolers.initLevelMapper(
        levels[0], levels[-1], canonical_scale=canonical[0], canonical_level=canonical[1]
    )
    out: nn.Module = pooler
    return out


def _init_for_training(tower: nn.Module) -> None:
    for layer in tower.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def build_detector(name: str, maps: Maps, num_classes: int, **options: Any) -> Detector:
    """``retinanet``, ``fcos``, ``faster_rcnn`` or ``mask_rcnn`` with the options of its class; ``pyramid`` are those of
    the pyramid, whose extra levels are the paper's unless they say otherwise.

    Raises:
        ValueError: for another name, or an option that it doesn't know.
    """
    known: dict[str, type[Detector]] = {
        "retinanet": RetinaNet,
        "fcos": FCOS,
        "faster_rcnn": RCNN,
        "mask_rcnn": RCNN,
    }
    if name not in known:
        raise ValueError(f"no detector {name!r}; expected {', '.join(known)}")
    levels: dict[str, Any] = {"extra": "convolve" if name in ("retinanet", "fcos") else "pool"} | dict(
        options.pop("pyramid", {})
    )
    check_options("the pyramid", Pyramid, levels, "model.detector.pyramid")
    of_masks = ("mask_layers", "norm") if name == "faster_rcnn" else ()
    check_options(name, known[name], options, "model.detector", beside=("masks", *of_masks))
    if known[name] is RCNN:
        options["masks"] = name == "mask_rcnn"
    return known[name](Pyramid(maps, **levels), num_classes, **options)


__all__ = ["FCOS", "RCNN", "Detector", "RetinaNet", "build_detector"]
