"""What predictions mean: all that the trainer does not know of a task."""

from crosshead.tasks.classify import ClassifyTask, roc_auc
from crosshead.tasks.classify.evaluation import ClassificationOutputs
from crosshead.tasks.detect import DetectTask, best_f1
from crosshead.tasks.detect.coco_evaluation import DetectionOutputs, MaskOutputs
from crosshead.tasks.metrics import METRICS, Metric, register_metric
from crosshead.tasks.multilabel import MultilabelOutputs, MultilabelTask
from crosshead.tasks.protocol import (
    TASKS,
    Drawing,
    EvalResult,
    Evaluation,
    Step,
    Task,
    open_task,
    register_task,
)
from crosshead.tasks.regress import RegressionOutputs, RegressTask
from crosshead.tasks.segment import SegmentTask, boundary_iou, dice, picture_miou
from crosshead.tasks.segment.pixel_evaluation import SegmentationOutputs

_FURTHER_METRICS = (best_f1, roc_auc, boundary_iou, dice, picture_miou)  # which register themselves

register_task("classify")(ClassifyTask)
register_task("multilabel")(MultilabelTask)
register_task("regress")(RegressTask)
register_task("segment")(SegmentTask)
register_task("detect")(DetectTask)

__all__ = [
    "METRICS",
    "TASKS",
    "ClassificationOutputs",
    "ClassifyTask",
    "DetectTask",
    "DetectionOutputs",
    "Drawing",
    "EvalResult",
    "Evaluation",
    "MaskOutputs",
    "Metric",
    "MultilabelOutputs",
    "RegressionOutputs",
    "SegmentTask",
    "SegmentationOutputs",
    "Step",
    "Task",
    "open_task",
    "register_metric",
    "register_task",
]
