"""The loss against its formula, and metrics that do not depend on who saw what."""

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from crosshead.cli.terminal.wording import class_table
from crosshead.data.base import Batch, DatasetInfo
from crosshead.recipe.schema import Recipe, TaskConfig
from crosshead.tasks import METRICS, ClassifyTask
from crosshead.tasks.losses import class_weights, focal_loss
from tolerances import OUTPUT, assert_close


def task_of(classes, **config):
    info = DatasetInfo("toy", tuple(map(str, range(classes))), 3, (0.5,) * 3, (0.5,) * 3)
    return ClassifyTask(Recipe(task=TaskConfig(**config)), info)


def batch_of(targets, index=None):
    count = len(targets)
    index = torch.arange(count) if index is None else index
    return Batch(torch.zeros(count, 1, 1, 1), targets, index, tuple(f"image {i}" for i in index.tolist()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_loss_is_cross_entropy_against_smoothed_targets(smoothing, mixed):
    torch.manual_seed(0)
    logits = torch.randn(5, 7, dtype=torch.float32)
    targets = torch.softmax(torch.randn(5, 7), -1) if mixed else torch.randint(7, (5,))
    wanted = targets if mixed else torch.nn.functional.one_hot(targets, 7).float()
    wanted = wanted * (1 - smoothing) + smoothing / 7
    expected = -(wanted * logits.log_softmax(-1)).sum(-1).mean()
    got = task_of(7, label_smoothing=smoothing).loss(logits, batch_of(targets))
    assert_close(got, expected, OUTPUT[torch.float32])


def test_loss_is_computed_in_float32():
    logits = torch.randn(5, 7).bfloat16()
    loss = task_of(7).loss(logits, batch_of(torch.arange(5)))
    assert loss.dtype == torch.float32


def test_hits_are_counted_where_targets_are_classes():
    logits = torch.eye(4)
    task = task_of(4)
    assert task.hits(logits, batch_of(torch.tensor([0, 1, 1, 3]))).item() == 3
    assert task.hits(logits, batch_of(torch.eye(4))) is None


def test_metrics_do_not_depend_on_the_split_over_processes_or_the_order():
    torch.manual_seed(1)
    logits, targets = torch.randn(101, 9), torch.randint(9, (101,))
    task = task_of(9)

    def metrics(parts):
        judges = []
        for part in parts:
            judge = task.evaluation()
            for some in part.split(7):
                judge.update(logits[some], batch_of(targets[some], some))
            judges.append(judge)
        return judges[0].compute(judges[0].sums(), [judge.rows() for judge in judges]).metrics

    whole = metrics([torch.arange(101)])
    places = logits.argsort(-1, descending=True)
    assert whole["accuracy"] == (places[:, 0] == targets).sum().item() / 101
    assert whole["top5"] == (places[:, :5] == targets[:, None]).any(1).sum().item() / 101
    assert whole["count"] == 101
    predicted = places[:, 0]
    assert whole["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, predicted), abs=1e-12)
    assert whole["macro_f1"] == f1_score(targets, predicted, average="macro")
    for size in (2, 3, 5):
        assert metrics([torch.arange(rank, 101, size) for rank in range(size)]) == whole
    assert metrics([torch.randperm(101), torch.arange(0)]) == whole


def judged(task, logits, targets, **options):
    judge = task.evaluation(**options)
    judge.update(logits, batch_of(targets))
    return judge.compute(judge.sums(), [judge.rows()])


def test_top_five_is_told_where_there_are_more_than_five_classes():
    assert "top5" not in judged(task_of(5), torch.eye(5), torch.arange(5)).metrics
    assert judged(task_of(6), torch.eye(6), torch.arange(6)).metrics["top5"] == 1.0


def test_tables_of_classes_agree_with_scikit_learn_and_leave_no_class_out():
    """Class 3 has no images and is never predicted; class 2 is never found."""
    targets = torch.tensor([0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 1, 0])
    found = judged(task_of(4), torch.eye(4)[predicted] * 3, targets)
    assert found.details["confusion"] == confusion_matrix(targets, predicted, labels=range(4)).tolist()
    rows = {row["class"]: row for row in found.details["classes"]}
    assert [rows[name]["images"] for name in "0123"] == [3, 2, 1, 0]
    assert [rows[name]["recall"] for name in "0123"] == [2 / 3, 1.0, 0.0, None]
    assert [rows[name]["precision"] for name in "012"] == pytest.approx([2 / 3, 2 / 3, 0.0])
    assert rows["3"]["precision"] is None and rows["3"]["f1"] is None
    assert found.metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    lines = class_table(found.details)
    assert lines[-1] == "never found: 2" and len(lines) == 6


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    logits = torch.tensor([0.9, 0.1]).log().repeat(10, 1)
    right = torch.tensor([0] * 6 + [1] * 4)
    assert judged(task_of(2), logits, right).metrics["calibration_error"] == pytest.approx(0.3, abs=1e-6)


def test_predictions_are_kept_in_the_order_of_the_data_set():
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    judge = task_of(2).evaluation(predictions=True)
    judge.update(logits, batch_of(torch.tensor([1, 1]), index=torch.tensor([7, 3])))
    rows = judge.compute(judge.sums(), [judge.rows()]).predictions
    assert [(row["index"], row["target"], row["predicted"]) for row in rows] == [(3, "1", "0"), (7, "1", "1")]
    assert rows[0]["p(0)"] == pytest.approx(torch.tensor([1.0, 0.0]).softmax(0)[0].item(), abs=1e-6)


def test_class_weights_have_the_mean_one_over_the_training_images():
    balanced = class_weights("balanced", [0] * 6 + [1] * 2 + [3], "abcd")
    assert_close(balanced, torch.tensor([9 / 18, 9 / 6, 0.0, 9 / 3]), OUTPUT[torch.float32])
    given = class_weights([1.0, 3.0], [0, 0, 1, 1], "ab")
    assert_close(given, torch.tensor([0.5, 1.5]), OUTPUT[torch.float32])
    with pytest.raises(ValueError, match="3 numbers and the data 2 classes"):
        class_weights([1.0, 2.0, 3.0], [0, 1], "ab")
    by_name = class_weights({"b": 3.0}, [0, 0, 1, 1], "ab")
    assert_close(by_name, given, OUTPUT[torch.float32])
    with pytest.raises(ValueError, match="no class 'cat'; the nearest is 'car'"):
        class_weights({"cat": 2.0}, [0, 1], ["car", "dog"])


def test_focal_loss_without_focus_is_cross_entropy_and_weighs_known_images_less():
    torch.manual_seed(2)
    logits, targets, weight = torch.randn(6, 4), torch.randint(4, (6,)), torch.rand(4) + 0.5
    cross_entropy = torch.nn.functional.cross_entropy(
        logits, targets, weight, reduction="none", label_smoothing=0.1
    )
    got = focal_loss(logits, targets, gamma=0.0, smoothing=0.1, weight=weight)
    assert_close(got, cross_entropy, OUTPUT[torch.float32])
    p = logits.softmax(-1)[torch.arange(6), targets]
    assert_close(focal_loss(logits, targets, gamma=2.0), -((1 - p) ** 2) * p.log(), OUTPUT[torch.float32])


def test_a_checkpoint_is_selected_by_the_metric_that_is_asked_for():
    assert task_of(3).primary.name == "accuracy"
    assert task_of(3, select_by="macro_f1").primary.name == "macro_f1"
    with pytest.raises(ValueError, match=r"task\.select_by is 'top5'; this task and data give accuracy"):
        task_of(3, select_by="top5")
    loss, accuracy = METRICS["loss"], METRICS["accuracy"]
    assert loss.selects({"loss": 0.1}, {"loss": 0.2}) and not loss.selects({"loss": 0.2}, {"loss": 0.1})
    assert loss.selects({"loss": 0.1}, {"loss": float("nan")})
    better, worse = {"accuracy": 0.9, "loss": 0.2}, {"accuracy": 0.9, "loss": 0.3}
    assert accuracy.selects(better, worse) and not accuracy.selects(worse, better)
    assert accuracy.selects(dict(worse), worse), "the later one"
