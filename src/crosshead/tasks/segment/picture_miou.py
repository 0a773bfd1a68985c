"""``picture_miou``: the mean over pictures of each picture's mIoU."""

from crosshead.tasks.metrics import register_metric
from crosshead.tasks.segment.pixel_evaluation import SegmentationOutputs, mean_known


@register_metric("picture_miou", "mIoU a picture", of=SegmentationOutputs)
def picture_miou(outputs: SegmentationOutputs) -> float:
    """Each picture's IoU, the mean over the classes that it has or was said to have, averaged over pictures (mIoU^I of
    Wang et al., arXiv 2310.19252, section 3): large objects of few pictures don't outweigh all others."""
    assert outputs.pictures is not None, (
        "an evaluation keeps them where a metric beyond the table's is asked for"
    )
    return mean_known(outputs.pictures.miou)
