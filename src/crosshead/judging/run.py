"""A run judged: its validation pictures choose, another split is judged, and the worst pictures are shown."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from crosshead.data.base import ImageSet, Splits
from crosshead.judging import classifier, detector, segmenter
from crosshead.judging.choices import Choices
from crosshead.judging.judgement import CHOSEN_HERE, Report, Shown
from crosshead.tasks.classify.evaluation import ClassificationOutputs
from crosshead.tasks.detect.coco_evaluation import DetectionOutputs
from crosshead.tasks.segment.pixel_evaluation import SegmentationOutputs
from crosshead.train.inference import LoadedRun, SplitResult, evaluate_on, load_run

KINDS = (ClassificationOutputs, DetectionOutputs, SegmentationOutputs)


def judge_run(
    folder: Path,
    *,
    split: str | None = None,
    checkpoint: str = "best",
    device: str | None = None,
    data_root: str | None = None,
    pictures: int = 12,
) -> tuple[Report, Choices]:
    """The report on ``split`` ("test" unless given, or "validation" where there is no such split), with so many of the
    worst ``pictures``, and what the validation pictures chose. On one process.

    Raises:
        ValueError: no such run or split, a task that is judged otherwise, or what the model says is no judgement.
    """
    trained = _as_learned(folder, checkpoint, device)
    splits = trained.open_data(data_root)
    split = split or ("validation" if splits.test is None else "test")
    if split == "train":
        raise ValueError("the training pictures judge nothing: expected validation or test")
    chosen_by = _evaluated(trained, splits, "validation")
    judged = chosen_by if split == "validation" else _evaluated(trained, splits, split)
    if not isinstance(judged.outputs, KINDS):
        raise ValueError(
            f"{folder} is of task.name={trained.recipe.task.name}, of which nothing is chosen or shown here; "
            f"crosshead eval {folder} judges it"
        )
    report = Report(f"{trained.recipe.name}: {split} pictures judged", split, "validation")
    if split == "validation":
        report.sentences.append(CHOSEN_HERE)
    images: Any = splits.part(split)
    choices = _judge(trained, chosen_by.outputs, judged.outputs, images, report, pictures)
    return report, Choices(trained.step, choices.temperature, choices.threshold, choices.score_threshold)


def _as_learned(folder: Path, checkpoint: str, device: str | None) -> LoadedRun:
    """The run's model, without a temperature or a threshold that its recipe may say."""
    trained = load_run(folder, checkpoint=checkpoint, device=device)
    task = trained.recipe.task.model_copy(update={"temperature": 1.0, "threshold": None})
    recipe = trained.recipe.model_copy(update={"task": task})
    return LoadedRun(trained.model, recipe, trained.info, trained.weights, trained.step, trained.run)


def _evaluated(trained: LoadedRun, splits: Splits, split: str) -> SplitResult:
    found = evaluate_on(trained, splits, split, predictions=trained.task.targets != "objects")
    if found.fault is not None:
        raise ValueError(f"this is no judgement ({split}): {found.fault}")
    return found


def _judge(
    trained: LoadedRun, chosen_by: Any, outputs: Any, images: Any, report: Report, pictures: int
) -> Choices:
    if isinstance(outputs, ClassificationOutputs):
        choices = classifier.choose(chosen_by)
        classifier.judge(outputs, choices, report)
        report.gallery += classifier.worst(outputs, images, pictures)
        report.gallery_note = "The pictures that were taken for another class with the most conviction."
        return choices
    if isinstance(outputs, DetectionOutputs):
        choices = detector.choose(chosen_by)
        detector.judge(outputs, choices, report)
        report.gallery += detector.worst(outputs, choices, images, pictures)
        report.gallery_note = (
            "The pictures with the most mistakes: on the left what is there, on the right what was found."
        )
        return choices
    segmenter.judge(outputs, report)
    report.gallery += _worst_maps(trained, outputs, images, pictures)
    report.gallery_note = "The pictures of the lowest mIoU: on the left the map, on the right what was said."
    return Choices()


def _worst_maps(trained: LoadedRun, outputs: SegmentationOutputs, images: Any, pictures: int) -> list[Shown]:
    """Their maps are predicted again: those of all pictures would not fit into memory."""
    said: dict[int, np.ndarray] = {}
    device = next(trained.model.parameters()).device
    task: Any = trained.task
    for place, _ in segmenter.worst_pictures(outputs, pictures):
        one: ImageSet = images.subset(np.array([place]))
        batch = task.evaluation_batches(one)[(0, np.array([0]))].to(device)
        with torch.inference_mode():
            said[place] = task.predict(trained.model, batch)[0].cpu().numpy()
    return list(segmenter.worst(outputs, images, said, pictures))
