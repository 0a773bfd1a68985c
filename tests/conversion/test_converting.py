"""Attention converted: what the student is told, and that it comes nearer to its teacher."""

import copy
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import crosshead
from crosshead.conversion.costs import forward_costs, peak_mib
from crosshead.conversion.distilling import Lesson, repeated, train
from crosshead.conversion.objectives import answers_alike, attention_error, features_alike, relative_error
from tolerances import OUTPUT, assert_close


def vit(**more):
    args = dict(img_size=16, patch_size=4, in_chans=1, num_classes=3, embed_dim=12, depth=2, num_heads=2)
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **(args | more)).eval()
    with torch.no_grad():  # attention that attends to something, and a classifier that says something
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def batches(count=3, size=8):
    torch.manual_seed(1)
    return [(torch.randn(size, 1, 16, 16), torch.randint(3, (size,))) for _ in range(count)]


def test_the_divergence_is_hintons():
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    wanted = 4 * (p * (p / q).log()).sum(-1).mean()
    assert math.isclose(answers_alike(student, teacher).item(), wanted.item(), rel_tol=1e-5)
    assert answers_alike(teacher, teacher).abs() < 1e-6


def test_half_of_each_with_labels_and_the_model_alone_without():
    teacher, (images, targets) = vit(), batches(1)[0]
    student = vit(embed_dim=16).eval()
    parts = [
        Lesson(teacher, student, [], labels, F.cross_entropy).of((images, targets))
        for labels in (True, False)
    ]
    supervised = Lesson(None, student, [], True, F.cross_entropy).of((images, targets))
    assert math.isclose(parts[0].item(), ((parts[1] + supervised) / 2).item(), rel_tol=1e-5)


def test_the_same_attention_has_no_error_in_any_layer():
    model, (images, _) = vit(), batches(1)[0]
    paths = [f"blocks.{i}.attn" for i in range(2)]
    assert attention_error(copy.deepcopy(model), model, images, paths) == 0
    assert features_alike(vit(num_classes=0), vit(num_classes=0), images).abs() < 1e-5


def test_a_layer_is_matched_on_what_the_teacher_gave_it():
    """An error in the first block moves no input of the second; both are as if each layer were called by itself."""
    teacher, (images, _) = vit(), batches(1)[0]
    student = copy.deepcopy(teacher)
    crosshead.swap_attention(student, "imhsa", init="paper", landmarks=2)
    paths = [f"blocks.{i}.attn" for i in range(2)]
    found = attention_error(student, teacher, images, paths)
    calls = []
    for path in paths:
        teacher.get_submodule(path).register_forward_hook(lambda _, args, out: calls.append((args[0], out)))
    with torch.no_grad():
        teacher(images)
        student(images)  # which tells its layers of the grid
    pairs = zip(paths, calls, strict=True)
    wanted = sum(relative_error(student.get_submodule(path)(x), out) for path, (x, out) in pairs)
    assert_close(found, wanted, OUTPUT[torch.float32])
    found.backward()
    moved = {name.split(".")[2] for name, p in student.named_parameters() if p.grad is not None}
    assert moved == {"attn"}


@pytest.mark.parametrize(("labels", "match_steps", "classes"), [(True, 0, 3), (False, 4, 3), (False, 0, 0)])
def test_it_comes_nearer_to_what_it_was(labels, match_steps, classes):
    model = vit(num_classes=classes)
    kept = copy.deepcopy(model.state_dict())
    found = crosshead.convert_attention(
        model, batches(), "imhsa", steps=16, match_steps=match_steps, labels=labels, lr=1e-2, landmarks=2
    )
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    assert len(found.losses) == 16 and len(found.swapped.replaced) == 2
    assert found.losses[-1] < found.losses[match_steps]
    if match_steps:
        assert found.losses[match_steps - 1] < found.losses[0]
    assert all(p.requires_grad for p in found.model.parameters()) and not found.model.training


def test_attention_alone_is_trained_where_that_is_asked():
    model = vit()
    found = crosshead.convert_attention(model, batches(), steps=2, attention_only=True, landmarks=2)
    same = {
        name: torch.equal(p, found.model.state_dict().get(name, p)) for name, p in model.state_dict().items()
    }
    assert {name for name, alike in same.items() if not alike} <= {n for n in same if ".attn." in n}
    assert not same["blocks.0.attn.qkv.weight"]


def test_controls_learn_from_labels_alone():
    model = vit()
    losses = train(model, Lesson(None, model, [], True, F.cross_entropy), batches(1), steps=12, lr=1e-2)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (vit, {"steps": 0}, "at least one step, and of these from none to all for matching, got 0 and 0"),
        (vit, {"steps": 2, "match_steps": 3}, "got 2 and 3"),
        (
            lambda: vit(num_classes=0),
            {"steps": 1},
            "has no classes, and labels say nothing to it: pass labels=False",
        ),
        (vit, {"steps": 1, "landmark": 3}, "landmark"),
        (lambda: nn.Linear(2, 2), {"steps": 1}, "has no attention that shows"),
    ],
)
def test_what_is_refused(model, given, message):
    with pytest.raises(ValueError, match=message):
        crosshead.convert_attention(model(), batches(), **given)
    with pytest.raises(ValueError, match="there is no batch"):
        next(repeated([]))


def test_memory_is_linear_in_the_tokens_after_and_quadratic_before():
    model = vit(img_size=32, patch_size=2)
    after = copy.deepcopy(model)
    crosshead.swap_attention(after, "imhsa", init="paper", landmarks=2)
    costs = {
        (c.model, c.size[0]): c
        for c in forward_costs({"before": model, "imhsa": after}, (32, 32), 1, factors=(1, 2), rounds=1)
    }
    assert set(costs) == {(name, size) for name in ("before", "imhsa") for size in (32, 64)}
    assert all(c.ms > 0 and c.mib > 0 and not c.refused for c in costs.values())
    assert costs["imhsa", 64].mib / costs["imhsa", 32].mib < 4.5
    assert model.patch_embed.grid_size == (16, 16)  # the model stays of its size


def test_the_most_that_is_held_at_once_is_counted():
    image = torch.zeros(1, 1, 256, 256)  # a quarter of a MiB
    model = nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Tanh())  # two at a time: what goes in, what comes out
    assert peak_mib(model, image) == 0.5


def test_a_size_that_a_model_refuses_is_told():
    found = forward_costs(
        {"fixed": nn.Sequential(nn.Flatten(), nn.Linear(16, 2))}, (4, 4), 1, factors=(1, 2), rounds=1
    )
    assert not found[0].refused and math.isnan(found[1].ms) and "shapes" in found[1].refused
