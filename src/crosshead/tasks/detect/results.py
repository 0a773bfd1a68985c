"""What a detector says, in the pictures' own pixels: as COCO's run lengths, and as answers in COCO's form."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks, paste_mask_in_image

from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import RLE, encode_within, to_coco
from crosshead.tasks.coco_numbers import Predictions

_MASK = 0.5  # probability from which on a pixel is the object's


def in_own_pixels(found: dict[str, Tensor], size: tuple[int, int], own: tuple[int, int]) -> Predictions:
    """Of a picture that had (height, width) ``size`` when the detector saw it, and has ``own``; cut off at its
    edges."""
    wide = torch.tensor([own[1] / size[1], own[0] / size[0]] * 2)
    edges = torch.tensor([own[1], own[0]] * 2, dtype=torch.float32)
    boxes = torch.minimum((found["boxes"].cpu() * wide).clamp(min=0), edges)
    masks = None
    if "masks" in found:
        masks = [to_coco(mask) for mask in masks_of(found["masks"].cpu(), boxes, own)]
    return Predictions(
        boxes.double().numpy(), found["labels"].cpu().numpy(), found["scores"].cpu().numpy(), masks
    )


def masks_of(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[RLE]:
    """Probabilities within boxes (n, 1, m, m), and the boxes (n, 4) -> masks of ``size`` (height, width).

    As torchvision pastes them, but one after another, and each in no more room than its box: a hundred objects of a
    picture of 12 megapixels would take 5 GB.
    """
    grown, scale = expand_masks(probabilities.float(), padding=1)
    around = expand_boxes(boxes.float(), scale).to(torch.int64)
    found = []
    for mask, box in zip(grown, around, strict=True):
        left, top, right, bottom = box.tolist()
        x, y = max(left, 0), max(top, 0)
        wide, high = min(right + 1, size[1]) - x, min(bottom + 1, size[0]) - y
        piece = np.zeros((0, 0), bool)
        if wide > 0 and high > 0:
            moved = box - torch.tensor([x, y] * 2)
            piece = (paste_mask_in_image(mask[0], moved, high, wide) >= _MASK).numpy()
        found.append(encode_within(piece, (y, x), size))
    return found


def uncut(index: int, number: int, truth: Objects, found: Predictions) -> dict[str, Any]:
    """All that was found in picture ``number`` (at place ``index`` of its set), for files: its size, and of each object
    its class from 0, its score, x1, y1, x2, y2 and its run lengths, nothing rounded or left out."""
    masks = [None] * len(found.labels) if found.masks is None else found.masks
    objects = [
        {"label": label, "score": score, "box": box} | ({} if mask is None else {"segmentation": mask})
        for label, score, box, mask in zip(
            found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), masks, strict=True
        )
    ]
    return {"index": index, "image_id": number, "size": truth.size, "objects": objects}


def answer(
    found: Predictions,
    own: tuple[int, int],
    class_names: Sequence[str],
    class_ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Objects in falling order of their scores, as COCO's results have them: ``bbox`` x, y, width, height, and
    ``category_id`` out of ``class_ids`` where the data's files number their classes."""
    objects = []
    for i in np.argsort(-found.scores, kind="stable").tolist():
        x1, y1, x2, y2 = map(float, found.boxes[i])
        label = int(found.labels[i])
        entry: dict[str, Any] = {
            "class": class_names[label],
            "index": label,
            "score": round(float(found.scores[i]), 6),
            "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
        }
        if class_ids is not None:
            entry["category_id"] = class_ids[label]
        if found.masks is not None:
            entry["segmentation"] = found.masks[i]
        objects.append(entry)
    return {"size": list(own), "objects": objects}
