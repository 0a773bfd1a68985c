"""The loss against its formula, and metrics that do not depend on who saw what."""

import pytest
import torch

from crosshead.data.loading.batch import Batch
from crosshead.data.sets.common import DatasetInfo
from crosshead.recipe.schema import Recipe, TaskConfig
from crosshead.tasks import ClassifyTask
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
    for size in (2, 3, 5):
        assert metrics([torch.arange(rank, 101, size) for rank in range(size)]) == whole
    assert metrics([torch.randperm(101), torch.arange(0)]) == whole


def test_top_five_of_fewer_classes_is_all_of_them():
    judge = task_of(3).evaluation()
    judge.update(torch.eye(3), batch_of(torch.tensor([2, 2, 2])))
    assert judge.compute(judge.sums(), [judge.rows()]).metrics["top5"] == 1.0
