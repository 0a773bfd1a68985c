"""``boundary_iou``: intersection over union of what lies along the classes' borders."""

from crosshead.tasks.metrics import register_metric
from crosshead.tasks.segment.pictures import ratio
from crosshead.tasks.segment.pixel_evaluation import SegmentationOutputs, mean_known


@register_metric("boundary_iou", "boundary IoU", of=SegmentationOutputs)
def boundary_iou(outputs: SegmentationOutputs) -> float:
    """Boundary IoU (Cheng et al., arXiv 2103.16562, equation 2): each class's pixels no farther from its border than 2
    per cent of the picture's diagonal, in the map and in what was said; their intersection over their union in all
    pictures, the mean over the classes. Plain IoU of large segments hardly changes where their borders are wrong."""
    assert outputs.pictures is not None, (
        "an evaluation keeps them where a metric beyond the table's is asked for"
    )
    shared, either = outputs.pictures.borders.sum(0)
    return mean_known(ratio(shared, either))
