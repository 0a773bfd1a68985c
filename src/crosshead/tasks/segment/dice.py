"""``dice``: the mean over classes of the Dice coefficient of all pixels."""

import torch

from crosshead.tasks.metrics import register_metric
from crosshead.tasks.segment.pixel_evaluation import SegmentationOutputs, mean_known


@register_metric("dice", "Dice", of=SegmentationOutputs)
def dice(outputs: SegmentationOutputs) -> float:
    """2 |A and B| / (|A| + |B|) of each class over the pixels of all pictures, which is the class's F1; the mean over
    the classes that are in the maps or in what was said. Of one class it is 2 IoU / (1 + IoU)."""
    table = outputs.confusion.double()
    said_or_there = table.sum(0) + table.sum(1)
    return mean_known(2 * table.diagonal() / said_or_there.where(said_or_there > 0, torch.nan))
