"""A classifier judged: its curve and threshold where it has two classes, its temperature, and its worst errors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_curve

from crosshead.data.base import ImageSet
from crosshead.judging.choices import Choices, best_threshold, cooled, fit_temperature, told
from crosshead.judging.judgement import Chart, Report, Shown, Table, thinned
from crosshead.tasks.classify.evaluation import BINS, ClassificationOutputs, calibration_error
from crosshead.tasks.classify.roc_auc import roc_auc

_TINY = 1e-30  # of a probability that came out as 0


def choose(outputs: ClassificationOutputs) -> Choices:
    """On validation pictures: the temperature, and of two classes the threshold, which is of probabilities at that
    temperature."""
    temperature = fit_temperature(_logs(outputs), outputs.target)
    threshold = None
    if len(outputs.class_names) == 2 and len(set(outputs.target.tolist())) == 2:
        scores = np.exp(cooled(_logs(outputs), temperature))[:, 1]
        threshold = round(best_threshold(scores, outputs.target == 1), 6)
    return Choices(temperature=round(temperature, 4), threshold=threshold)


def judge(outputs: ClassificationOutputs, chosen: Choices, report: Report) -> None:
    """Into ``report``: what the choices come to on these pictures."""
    assert chosen.temperature is not None
    probabilities = np.exp(cooled(_logs(outputs), chosen.temperature))
    confidence, right = probabilities.max(1), outputs.right
    before, after = (calibration_error(each, right) for each in (outputs.confidence, confidence))
    report.sentences.append(
        f"Temperature {chosen.temperature:g}, chosen on {report.chosen_on} pictures: calibration error "
        f"{told('calibration_error', before)} as it is, {told('calibration_error', after)} with it. Accuracy stays "
        f"{told('accuracy', float(right.mean()))}."
    )
    report.charts.append(_reliability(outputs, confidence))
    if len(outputs.class_names) == 2:
        _two_classes(outputs, probabilities[:, 1], chosen, report)
    else:
        report.sentences.append(f"ROC AUC, the mean of each class against the rest: {roc_auc(outputs):.4f}.")


def _two_classes(
    outputs: ClassificationOutputs, scores: NDArray[np.float64], chosen: Choices, report: Report
) -> None:
    positive, there = outputs.class_names[1], outputs.target == 1
    if there.all() or not there.any() or chosen.threshold is None:
        report.sentences.append("One of the two classes has no picture: there is no curve and no threshold.")
        return
    false, recall, _ = roc_curve(there, scores)
    points = thinned(list(zip(false.tolist(), recall.tolist(), strict=True)))
    report.charts.append(
        Chart(
            f"Receiver operating characteristic of {positive}",
            "share of the others that is taken for it",
            [("this run", points), ("guessing", [(0.0, 0.0), (1.0, 1.0)])],
            f"Up: the share of {positive} that is found. The area below is {roc_auc(outputs):.4f}.",
        )
    )
    rows = [
        _at(0.5, "as it is", scores, there, positive),
        _at(chosen.threshold, f"chosen on {report.chosen_on}", scores, there, positive),
    ]
    note = f"{positive} is said where its probability is the threshold or more; balanced accuracy chose it."
    report.tables.append(Table("Threshold", rows, note))


def _at(
    threshold: float, name: str, scores: NDArray[np.float64], there: NDArray[np.bool_], positive: str
) -> dict[str, str]:
    said = scores >= threshold
    right = said & there
    return {
        "threshold": name,
        "value": f"{threshold:.4f}",
        "accuracy": told("accuracy", float((said == there).mean())),
        "balanced accuracy": told("accuracy", float(balanced_accuracy_score(there, said))),
        f"recall of {positive}": told("accuracy", float(right.sum() / there.sum())),
        f"precision of {positive}": told(
            "accuracy", float(right.sum() / said.sum()) if said.any() else np.nan
        ),
    }


def _reliability(outputs: ClassificationOutputs, calibrated: NDArray[np.float64]) -> Chart:
    series = [("as it is", outputs.confidence), ("with the temperature", calibrated)]
    curves = [(name, _binned(confidence, outputs.right)) for name, confidence in series]
    return Chart(
        "Confidence and accuracy",
        "confidence",
        [*curves, ("as it should be", [(0.0, 0.0), (1.0, 1.0)])],
        f"Pictures in {BINS} bins by confidence; bins without a picture have no point.",
    )


def _binned(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> list[tuple[float, float]]:
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        (float(confidence[bins == b].mean()), float(right[bins == b].mean()))
        for b in range(BINS)
        if (bins == b).any()
    ]


def worst(outputs: ClassificationOutputs, images: ImageSet, count: int) -> Sequence[Shown]:
    """The pictures that are taken for another class with the most conviction: those of the highest loss."""
    wrong = np.flatnonzero(outputs.right == 0)
    names = outputs.class_names
    shown = []
    for row in wrong[np.argsort(-outputs.losses[wrong], kind="stable")][:count]:
        place, target, said = int(outputs.index[row]), outputs.target[row], outputs.predicted[row]
        caption = (
            f"{images.name(place)}: {names[target]}, taken for {names[said]} ({outputs.confidence[row]:.0%})"
        )
        shown.append(Shown(caption, images.load(place)))
    return shown


def _logs(outputs: ClassificationOutputs) -> NDArray[np.float64]:
    probabilities = outputs.probabilities
    assert probabilities is not None
    return np.log(np.maximum(probabilities, _TINY))
