"""swap_attention on timm's models: what it promises, what it reports, what it refuses."""

import pytest
import timm
import torch
from timm.layers import Attention
from torch import nn

from crosshead import swap_attention
from crosshead.layers.hosts import PlainHost
from tolerances import OUTPUT, assert_close

# ViTs that differ: LayerScale, qk_norm, class tokens, registers, distillation, average pooling, post-norm.
VITS = [
    ("vit_tiny_patch16_224", {}),
    ("vit_small_patch16_224", dict(qk_norm=True, init_values=1e-1)),
    ("deit_tiny_distilled_patch16_224", {}),
    ("deit3_small_patch16_224", {}),
    ("vit_medium_patch16_reg1_gap_256", {}),
    ("vit_base_patch32_clip_224", dict(embed_dim=96, num_heads=6)),
]


def randomised(name, seed=0, **options):
    """A timm model whose weights, biases and norms are all random, so that nothing is preserved by being zero."""
    options = dict(img_size=64, num_classes=5, depth=3) | options
    torch.manual_seed(seed)
    model = timm.create_model(name, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def images(seed=0):
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "options"), VITS, ids=lambda v: v if isinstance(v, str) else "")
def test_preserve_keeps_the_outputs_and_trains_everything(name, options):
    model = randomised(name, **options)
    want = model(images())
    old = {id(p) for p in model.parameters()}
    report = swap_attention(model, overlap=[0, 3, 7])
    assert [r.options["overlap"] for r in report.replaced] == [0, 3, 7]
    assert_close(model(images()), want, OUTPUT[torch.float32], name)

    model.train()
    model(images()).square().sum().backward()
    new = {n: p for n, p in model.named_parameters() if id(p) not in old}
    assert {n.split(".")[-1] for n in new} >= {"borrow_gain", "weight"}
    for parameter_name, parameter in new.items():
        assert parameter.grad.abs().max() > 0, parameter_name
    with torch.no_grad():
        for parameter in new.values():
            parameter.sub_(0.1 * parameter.grad)
    assert (model.eval()(images()) - want).abs().max() > 1e-4


def test_paper_is_the_operator_without_gains():
    model = randomised("vit_tiny_patch16_224")
    want = model(images())
    swap_attention(model, overlap="constant:4", init="paper")
    assert not any("borrow_gain" in name for name, _ in model.named_parameters())
    assert (model(images()) - want).abs().max() > 1e-3


def test_no_overlap_changes_nothing_in_either_form():
    for init in ("preserve", "paper"):
        model = randomised("vit_tiny_patch16_224")
        want = model(images())
        report = swap_attention(model, overlap="none", init=init)
        assert_close(model(images()), want, OUTPUT[torch.float32])
        assert report.parameters_before == report.parameters_after


def test_chosen_blocks_count_from_either_end():
    model = randomised("vit_tiny_patch16_224", depth=4)
    report = swap_attention(model, overlap="index+1", blocks=[1, -1])
    kinds = [type(block.attn) for block in model.blocks]
    assert kinds == [Attention, PlainHost, Attention, PlainHost]
    assert [(r.block, r.options["overlap"]) for r in report.replaced] == [(1, 2), (3, 4)]
    assert [path for path, _ in report.untouched] == ["blocks.0.attn", "blocks.2.attn"]


def test_report_reads_well():
    text = str(swap_attention(randomised("vit_tiny_patch16_224"), overlap=2))
    assert "3 attention modules replaced (init=preserve)" in text
    assert "blocks.1.attn: Attention -> overlap (overlap 2)" in text


def test_weights_round_trip_through_a_second_swap(tmp_path):
    model = randomised("vit_tiny_patch16_224")
    swap_attention(model, overlap="index+1")
    other = randomised("vit_tiny_patch16_224", seed=1)
    swap_attention(other, overlap="index+1")
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images()), model(images()))


def test_works_on_any_module_that_holds_timms_attention():
    model = nn.Sequential(nn.Linear(8, 24), Attention(24, 3))
    swap_attention(model, overlap=2)
    assert type(model[1]) is PlainHost


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "coat_tiny",
            r"attention of class FactorAttnConvRelPosEnc at 'serial_blocks1.0.factoratt_crpe' \(and 25 more\)",
        ),
        ("resnet18", "ResNet has no attention"),
    ],
)
def test_unsupported_models_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        swap_attention(timm.create_model(name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            dict(kind="overlaps"),
            "no interaction 'overlaps'; did you mean overlap\\? known are overlap, imhsa",
        ),
        (dict(init="keep"), "init must be 'preserve' or 'paper', got 'keep'"),
        (dict(blocks=[3]), r"some of 0 to 2 .*got \[3\]"),
        (dict(blocks=[]), "some of 0 to 2"),
        (dict(overlap=[1, 2]), "lists 2 blocks and the model has 3"),
        (dict(overlap=65), "overlap of 65 in block 0 of 3, whose heads are 64 wide"),
    ],
)
def test_bad_input_leaves_the_model_as_it_was(arguments, message):
    model = randomised("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=message):
        swap_attention(model, **arguments)
    assert all(type(block.attn) is Attention for block in model.blocks)


def test_scale_norm_is_refused_by_name():
    model = nn.Sequential(Attention(24, 3, scale_norm=True, norm_layer=nn.LayerNorm))
    with pytest.raises(ValueError, match="overlap can't carry output norm"):
        swap_attention(model, overlap=2)
