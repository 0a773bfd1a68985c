"""Of findings that overlap within a class: which stay, with which scores, and where."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

Found = dict[str, Tensor]
SIGMA = 0.5  # of soft-NMS's Gaussian, as in its paper
FAINTEST = 0.001  # a score below which soft-NMS leaves nothing


def merged(parts: Sequence[Found], how: str, threshold: float, most: int) -> Found:
    """The findings of several views of one picture (or of one) put together, in falling order of scores, ``most`` at
    most: ``boxes`` (n, 4), ``labels``, ``scores``, and ``masks`` where there are some.

    ``how``: "nms", the best of those that overlap by more than ``threshold``; "soft_nms" (Bodla et al., arXiv
    1704.04503), all, with scores that fall by their overlap with better ones; "weighted" (boxes fusion: Solovyev et
    al., arXiv 1910.13302), the mean of those that overlap by more than ``threshold``, weighted by scores. What is not
    finite is left as it is, to be told.
    """
    together = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if not together["scores"].isfinite().all():
        return together
    if how == "nms":
        kept = batched_nms(together["boxes"], together["scores"], together["labels"], threshold)
        return {name: values[kept][:most] for name, values in together.items()}
    one: Callable[[Found], Found] = (
        _softened if how == "soft_nms" else lambda found: _fused(found, threshold, len(parts))
    )
    labels = together["labels"]
    classes = [
        one({name: values[labels == label] for name, values in together.items()}) for label in labels.unique()
    ]
    if not classes:
        return together
    found = {name: torch.cat([each[name] for each in classes]) for name in together}
    best = found["scores"].argsort(descending=True, stable=True)[:most]
    return {name: values[best] for name, values in found.items()}


def _softened(found: Found) -> Found:
    """Of one class: the best is taken, and the scores s of the others become s exp(-IoU² / sigma); again and again."""
    scores, left = found["scores"].clone(), torch.ones_like(found["scores"], dtype=torch.bool)
    overlap = box_iou(found["boxes"], found["boxes"])
    for _ in range(len(scores)):
        best = int(torch.where(left, scores, -1.0).argmax())
        left[best] = False
        scores = torch.where(left, scores * torch.exp(-(overlap[best] ** 2) / SIGMA), scores)
    told = scores >= FAINTEST
    return {name: values[told] for name, values in (found | {"scores": scores}).items()}


def _fused(found: Found, threshold: float, views: int) -> Found:
    """Of one class: clusters of boxes, the best first, each joined to the cluster whose mean it overlaps most. A
    cluster's score is the mean of its boxes', times the share of the views that saw it."""
    order = found["scores"].argsort(descending=True, stable=True)
    boxes, scores = found["boxes"][order], found["scores"][order]
    means: list[Tensor] = []
    members: list[list[int]] = []
    for i in range(len(boxes)):
        place = -1
        if means:
            overlap = box_iou(boxes[i : i + 1], torch.stack(means))[0]
            place = int(overlap.argmax()) if float(overlap.max()) > threshold else -1
        if place < 0:
            means.append(boxes[i])
            members.append([i])
            continue
        members[place].append(i)
        weights = scores[members[place]]
        means[place] = (boxes[members[place]] * weights[:, None]).sum(0) / weights.sum()
    fused = torch.stack([scores[each].mean() * min(len(each), views) / views for each in members])
    first = found["labels"][:1].expand(len(members))
    return {"boxes": torch.stack(means), "scores": fused, "labels": first}
