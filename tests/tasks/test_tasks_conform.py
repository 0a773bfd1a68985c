"""What every task keeps to; one joins by being registered. One that needs more than the defaults says so here."""

import pickle

import pytest
import torch

from crosshead.data.base import DatasetInfo
from crosshead.recipe import default_recipe
from crosshead.tasks import METRICS, TASKS, open_task

INFO = DatasetInfo("made", ("a", "b", "c"), 1, (0.5,), (0.5,), scale=(1.0, 2.0))
SMALL = [
    "data.channels=1",
    "data.image_size=32",
    "data.batch_size=2",
    "model.drop_path_rate=0",
    "model.args.depth=1",
]
PLAIN = [f"augment.{key}=0" for key in ("erasing", "mixup", "cutmix")]
PLAIN += [f"augment.{key}=null" for key in ("crop_scale", "randaugment", "color_jitter")]
NEEDS = {
    "segment": ["model.segmenter.name=linear"],
    "detect": ["model.detector.name=retinanet", "data.eval_resize=32"],
}


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    torch.manual_seed(0)
    recipe = default_recipe([*SMALL, *PLAIN, f"task.name={request.param}", *NEEDS.get(request.param, [])])
    return open_task(recipe, INFO)


@pytest.mark.parametrize("name", TASKS)
def test_its_class_says_what_it_is(name):
    cls = TASKS.find(name)
    assert cls.targets in ("label", "map", "objects")
    answers = {"label": ("classes", "labels", "number"), "map": ("segments",), "objects": ("objects",)}
    assert cls.answers in answers[cls.targets]
    assert {type(each) for each in (cls.whole_pictures, cls.takes_windows)} == {bool}
    assert not cls.takes_windows or cls.whole_pictures


def test_its_metrics_are_known(task):
    assert task.primary.name in task.metrics and set(task.shown) <= set(task.metrics)
    assert set(task.metrics) <= METRICS.keys() and set(task.losses).isdisjoint(task.counts)


def test_an_empty_batch_calls_the_whole_network_and_counts_nothing(task):
    model, batch = task.build_model().train(), task.empty_batch()
    step = task.step(model, batch)
    assert set(step.losses) <= set(task.losses) and set(step.counts) <= set(task.counts)
    sum(step.losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with torch.inference_mode():
        said = task.predict(model.eval(), batch)
    assert len(task.finite(said)) == len(batch) and len(batch.index) == 0
    evaluation = task.evaluation()
    pickle.loads(pickle.dumps(evaluation.rows()))
    assert isinstance(evaluation.sums(), torch.Tensor)
