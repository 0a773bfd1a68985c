"""Every image is judged once, or the evaluation fails."""

import pytest
import torch
from torch import nn

from crosshead.data.base import Batch, DatasetInfo
from crosshead.recipe.schema import Recipe
from crosshead.tasks import ClassifyTask
from crosshead.train.distributed.groups import World
from crosshead.train.loop.evaluate import evaluate

TASK = ClassifyTask(Recipe(), DatasetInfo("toy", ("a", "b", "c"), 1, (0.5,), (0.5,)))


class Model(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)

    def forward(self, images):
        return super().forward(images.flatten(1))


def batch(index, skipped=()):
    index = torch.tensor(index, dtype=torch.int64)
    images = torch.randn(len(index), 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return Batch(images, index % 3, index, tuple(map(str, index.tolist())), skipped)


def judged(batches, images, **options):
    eval_result = evaluate(TASK, Model(), batches, images=images, world=World(), **options)
    return eval_result and eval_result.metrics


def test_counts_every_image():
    assert judged([batch([0, 1, 2]), batch([3])], images=4)["count"] == 4


def test_images_that_were_left_out_are_counted_too():
    metrics = judged([batch([0, 1], skipped=(("two.png", "cut short"),)), batch([])], images=3)
    assert metrics["count"] == 2 and metrics["skipped"] == 1


@pytest.mark.parametrize(
    "batches", [[[0, 1], [1, 2]], [[0, 1]], [[0, 1], [2, 3]]], ids=["twice", "missing", "too many"]
)
def test_an_image_seen_twice_or_not_at_all_is_an_error(batches):
    with pytest.raises(
        RuntimeError, match=r"evaluation saw \d images, \d different ones, and skipped 0, of 3"
    ):
        judged([batch(each) for each in batches], images=3)


def test_stopping_gives_nothing_rather_than_a_part():
    assert judged([batch([0]), batch([1])], images=2, stopped=lambda: True) is None


def test_the_mode_of_the_model_is_given_back():
    for training in (True, False):
        model = Model().train(training)
        evaluate(TASK, model, [batch([0])], images=1, world=World())
        assert model.training is training
