"""Losses of segments against their formulas, and sums over units whatever the batches."""

import pytest
import torch
from test_segment import INFO, segment_recipe, toy_batch

from crosshead.data.base import IGNORED, Batch
from crosshead.tasks import SegmentTask
from crosshead.tasks.losses import region_loss


def small(batch=2):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(batch, 3, 6, 7, generator=generator, dtype=torch.float64).float()
    targets = torch.randint(0, 3, (batch, 6, 7), generator=generator).to(torch.uint8)
    targets[:, :2] = IGNORED
    return logits.requires_grad_(), targets


def overlaps(logits, targets):
    """Of one picture, by class: shared, said beyond it, and missed; the ignored left out."""
    known = targets != IGNORED
    said = logits.softmax(0)[:, known]
    there = torch.nn.functional.one_hot(targets[known].long(), 3).T.to(said)
    shared = (said * there).sum(1)
    return shared, said.sum(1) - shared, there.sum(1) - shared


@pytest.mark.parametrize("name", ["dice", "tversky"])
def test_they_are_the_formulas(name):
    logits, targets = small()
    found = region_loss(name, 0.3)(logits, targets).item()
    alpha, beta = (0.5, 0.5) if name == "dice" else (0.3, 0.7)
    wanted = 0.0
    for one, truth in zip(logits, targets, strict=True):
        shared, beyond, missed = overlaps(one, truth)
        wanted += (1 - shared / (shared + alpha * beyond + beta * missed)).mean()
    assert found == pytest.approx(wanted.item(), rel=1e-5)


def test_lovasz_is_one_less_iou_where_the_answer_is_sure():
    """On vertices of the cube the extension is the set function itself."""
    _, targets = small(1)
    said = torch.randint(0, 3, (1, 6, 7), generator=torch.Generator().manual_seed(5))
    logits = 60.0 * torch.nn.functional.one_hot(said, 3).movedim(-1, 1).float()
    shared, beyond, missed = overlaps(logits[0], targets[0])
    wanted = (1 - shared / (shared + beyond + missed)).mean()
    assert region_loss("lovasz", 0.3)(logits, targets).item() == pytest.approx(float(wanted), abs=1e-5)


@pytest.mark.parametrize("name", ["dice", "tversky", "lovasz"])
def test_a_batch_is_the_sum_of_its_pictures_and_nothing_known_costs_nothing(name):
    logits, targets = small()
    loss = region_loss(name, 0.3)
    parts = sum(loss(logits[i : i + 1], targets[i : i + 1]) for i in range(2))
    torch.testing.assert_close(loss(logits, targets), parts)
    nothing = loss(logits, torch.full_like(targets, IGNORED))
    nothing.backward()
    assert nothing == 0 and not logits.grad.any()


def test_a_task_adds_it_and_its_units_are_pictures():
    plain = SegmentTask(segment_recipe(), INFO)
    task = SegmentTask(segment_recipe(task={"region_loss": "dice", "region_weight": 0.5}), INFO)
    torch.manual_seed(0)
    model, batch = task.build_model().eval(), toy_batch()
    model.train(True)
    for module in model.modules():
        module.eval() if isinstance(module, torch.nn.Dropout2d) else None
    both, alone = task.step(model, batch).losses, plain.step(model, batch).losses
    torch.testing.assert_close(both["cross_entropy"], alone["cross_entropy"])
    assert set(both) == {"cross_entropy", "region"} == set(task.losses) and 0 < both["region"] < 0.5 * 2
    nothing = Batch(batch.images, batch.targets.clone(), batch.index)
    nothing.targets[1] = IGNORED
    assert task.loss_divisors(batch)["region"] == 2 and task.loss_divisors(nothing)["region"] == 1


def test_focal_loss_of_pixels_is_cross_entropy_where_gamma_vanishes():
    logits, targets = small()
    weights = {"sky": 3.0}
    tasks = [
        SegmentTask(segment_recipe(task={"class_weights": weights, "focal_gamma": gamma}), INFO)
        for gamma in (None, 1e-9, 2.0)
    ]
    entropy, vanishing, focal = (task.loss(logits, targets) for task in tasks)
    torch.testing.assert_close(entropy, vanishing)
    assert 0 < focal < entropy
