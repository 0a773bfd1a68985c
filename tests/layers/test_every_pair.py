"""Every host with every interaction: preserved, learning, reducing to plain attention, or refused by name."""

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from every_pair import CASES, DIM, HEADS, SETTINGS, bias, create, inputs, output, table, why_not
from timm.models import hiera, hieradet_sam2, maxxvit
from torch import nn

from crosshead.layers import HOSTS, Capability, Interactive, Overlap, Talking, from_attention
from crosshead.layers.registry import _LATER
from tolerances import OUTPUT, assert_close

DOCUMENT = Path(__file__).parents[2] / "docs" / "hosts_and_interactions.md"
PAIRS = [(name, setting) for name in CASES for setting in SETTINGS]
FITTING = [(name, setting) for name, setting in PAIRS if why_not(name, setting) is None]


def _elsewhere(cls):
    """Of transformers' many classes alike some are here; what not every timm has is in test_younger_hosts.py, and known
    once that has run."""
    return cls.__module__.startswith("transformers.") or cls.__module__ in _LATER


def identify(value):
    return value if isinstance(value, str) else str(value).replace(" ", "_")


def test_every_host_is_here_and_the_document_is_up_to_date():
    assert {type(create(name)) for name in CASES} >= {cls for cls in HOSTS if not _elsewhere(cls)}
    assert DOCUMENT.read_text() == table(), (
        "run: python tests/layers/every_pair.py > docs/hosts_and_interactions.md"
    )


@pytest.mark.parametrize(("name", "interaction"), FITTING, ids=identify)
def test_outputs_are_preserved_and_every_new_parameter_learns(name, interaction):
    attn, call = create(name), CASES[name].call()
    want = output(attn(*inputs(name), **call))
    init = "paper" if interaction.changes_outputs else "preserve"
    layer = from_attention(create(name), interaction, init=init)
    layer.train()  # timm's TinyViT returns nothing there
    for part in layer.modules():  # of the host, which go by their statistics before the swap too
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part is not getattr(
            layer, "reattention_norm", None
        ):
            part.eval()
    old = {n: p.shape for n, p in attn.named_parameters()}
    got = output(layer(*inputs(name), **call))
    if not interaction.changes_outputs:
        assert_close(got, want, OUTPUT[torch.float32])
    assert got.shape == want.shape
    (got * torch.randn(got.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    for n, parameter in layer.named_parameters():
        new = old.get(n) != parameter.shape
        assert not new or n in interaction.cancelled or parameter.grad.abs().max() > 0, n


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_exchange_is_plain_attention(name):
    attn, call = create(name), CASES[name].call()
    want = output(attn(*inputs(name), **call))
    for interaction in (Overlap(0), Talking(0)):
        layer = from_attention(create(name), interaction, init="paper")
        assert_close(output(layer(*inputs(name), **call)), want, OUTPUT[torch.float32], str(interaction))
    if why_not(name, Interactive(2)) is None:
        mixed, apart = (
            from_attention(create(name), Interactive(2, on), init="paper") for on in (True, False)
        )
        found, alone = (output(layer(*inputs(name), **call)) for layer in (mixed, apart))
        assert_close(found, alone, OUTPUT[torch.float32])


@torch.no_grad()
@pytest.mark.parametrize(("name", "interaction"), FITTING, ids=identify)
def test_chosen_rows_of_the_weights_are_rows_of_the_whole(name, interaction):
    call = CASES[name].call()
    layer = from_attention(create(name), interaction, init="paper")
    whole = layer.attention_weights(*inputs(name), **call)
    count, _ = maps = CASES[name].maps
    assert whole.shape[1:] == (3, *maps)
    chosen = [count - 1, 1 % count, count // 2]
    some = layer.attention_weights(*inputs(name), heads=[2, 0], queries=chosen, **call)
    assert_close(some, whole[:, [2, 0]][:, :, chosen], OUTPUT[torch.float32])


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith(("rotary", "EVA")) or "DINOv3" in name]
)
def test_overlapped_logits_of_rotary_heads_depend_on_differences_of_positions_alone(name):
    """All tokens alike: then the weights can only come from positions, and moving all of them changes nothing."""
    torch.manual_seed(0)
    layer = from_attention(create(name), Overlap(5), init="paper")
    x = torch.randn(1, 1, 24).expand(1, 9, 24)
    here, there = (layer.attention_weights(x, **CASES[name].call(at=at)) for at in (0, 3))
    assert_close(there, here, OUTPUT[torch.float32])
    assert (here - 1 / 9).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "interaction"), [*FITTING, *((name, Overlap(0)) for name in CASES)], ids=identify
)
def test_without_a_head_the_others_get_nothing_of_it(name, interaction):
    """Whatever its queries, keys and values; and where heads exchange nothing it gives nothing anyway."""
    layer, call = from_attention(create(name), interaction, init="paper"), CASES[name].call()
    layer.train(False)
    for n, parameter in layer.named_parameters():
        if n.split(".")[0] in interaction.learned:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.2)
    read, others = layer.read, {}
    for moved in (True, False):
        for silent in (True, False):
            layer.read = (lambda *a, **k: _moved(read(*a, **k), head=1)) if moved else read
            with layer.interaction.without_head(layer, 1) if silent else nullcontext():
                out = layer.interaction.attend(layer, layer.heads_of(*inputs(name), **call))
            others[moved, silent] = out.unflatten(-1, (layer.num_heads, -1))[..., [0, 2], :]
    assert_close(others[True, True], others[False, True], OUTPUT[torch.float32])
    gives = (others[True, False] - others[False, False]).abs().max() > 1e-4
    assert gives == layer.interaction.exchanges(layer)


WIDENING = {
    "MaxViT": lambda: maxxvit.AttentionCl(DIM, 2 * DIM, dim_head=8, rel_pos_cls=bias),
    "CoAtNet": lambda: maxxvit.Attention2d(DIM, 2 * DIM, dim_head=8, rel_pos_cls=bias),
    "Hiera": lambda: hiera.MaskUnitAttention(DIM, 2 * DIM, HEADS),
    "SAM 2": lambda: hieradet_sam2.MultiScaleAttention(DIM, 2 * DIM, HEADS),
}


@torch.no_grad()
@pytest.mark.parametrize(("name", "interaction"), [(n, i) for n, i in FITTING if n in WIDENING], ids=identify)
def test_what_leaves_may_be_wider_than_what_enters(name, interaction):
    """As where stages begin. What tokens themselves are asked is as wide as these."""
    attn = WIDENING[name]().eval()
    init = "paper" if interaction.changes_outputs else "preserve"
    got, want = (
        from_attention(copy.deepcopy(attn), interaction, init=init)(*inputs(name)),
        attn(*inputs(name)),
    )
    assert got.shape == want.shape and got.shape != inputs(name)[0].shape
    if not interaction.changes_outputs:
        assert_close(got, want, OUTPUT[torch.float32])


# Without something between the heads and the projection: a norm, a residual, windows put together again.
_BETWEEN = ("ViT, output norm", "MViT", "Twins, grouped")


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(_BETWEEN)])
def test_what_enters_the_projection_is_told_by_head(name):
    """There heads are measured and taken away one by one."""
    layer, call = from_attention(create(name), Overlap(0), init="paper"), CASES[name].call()
    want = layer.interaction.attend(layer, layer.heads_of(*inputs(name), **call))
    if Capability.CHANNELS in layer.brings(layer):
        want = want.unflatten(-1, (3, -1)).permute(0, 3, 2, 1).flatten(2)
    entered = []
    entrance = layer.get_submodule(layer.entrance or layer.projection)
    entrance.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    layer(*inputs(name), **call)
    heads = layer.by_head(entered[0])
    assert torch.equal(layer.side_by_side(heads), entered[0])
    found = heads.flatten(-2).reshape(*want.shape)
    if name != "Hiera, pooled":  # whose mask units lie interleaved there
        assert_close(found, want, OUTPUT[torch.float32])


def _moved(heads, head):
    """With other queries, keys and values of one head."""
    by = torch.zeros(heads.q.shape[2], 1)
    by[head] = 0.5
    packed = None if heads.qkv is None else heads.qkv * (1 - by) + by
    return replace(heads, qkv=packed, **{n: getattr(heads, n) * (1 - by) + by for n in "qkv"})
