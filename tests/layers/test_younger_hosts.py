"""Hosts of attention that the oldest timm served does not have: preserved, learning, undone, copied."""

import pickle

import pytest
import torch
from torch import nn

from crosshead.layers import Overlap, Talking, from_attention
from tolerances import OUTPUT, assert_close


def convolved(module, **options):
    models = pytest.importorskip(f"timm.models.{module}", reason=f"this timm has no {module}")
    return models.ConvAttention(96, head_dim_mul=1.0, att_stride=2, att_kernel=5, **options), [
        torch.randn(2, 96, 6, 6)
    ]


def gemma():
    models = pytest.importorskip("timm.models.gemma4_vit", reason="this timm has no gemma4_vit")
    angles = torch.randn(2, 9, 8)
    return models.Gemma4Attention(24, 3, 8), [torch.randn(2, 9, 24), angles.cos(), angles.sin()]


MODULES = {
    "CPUBone": lambda: convolved("cpubone"),
    "CPUBone, fused": lambda: convolved("cpubone", fuse_out_proj=True),
    "LowFormer": lambda: convolved("lowformer"),
    "LowFormer, fused": lambda: convolved("lowformer", fuse_out_proj=True),
    "Gemma 4": gemma,
}


@pytest.mark.parametrize("interaction", [Overlap(3), Talking()], ids=str)
@pytest.mark.parametrize("name", MODULES)
def test_outputs_are_preserved_learned_from_and_undone(name, interaction):
    torch.manual_seed(0)
    attn, given = MODULES[name]()
    attn.eval()
    want, before = attn(*given), {id(p) for p in attn.parameters()}
    if "fused" in name and interaction.kind == "overlap":
        with pytest.raises(ValueError, match="can't carry heads of a fixed width"):
            from_attention(attn, interaction)
        return
    layer = from_attention(attn, interaction)
    assert_close(layer(*given), want, OUTPUT[torch.float32])
    layer(*given).square().sum().backward()
    new = {n: p for n, p in layer.named_parameters() if id(p) not in before}
    assert new
    for parameter_name, parameter in new.items():
        assert parameter_name in interaction.cancelled or parameter.grad.abs().max() > 0, parameter_name
    with torch.no_grad():
        assert_close(pickle.loads(pickle.dumps(layer))(*given), want, OUTPUT[torch.float32])
    back = layer.restored()
    assert type(back) is type(attn) and isinstance(back, nn.Module)
    assert torch.equal(back(*given), want)
