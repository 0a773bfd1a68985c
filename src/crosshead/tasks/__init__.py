"""What predictions mean: all that the trainer does not know of a task."""

from crosshead.tasks.classify import ClassifyTask
from crosshead.tasks.detect import DetectTask
from crosshead.tasks.metrics import METRICS, Metric
from crosshead.tasks.multilabel import MultilabelTask
from crosshead.tasks.protocol import Drawing, EvalResult, Evaluation, Step, Task
from crosshead.tasks.registry import TASKS, open_task, register_task
from crosshead.tasks.regress import RegressTask
from crosshead.tasks.segment import SegmentTask

register_task("classify")(ClassifyTask)
register_task("multilabel")(MultilabelTask)
register_task("regress")(RegressTask)
register_task("segment")(SegmentTask)
register_task("detect")(DetectTask)

__all__ = [
    "METRICS",
    "TASKS",
    "ClassifyTask",
    "DetectTask",
    "Drawing",
    "EvalResult",
    "Evaluation",
    "Metric",
    "SegmentTask",
    "Step",
    "Task",
    "open_task",
    "register_task",
]
