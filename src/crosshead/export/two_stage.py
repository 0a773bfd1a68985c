"""Faster and Mask R-CNN as a graph of one size, from images to what they find: as torchvision computes it, but with
places for as many boxes as there may be, the empty ones marked by a score of -1."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from crosshead.export.anchors import anchors_of, moved
from crosshead.export.regions import kept_apart, read_level
from crosshead.models.detectors import RCNN

_TRICK = 4000  # numbers in boxes, up to which torchvision tells groups apart by moving them


class TwoStages(nn.Module):
    """Images (B, C, H, W), and the (height, width) (B, 2) of the pictures in their top left corners -> boxes (B, D, 4),
    scores (B, D) in falling order, -1 where there is no box, labels (B, D) from 0, and of Mask R-CNN the probabilities
    (B, D, 28, 28) within the boxes. D is the most that the detector keeps. Where a head gave something that is not
    finite, the scores are NaN. ``size`` (H, W) of the images is always the same."""

    def __init__(self, model: RCNN) -> None:
        super().__init__()
        self.model = model
        net: Any = model.net
        net.rpn.anchor_generator.generator.set_cell_anchors(torch.float32, torch.device("cpu"))

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        net: Any = self.model.net
        if sizes is None:
            sizes = images.new_tensor(images.shape[-2:]).expand(images.shape[0], 2)
        edges = sizes.flip(1).repeat(1, 2)[:, None]  # width, height, width, height of each picture
        levels = self.model.pyramid(images)
        proposals, scores, fine = self._proposals(levels, edges)
        found = self._read(net.roi_heads.box_roi_pool, levels, proposals, scores >= 0)
        logits, deltas = net.roi_heads.box_predictor(net.roi_heads.box_head(found))
        fine = fine & _finite(logits.unflatten(0, scores.shape)) & _finite(deltas.unflatten(0, scores.shape))
        boxes, scores, labels = self._boxes(logits, deltas, proposals, scores >= 0, edges)
        out = (boxes, torch.where(fine[:, None], scores, math.nan), (labels - 1).clamp(min=0))
        if not net.roi_heads.has_mask():
            return out
        found = self._read(net.roi_heads.mask_roi_pool, levels, boxes, scores >= 0)
        masks = net.roi_heads.mask_predictor(net.roi_heads.mask_head(found)).sigmoid()
        masks = masks.unflatten(0, scores.shape)
        place = labels[:, :, None, None, None].expand(-1, -1, 1, *masks.shape[-2:])
        return *out, masks.gather(2, place)[:, :, 0]

    def _proposals(self, levels: list[Tensor], edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, P, 4), their scores (B, P), -1 where there is none, and whether (B,) all numbers are finite."""
        rpn: Any = self.model.net.rpn
        boxes, scores, counts = [], [], []
        fine = torch.ones_like(edges[:, 0, 0], dtype=torch.bool)
        for i, (level, objectness, deltas) in enumerate(zip(levels, *rpn.head(levels), strict=True)):
            objectness = objectness.permute(0, 2, 3, 1).flatten(1)
            deltas = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
            fine = fine & _finite(objectness) & _finite(deltas)
            count = min(rpn.pre_nms_top_n(), objectness.shape[1])
            best, place = objectness.topk(count)
            anchors = anchors_of(rpn.anchor_generator, level, i)[place]
            deltas = deltas.gather(1, place[..., None].expand(-1, -1, 4))
            boxes.append(torch.minimum(moved(anchors, deltas, rpn.box_coder).clamp(min=0), edges))
            scores.append(_that_count(best.sigmoid(), boxes[-1], rpn.min_size, rpn.score_thresh))
            counts.append(count)
        together, of_all = torch.cat(boxes, 1), torch.cat(scores, 1)
        step = _step(together, of_all)
        kept = [
            kept_apart(its + i * step[:, None], scored, rpn.nms_thresh)
            for i, (its, scored) in enumerate(zip(boxes, scores, strict=True))
        ]
        of_all = torch.where(torch.cat(kept, 1), of_all, -1)
        of_all, place = of_all.topk(min(rpn.post_nms_top_n(), sum(counts)))
        return together.gather(1, place[..., None].expand(-1, -1, 4)), of_all, fine

    def _boxes(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, there: Tensor, edges: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, D, 4), scores (B, D) and labels (B, D) from 1."""
        heads: Any = self.model.net.roi_heads
        number, classes = there.shape[1], logits.shape[1] - 1
        deltas = deltas.reshape(-1, number, classes + 1, 4)[:, :, 1:]
        boxes = moved(proposals[:, :, None], deltas, heads.box_coder).clamp(min=0)
        boxes = torch.minimum(boxes, edges[:, None])  # (B, P, classes, 4)
        scores = logits.softmax(-1)[:, 1:].reshape(-1, number, classes)
        # A box stays where its score is above the threshold, not at it.
        scores = torch.where(there[..., None] & (scores > heads.score_thresh), scores, -1)
        scores = _that_count(scores, boxes, 1e-2, 0.0)
        labels = torch.arange(1, classes + 1)
        step = _step(boxes.flatten(1, 2), scores.flatten(1))
        apart = boxes + (labels * step)[:, None, :, None]
        by_class = apart.transpose(1, 2).flatten(0, 1), scores.transpose(1, 2).flatten(0, 1)
        kept = kept_apart(*by_class, heads.nms_thresh).unflatten(0, (-1, classes)).transpose(1, 2)
        best, place = (
            torch.where(kept, scores, -1).flatten(1).topk(min(heads.detections_per_img, number * classes))
        )
        boxes = boxes.flatten(1, 2).gather(1, place[..., None].expand(-1, -1, 4))
        return boxes, best, place % classes + 1

    def _read(self, pooler: Any, levels: list[Tensor], boxes: Tensor, there: Tensor) -> Tensor:
        """(B * N, C, side, side) of the boxes (B, N, 4); zeros where there is none."""
        image = (
            torch.zeros_like(boxes[..., :1]) + torch.arange(boxes.shape[0], dtype=boxes.dtype)[:, None, None]
        )
        regions = torch.cat([image, boxes], -1).flatten(0, 1)
        its = pooler.map_levels([boxes.flatten(0, 1)])
        side = pooler.output_size[0]
        found = regions.new_zeros(regions.shape[0], levels[0].shape[1], side, side)
        one = len(pooler.scales) == 1
        for i, scale in enumerate(pooler.scales):
            here = there.flatten() if one else there.flatten() & (its == i)
            found = read_level(found, levels[i], regions, here, scale, pooler.sampling_ratio)
        return found


def _that_count(scores: Tensor, boxes: Tensor, smallest: float, lowest: float) -> Tensor:
    """The scores, -1 where a box is smaller or scores less."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return torch.where((sides >= smallest).all(-1) & (scores >= lowest), scores, -1)


def _step(boxes: Tensor, scores: Tensor) -> Tensor:
    """(B, 1), how far torchvision moves each group from the one before, so that none of two overlap; it does so, and
    rounds what it moves, where boxes are few."""
    there = scores >= 0
    furthest = torch.where(there[..., None], boxes, 0).flatten(1).amax(1, keepdim=True)
    return torch.where(4 * there.sum(1, keepdim=True) > _TRICK, 0, furthest + 1)


def _finite(values: Tensor) -> Tensor:
    """(B,), of each image."""
    return values.flatten(1).isfinite().all(1)
