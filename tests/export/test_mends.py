"""What is written otherwise while a model is traced: the same numbers, free sizes, and nothing left behind."""

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from timm.layers import pos_embed_sincos
from torch import nn
from transformers import masking_utils
from transformers.models.dinov2_with_registers import modeling_dinov2_with_registers as registers
from transformers.models.siglip2 import modeling_siglip2 as siglip2

import test_swap_others as others
from crosshead.export.graphs import step_of
from crosshead.export.mends import followed
from export.export_cases import MODES, measure, on_host
from tolerances import OUTPUT, assert_close


def test_attention_of_more_axes_is_that_of_four(monkeypatch):
    theirs, seen = F.scaled_dot_product_attention, []

    def of_four(*args, **options):
        seen.append(args[0].dim())
        return theirs(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", of_four)
    q, k, v = torch.randn(3, 2, 5, 3, 4, 8, generator=torch.Generator().manual_seed(1)).unbind(0)
    with followed(nn.Identity()):
        got = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        flat = F.scaled_dot_product_attention(q[:, 0], k[:, 0], v[:, 0], scale=0.5)
    assert seen == [4, 4] and F.scaled_dot_product_attention is of_four
    assert_close(got, theirs(q, k, v, scale=0.5), OUTPUT[torch.float32])
    assert torch.equal(flat, theirs(q[:, 0], k[:, 0], v[:, 0], scale=0.5))


def test_a_mask_that_hides_nothing_is_none_while_exporting_too(monkeypatch):
    """Attention that takes no mask, as re-attention, once was refused in transformers' models."""
    monkeypatch.setattr(masking_utils, "is_torchdynamo_exporting", lambda: True)
    config = hf.Dinov2Config(**others.VIT, attn_implementation="sdpa")
    tokens, shown = torch.zeros(2, 5, 32), torch.tensor([[1, 1, 1, 1, 0]] * 2)
    make = masking_utils.create_bidirectional_mask
    assert make(config, tokens, None) is not None
    with followed(nn.Identity()):
        assert make(config, tokens, None) is None
        assert torch.equal(make(config, tokens, shown), make(config, tokens, shown.bool()))
        assert not make(config, tokens, shown)[..., -1].any()


class Sides(nn.Module):
    """What once was the example's: an integer of a side in transformers, DINOv3's places and PVT's averages in timm."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((3, 4))

    def forward(self, x):
        rows, columns = x.shape
        places = pos_embed_sincos._build_grid([rows, columns], "centered", grid_offset=0.0)
        return torch.ones(registers.torch_int(rows), 2) + x.sum(), places, self.pool(x[None, None])


def test_sides_stay_free():
    free = (dict(enumerate(torch.export.Dim(name, min=2) for name in ("rows", "columns"))),)
    with followed(nn.Identity()):
        program = torch.export.export(Sides(), (torch.ones(4, 6),), dynamic_shapes=free, strict=False)
    other = torch.randn(7, 10, generator=torch.Generator().manual_seed(1))
    for got, want in zip(program.module()(other), Sides()(other), strict=True):
        assert_close(got, want, OUTPUT[torch.float32])
    assert registers.torch_int(3.0) == 3


def test_a_buffer_that_is_asked_is_numbers_and_comes_back():
    model = others.MODELS["EoMT"]().eval()
    images, kept = others.images(), dict(model._buffers)
    want = others.outputs(model, images)
    with followed(model):
        assert model.attn_mask_probs == [1.0] * model.config.num_blocks
        assert torch.equal(others.outputs(model, images), want)
    assert dict(model._buffers) == kept and list(model._buffers) == list(kept)
    with followed(model):
        torch.export.export(model, (images,), strict=False)


class Computed(nn.Module):
    """A buffer of the same name, which is no question."""

    def __init__(self):
        super().__init__()
        self.register_buffer("attn_mask_probs", torch.ones(2))

    def forward(self, x):
        return x * self.attn_mask_probs


def test_a_buffer_of_that_name_elsewhere_and_a_subclass():
    with followed(model := Computed()):
        assert torch.equal(model(torch.ones(3, 2)), torch.ones(3, 2))

    class Own(hf.EomtForUniversalSegmentation):
        pass

    own = Own(others.MODELS["EoMT"]().config)
    with followed(own):
        assert isinstance(own.attn_mask_probs, list)
    assert isinstance(own.attn_mask_probs, torch.Tensor)


def test_values_of_inputs_are_not_checked_while_exporting():
    theirs = siglip2.torch_compilable_check
    with followed(nn.Identity()):
        assert siglip2.torch_compilable_check(False, "of an input's values") is None
    with pytest.raises(ValueError, match="of an input's values"):
        siglip2.torch_compilable_check(torch.tensor(False), "of an input's values")
    assert siglip2.torch_compilable_check is theirs


@pytest.mark.parametrize("name", ["torchvision's ViT", "DINOv2", "CLIP"])
def test_sides_go_in_steps_of_patches(name):
    """In steps of a pixel the sizes that a file is compared on had one grid of patches alone."""
    assert step_of(others.MODELS[name]()) == others.VIT["patch_size"]


@pytest.mark.soak
@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("transformers' DINOv2, registers", "imhsa"),
        ("transformers' DINOv2", "reattention"),
        ("Twins, grouped", None),
    ],
)
def test_whole(host, kind):
    found = measure(lambda: on_host(host, kind), MODES["any number and size"])
    assert found.get("difference", 1) <= OUTPUT[torch.float32], found
