"""What validation pictures choose, and what is said of it."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from crosshead.data.base import ArrayImages, Batch
from crosshead.judging import classifier
from crosshead.judging.choices import Choices, best_threshold, cooled, fit_temperature
from crosshead.judging.judgement import Report, thinned
from crosshead.tasks.classify.evaluation import ClassifyEvaluation, calibration_error


def outputs_of(logits, targets, names=("cat", "dog"), **options):
    evaluation = ClassifyEvaluation(names, predictions=True, **options)
    evaluation.update(logits, Batch(None, targets, torch.arange(len(targets))))
    return evaluation.compute(evaluation.sums(), [evaluation.rows()])


def overconfident(count=4000, factor=3.0, seed=0):
    """Logits three times what they should be: the temperature is known."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 4, generator=generator).double() * 1.5
    targets = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return factor * logits, targets


def test_the_temperature_is_found_and_calibrates_other_pictures():
    logits, targets = overconfident()
    found = fit_temperature(logits.numpy(), targets.numpy())
    assert found == pytest.approx(3.0, rel=0.06)
    unseen, labels = overconfident(seed=1)
    errors = []
    for temperature in (1.0, found):
        probabilities = np.exp(cooled(unseen.numpy(), temperature))
        errors.append(
            calibration_error(probabilities.max(1), (probabilities.argmax(1) == labels.numpy()).astype(float))
        )
    assert errors[1] < 0.05 < 0.15 < errors[0]
    logs = torch.log_softmax(logits, -1).numpy()
    assert fit_temperature(logs, targets.numpy()) == pytest.approx(found, rel=1e-4), "logs serve as logits do"


def test_the_threshold_has_the_best_balanced_accuracy_of_all():
    rng = np.random.default_rng(0)
    there = rng.random(400) < 0.1
    scores = np.round(np.clip(0.15 + 0.2 * there + rng.normal(0, 0.1, 400), 0, 1), 3)
    chosen = best_threshold(scores, there)

    def balanced(threshold):
        said = scores >= threshold
        return (said[there].mean() + (~said[~there]).mean()) / 2

    assert balanced(chosen) == pytest.approx(max(balanced(t) for t in np.unique(scores)))
    assert balanced(chosen) > balanced(0.5) + 0.2 and chosen not in scores
    with pytest.raises(ValueError, match="one of the two classes has no picture"):
        best_threshold(scores, np.zeros(400, bool))


def test_an_evaluation_says_by_the_threshold():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 0.9]])
    targets = torch.tensor([0, 1, 1])
    assert outputs_of(logits, targets).metrics["accuracy"] == pytest.approx(2 / 3)
    found = outputs_of(logits, targets, threshold=0.4)
    assert found.metrics["accuracy"] == 1.0 and found.outputs.predicted.tolist() == [0, 1, 1]
    assert outputs_of(logits, targets, threshold=0.05).outputs.predicted.tolist() == [1, 1, 1]


def test_a_classifier_of_two_classes_is_judged_by_what_others_chose():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(400, generator=generator) < 0.15).long()
    logits = torch.stack([torch.ones(400), targets * 1.5 - 1 + torch.randn(400, generator=generator)], 1) * 2
    chosen = classifier.choose(outputs_of(logits[:200], targets[:200]).outputs)
    judged = outputs_of(logits[200:], targets[200:]).outputs
    report = Report("x", "test", "validation")
    classifier.judge(judged, chosen, report)
    plain, at_chosen = report.tables[0].rows
    assert at_chosen["value"] == f"{chosen.threshold:.4f}" and plain["value"] == "0.5000"
    assert float(at_chosen["recall of dog"][:-1]) > float(plain["recall of dog"][:-1])
    assert "Temperature" in report.sentences[0] and "chosen on validation" in at_chosen["threshold"]
    images = ArrayImages(torch.zeros(200, 1, 8, 8, dtype=torch.uint8), targets[200:].numpy(), "made")
    shown = classifier.worst(judged, images, 5)
    losses = sorted(
        (float(x) for x, hit in zip(judged.losses, judged.right, strict=True) if not hit), reverse=True
    )
    assert len(shown) == 5 and isinstance(shown[0].image, Image.Image)
    first = int(shown[0].caption.partition("[")[2].partition("]")[0])
    assert judged.losses[first] == losses[0] and judged.right[first] == 0
    assert "taken for" in shown[0].caption


def test_choices_are_kept_and_become_keys(tmp_path):
    chosen = Choices(120, 1.3, 0.2, {"a cat": 0.4, "dog": 0.25})
    chosen.save(tmp_path)
    assert Choices.load(tmp_path) == chosen
    assert chosen.values() == {
        "task.temperature": 1.3,
        "task.threshold": 0.2,
        "task.score_threshold": {"a cat": 0.4, "dog": 0.25},
    }
    with pytest.raises(ValueError, match="nothing was chosen for this run so far"):
        Choices.load(tmp_path / "elsewhere")
    (tmp_path / "judging.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Choices.load(tmp_path)


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    points = [(float(i), math.sqrt(i)) for i in range(1000)]
    thin = thinned(points)
    assert (
        len(thin) == 200
        and (thin[0], thin[-1]) == (points[0], points[-1])
        and thinned(points[:7]) == points[:7]
    )
