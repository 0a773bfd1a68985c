"""Who is spared weight decay, and the learning rate of every step."""

import copy
import itertools
import math

import pytest
import timm
import torch
from torch import nn

from crosshead.recipe.schema import OptimizerConfig, Recipe, ScheduleConfig
from crosshead.train.loop.optim import build_optimizer, build_schedule, freeze, rate_scale


def decayed(model, optimizer):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]
        for group in optimizer.param_groups
        if group["weight_decay"]
        for parameter in group["params"]
    }


def test_biases_norms_positions_and_tokens_are_not_decayed():
    model = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=3)
    got = decayed(model, build_optimizer(model, OptimizerConfig(), 64))
    assert got == {
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.weight",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.weight",
        "head.weight",
    }


def test_relative_position_tables_are_not_decayed():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(1, 2), embed_dim=8, img_size=56
    )
    tables = [name for name, _ in model.named_parameters() if "relative_position_bias_table" in name]
    assert len(tables) == 2
    got = decayed(model, build_optimizer(model, OptimizerConfig(), 64))
    assert not got & set(tables) and "layers.0.blocks.0.attn.qkv.weight" in got


def rates(config, steps, *, per_epoch, lr=1.0, scale=1.0):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=lr)
    set_rate = build_schedule(optimizer, config, total_steps=steps, steps_per_epoch=per_epoch, scale=scale)
    return [set_rate(step) for step in range(steps)], set_rate


def test_warm_up_is_linear_and_the_rest_half_a_cosine():
    config = ScheduleConfig(warmup_epochs=2.0, warmup_lr=0.1, min_lr=0.01)
    got, _ = rates(config, 50, per_epoch=5)
    assert got[:10] == pytest.approx([0.1 + 0.9 * step / 10 for step in range(10)])
    cosine = [0.01 + 0.99 * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    assert got[10:] == pytest.approx(cosine)


def test_the_rate_depends_on_the_step_alone():
    config = ScheduleConfig(warmup_epochs=2.0)
    got, set_rate = rates(config, 50, per_epoch=5)
    assert [set_rate(step) for step in (3, 40, 17)] == [got[3], got[40], got[17]]


def test_a_constant_rate_keeps_its_warm_up():
    got, _ = rates(ScheduleConfig(name="constant", warmup_epochs=1.0, warmup_lr=0.0), 10, per_epoch=4)
    assert got == pytest.approx([0.0, 0.25, 0.5, 0.75, *[1.0] * 6])


def test_a_polynomial_falls_to_the_least_rate_after_its_warm_up():
    config = ScheduleConfig(name="poly", power=0.9, warmup_steps=10, warmup_lr=0.1, min_lr=0.01)
    got, _ = rates(config, 50, per_epoch=7)
    assert got[:10] == pytest.approx([0.1 + 0.9 * step / 10 for step in range(10)])
    assert got[10:] == pytest.approx([0.01 + 0.99 * (1 - step / 40) ** 0.9 for step in range(40)])


def test_steps_fall_at_their_milestones_counted_from_the_start():
    config = ScheduleConfig(name="step", milestones=[2, 3.5], gamma=0.1, warmup_steps=3, warmup_lr=0.0)
    got, _ = rates(config, 20, per_epoch=4)
    assert got == pytest.approx([0.0, 1 / 3, 2 / 3, *[1.0] * 5, *[0.1] * 6, *[0.01] * 6])


def test_a_warm_up_in_steps_that_leaves_none_is_refused():
    with pytest.raises(ValueError, match="takes 50 of 50 steps"):
        rates(ScheduleConfig(warmup_steps=50), 50, per_epoch=5)
    with pytest.raises(ValueError, match="milestones is \\[\\]"):
        Recipe(schedule=ScheduleConfig(name="step", warmup_epochs=1))


def test_rates_scale_with_the_total_batch_only_when_asked():
    assert rate_scale(OptimizerConfig(), 1024) == 1.0
    asked = OptimizerConfig(lr=1e-3, lr_batch_size=512)
    assert rate_scale(asked, 1024) == 2.0
    assert build_optimizer(nn.Linear(2, 2), asked, 1024).param_groups[0]["lr"] == pytest.approx(2e-3)


@pytest.mark.parametrize("name", ["sgd", "lamb", "adamw", "lion"])
def test_optimizers_of_other_kinds_take_what_they_know(name):
    build_optimizer(nn.Linear(2, 2), OptimizerConfig(name=name), 64)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match=r"optimizer\.name is 'adamx'"):
        build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="adamx"), 64)


def small_vit():
    return timm.create_model(
        "vit_tiny_patch16_224", depth=3, embed_dim=8, num_heads=2, img_size=16, patch_size=8, num_classes=3
    )


def rates_by_name(model, optimizer):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_rates_fall_from_block_to_block_and_the_head_has_its_own():
    model = small_vit()
    config = OptimizerConfig(lr=1e-3, layer_decay=0.5, head_lr=4e-3)
    optimizer = build_optimizer(model, config, 64)
    set_rate = build_schedule(
        optimizer,
        ScheduleConfig(warmup_epochs=0, min_lr=0),
        total_steps=10,
        steps_per_epoch=5,
        scale=rate_scale(config, 64),
    )
    assert set_rate(0) == pytest.approx(1e-3)
    got = rates_by_name(model, optimizer)
    assert got["head.weight"] == got["head.bias"] == pytest.approx(4e-3)
    blocks = [got[f"blocks.{i}.mlp.fc1.weight"] for i in range(3)]
    assert [upper / lower for lower, upper in itertools.pairwise(blocks)] == pytest.approx([2, 2])
    assert got["patch_embed.proj.weight"] < blocks[0] and got["norm.weight"] == pytest.approx(5e-4)
    assert decayed(model, optimizer) == decayed(model, build_optimizer(model, OptimizerConfig(), 64))
    half = set_rate(5)
    assert half == pytest.approx(1e-3 / 2)
    assert rates_by_name(model, optimizer)["head.weight"] == pytest.approx(4 * half)


def test_what_is_frozen_gets_no_gradient_and_no_update():
    model = small_vit()
    freeze(model, ["patch_embed.*", "blocks.[01].*", "pos_embed"])
    optimizer = build_optimizer(model, OptimizerConfig(layer_decay=0.7), 64)
    trained = rates_by_name(model, optimizer)
    assert "blocks.2.norm1.weight" in trained and "cls_token" in trained
    assert not [
        name for name in trained if name.startswith(("patch_embed", "blocks.0", "blocks.1", "pos_embed"))
    ]
    with pytest.raises(ValueError, match=r"no parameter is like 'block.*'; the nearest are blocks"):
        freeze(model, ["block.*"])
    with pytest.raises(ValueError, match="nothing is left to train"):
        freeze(model, ["*"])


def test_a_frozen_batch_norm_keeps_its_statistics():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    freeze(model, ["1.*"])
    for each in (model, copy.deepcopy(model)):
        each.train()
        before = each[1].running_mean.clone()
        each(torch.randn(8, 3, 4, 4) + 3)
        assert each[1].running_mean.equal(before) and not each[1].training
        assert each[2].running_mean.abs().sum() > 0 and each.training
