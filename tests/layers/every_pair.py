"""Tiny instances of every host, some of every kind of interaction, and the table of which go together.

python tests/layers/every_pair.py > docs/hosts_and_interactions.md
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timm.layers import Attention, AttentionRope, MultiQueryAttention2d, RelPosBias, RotaryEmbeddingCat
from timm.models import (
    beit,
    cait,
    convit,
    davit,
    edgenext,
    efficientformer,
    eva,
    fastvit,
    gcvit,
    hiera,
    hieradet_sam2,
    levit,
    maxxvit,
    metaformer,
    mvitv2,
    nest,
    nextvit,
    pvt_v2,
    swin_transformer,
    tiny_vit,
    tnt,
    twins,
    visformer,
    volo,
    xcit,
)
from timm.models import swin_transformer_v2 as swin_v2
from timm.models import swin_transformer_v2_cr as swin_cr
from timm.models import vision_transformer_relpos as relpos
from timm.models import vision_transformer_sam as sam
from torch import Tensor, nn
from torchvision.models import swin_transformer as tv_swin
from transformers import (
    BeitConfig,
    CLIPVisionConfig,
    DeiTConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    EomtConfig,
    Siglip2VisionConfig,
    SiglipVisionConfig,
    SwinConfig,
    Swinv2Config,
    ViTConfig,
)
from transformers.models.beit import modeling_beit as hf_beit
from transformers.models.clip import modeling_clip as clip
from transformers.models.deit import modeling_deit as deit
from transformers.models.dinov2 import modeling_dinov2 as dinov2
from transformers.models.dinov2_with_registers import modeling_dinov2_with_registers as dinov2_registers
from transformers.models.dinov3_vit import modeling_dinov3_vit as dinov3
from transformers.models.eomt import modeling_eomt as eomt
from transformers.models.siglip import modeling_siglip as siglip
from transformers.models.siglip2 import modeling_siglip2 as siglip2
from transformers.models.swin import modeling_swin as hf_swin
from transformers.models.swinv2 import modeling_swinv2 as hf_swin_v2
from transformers.models.vit import modeling_vit as vit

from crosshead.layers import INTERACTIONS, Interaction, Interactive, Overlap, Talking, from_attention

# 3 x 3 tokens of 24 channels, 3 heads of 8; two images, or four windows of two.
SIDE, TOKENS, DIM, HEADS = 3, 9, 24, 3


class Case(NamedTuple):
    """An attention module of a class that has a host, and a call of it: with ``times`` the tokens, and more.

    ``maps``: queries and keys of what its heads weigh.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2, TOKENS, DIM)
    call: Callable[..., dict[str, Any]] = dict
    times: int = 1
    maps: tuple[int, int] = (TOKENS, TOKENS)


def rope(half: bool = False, at: int = 0) -> dict[str, Tensor]:
    """Rotations of 3 x 3 tokens, from place (at, at) of a larger grid on; pairs interleaved, or split in halves."""
    grid = RotaryEmbeddingCat(8, max_res=24, in_pixels=False, feat_shape=[6, 6]).get_embed().view(6, 6, 2, 8)
    parts = grid[at : at + SIDE, at : at + SIDE].reshape(TOKENS, 2, 8)
    return {"rope": (torch.cat([parts[..., ::2]] * 2, dim=-1) if half else parts).flatten(1)}


def mask() -> dict[str, Tensor]:
    parted = torch.zeros(2, TOKENS, TOKENS)
    parted[1, :4, 4:] = parted[1, 4:, :4] = -100.0
    return {"mask": parted}


def bias(**options: Any) -> RelPosBias:
    return RelPosBias((SIDE, SIDE), **options)


def angles(at: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """What DINOv3 of transformers' rotates with: cosines and sines (N, d) of half-split pairs."""
    places = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)) + at
    turned = (places[:, :, None] * torch.tensor([1.0, 0.3])).flatten(1).tile(2)
    return {"position_embeddings": (turned.cos(), turned.sin())}


def position_bias() -> dict[str, Tensor]:
    return {
        "attention_mask": torch.randn(1, HEADS, TOKENS, TOKENS, generator=torch.Generator().manual_seed(2))
    }


def windows() -> dict[str, Tensor]:
    return {"attention_mask": mask()["mask"]}


def hidden() -> dict[str, Tensor]:
    """Some tokens may not look at others, alike for all heads."""
    allowed = mask()["mask"].unsqueeze(1) == 0
    return {
        "attention_mask": torch.zeros(allowed.shape).masked_fill(~allowed, -1e9).expand(-1, HEADS, -1, -1)
    }


def size(side: int = SIDE, name: str = "size") -> Callable[[], dict[str, tuple[int, int]]]:
    return lambda: {name: (side, side)}


def multiscale(stride: int) -> mvitv2.MultiScaleAttention:
    """Keys of a smaller map; with a stride queries too, and a class token before them."""
    return mvitv2.MultiScaleAttention(
        DIM, DIM, (4, 4), HEADS, kernel_q=(3, 3), kernel_kv=(3, 3), stride_q=(stride, stride), stride_kv=(2, 2),
        has_cls_token=stride > 1,
    )  # fmt: skip


def reich() -> swin_cr.WindowMultiHeadAttention:
    attn = swin_cr.WindowMultiHeadAttention(DIM, HEADS, (SIDE, SIDE))
    attn.meta_mlp.drop1.p = 0.0  # outputs are compared in training
    return attn


def theirs(config: type[Any], cls: type[nn.Module], **options: Any) -> Callable[[], nn.Module]:
    """A module of transformers', of a configuration of theirs."""

    def make() -> nn.Module:
        made = config(hidden_size=DIM, num_attention_heads=HEADS, attn_implementation="sdpa", **options)
        return cls(made)

    return make


CASES: dict[str, Case] = {
    "ViT": Case(lambda: Attention(DIM, HEADS, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm)),
    "ViT, output norm": Case(lambda: Attention(DIM, HEADS, scale_norm=True, norm_layer=nn.LayerNorm)),
    "CaiT": Case(lambda: cait.TalkingHeadAttn(DIM, HEADS, qkv_bias=True)),
    "Swin": Case(
        lambda: swin_transformer.WindowAttention(DIM, HEADS, window_size=SIDE), (4, TOKENS, DIM), mask
    ),
    "Swin v2": Case(lambda: swin_v2.WindowAttention(DIM, (SIDE, SIDE), HEADS), (4, TOKENS, DIM), mask),
    "rotary ViT": Case(lambda: AttentionRope(DIM, HEADS, num_prefix_tokens=0), call=rope),
    "rotary ViT, half-split": Case(
        lambda: AttentionRope(DIM, HEADS, num_prefix_tokens=0, qkv_fused=False, rotate_half=True),
        call=lambda **at: rope(half=True, **at),
    ),
    "EVA": Case(lambda: eva.EvaAttention(DIM, HEADS, num_prefix_tokens=0, scale_norm=False), call=rope),
    "CAFormer": Case(lambda: metaformer.Attention(DIM, head_dim=8)),
    "MaxViT": Case(lambda: maxxvit.AttentionCl(DIM, dim_head=8, rel_pos_cls=bias), (4, SIDE, SIDE, DIM)),
    "MaxViT, heads last": Case(
        lambda: maxxvit.AttentionCl(DIM, dim_head=8, head_first=False, rel_pos_cls=bias), (4, SIDE, SIDE, DIM)
    ),
    "BEiT": Case(lambda: beit.Attention(DIM, HEADS, qkv_bias=True, window_size=(2, 4))),
    "relative ViT": Case(lambda: relpos.RelPosAttention(DIM, HEADS, rel_pos_cls=bias)),
    "FastViT": Case(lambda: fastvit.Attention(DIM, head_dim=8), (2, DIM, SIDE, SIDE)),
    "TinyViT": Case(lambda: tiny_vit.Attention(DIM, 8, HEADS, attn_ratio=1, resolution=(SIDE, SIDE))),
    "VOLO": Case(lambda: volo.Attention(DIM, HEADS), (2, SIDE, SIDE, DIM)),
    "XCiT": Case(lambda: xcit.XCA(DIM, HEADS, qkv_bias=True), maps=(8, 8)),
    "EdgeNeXt": Case(lambda: edgenext.CrossCovarianceAttn(DIM, HEADS), maps=(8, 8)),
    "PVT v2": Case(
        lambda: pvt_v2.Attention(DIM, HEADS, sr_ratio=2), (2, 16, DIM), size(4, "feat_size"), maps=(16, 4)
    ),
    "PVT v2, linear": Case(
        lambda: pvt_v2.Attention(DIM, HEADS, linear_attn=True), call=size(name="feat_size"), maps=(TOKENS, 49)
    ),
    "PVT v2, whole": Case(lambda: pvt_v2.Attention(DIM, HEADS), call=size(name="feat_size")),
    "Twins, subsampled": Case(
        lambda: twins.GlobalSubSampleAttn(DIM, HEADS, sr_ratio=2), (2, 16, DIM), size(4), maps=(16, 4)
    ),
    "Twins, grouped": Case(lambda: twins.LocallyGroupedAttn(DIM, HEADS, ws=SIDE), (2, 16, DIM), size(4)),
    "NextViT": Case(
        lambda: nextvit.EfficientAttention(DIM, head_dim=8, sr_ratio=2), (2, 16, DIM), maps=(16, 4)
    ),
    "LeViT": Case(lambda: levit.Attention(DIM, 4, HEADS, attn_ratio=2, resolution=SIDE)),
    "LeViT, convolutions": Case(
        lambda: levit.Attention(DIM, 4, HEADS, attn_ratio=2, resolution=SIDE, use_conv=True),
        (2, DIM, SIDE, SIDE),
    ),
    "EfficientFormer": Case(lambda: efficientformer.Attention(DIM, 4, HEADS, attn_ratio=2, resolution=SIDE)),
    "CoAtNet": Case(lambda: maxxvit.Attention2d(DIM, dim_head=8, rel_pos_cls=bias), (2, DIM, SIDE, SIDE)),
    "Visformer": Case(lambda: visformer.Attention(DIM, HEADS), (2, DIM, SIDE, SIDE)),
    "MobileNet v4": Case(
        lambda: MultiQueryAttention2d(DIM, num_heads=HEADS, key_dim=4, kv_stride=2, padding="same"),
        (2, DIM, SIDE, SIDE),
        maps=(TOKENS, 4),
    ),
    "DaViT": Case(lambda: davit.WindowAttention(DIM, (SIDE, SIDE), HEADS), (4, TOKENS, DIM)),
    "GCViT": Case(
        lambda: gcvit.WindowAttentionGlobal(DIM, HEADS, (SIDE, SIDE)),
        (4, TOKENS, DIM),
        lambda: {"q_global": torch.randn(2, TOKENS, DIM, generator=torch.Generator().manual_seed(2))},
    ),
    "GCViT, within windows": Case(
        lambda: gcvit.WindowAttentionGlobal(DIM, HEADS, (SIDE, SIDE), use_global=False), (4, TOKENS, DIM)
    ),
    "Swin v2 of Reich": Case(reich, (4, TOKENS, DIM), mask),
    "NesT": Case(lambda: nest.Attention(DIM, HEADS), (1, 2, TOKENS, DIM)),
    "SAM": Case(
        lambda: sam.Attention(DIM, HEADS, use_rel_pos=True, input_size=(SIDE, SIDE)), (2, SIDE, SIDE, DIM)
    ),
    "TNT": Case(lambda: tnt.Attention(DIM, DIM, HEADS)),
    "ConViT": Case(lambda: convit.MHSA(DIM, HEADS)),
    "Hiera": Case(lambda: hiera.MaskUnitAttention(DIM, DIM, HEADS), (2, TOKENS, DIM)),
    "Hiera, pooled": Case(
        lambda: hiera.MaskUnitAttention(DIM, DIM, HEADS, q_stride=4, window_size=4, use_mask_unit_attn=True),
        (1, 32, DIM),
        maps=(4, 16),
    ),
    "SAM 2": Case(lambda: hieradet_sam2.MultiScaleAttention(DIM, DIM, HEADS), (2, SIDE, SIDE, DIM)),
    "SAM 2, pooled": Case(
        lambda: hieradet_sam2.MultiScaleAttention(DIM, DIM, HEADS, q_pool=nn.MaxPool2d(2, 2)),
        (2, 4, 4, DIM),
        maps=(4, 16),
    ),
    "MViT v2": Case(lambda: multiscale(1), (2, 16, DIM), size(4, "feat_size"), maps=(16, 4)),
    "MViT v2, pooled": Case(lambda: multiscale(2), (2, 17, DIM), size(4, "feat_size"), maps=(5, 5)),
    "PyTorch, torchvision's ViT": Case(lambda: nn.MultiheadAttention(DIM, HEADS, batch_first=True), times=3),
    "torchvision's Swin": Case(
        lambda: tv_swin.ShiftedWindowAttention(DIM, [SIDE, SIDE], [1, 1], HEADS), (1, 6, 5, DIM)
    ),
    "torchvision's Swin v2": Case(
        lambda: tv_swin.ShiftedWindowAttentionV2(DIM, [SIDE, SIDE], [1, 1], HEADS), (1, 6, 5, DIM)
    ),
    "transformers' ViT": Case(theirs(ViTConfig, vit.ViTAttention)),
    "transformers' DeiT": Case(theirs(DeiTConfig, deit.DeiTAttention)),
    "transformers' DINOv2": Case(theirs(Dinov2Config, dinov2.Dinov2Attention)),
    "transformers' DINOv2, registers": Case(
        theirs(Dinov2WithRegistersConfig, dinov2_registers.Dinov2WithRegistersAttention)
    ),
    "transformers' DINOv3": Case(theirs(DINOv3ViTConfig, dinov3.DINOv3ViTAttention), call=angles),
    "transformers' CLIP": Case(theirs(CLIPVisionConfig, clip.CLIPAttention)),
    "transformers' SigLIP": Case(theirs(SiglipVisionConfig, siglip.SiglipAttention)),
    "transformers' SigLIP 2": Case(theirs(Siglip2VisionConfig, siglip2.Siglip2Attention)),
    "transformers' BEiT": Case(
        theirs(BeitConfig, hf_beit.BeitAttention, use_relative_position_bias=True), call=position_bias
    ),
    "transformers' EoMT": Case(theirs(EomtConfig, eomt.EomtAttention), call=hidden),
    "transformers' Swin": Case(
        lambda: hf_swin.SwinAttention(SwinConfig(attn_implementation="sdpa"), DIM, HEADS, SIDE),
        (4, TOKENS, DIM),
        windows,
    ),
    "transformers' Swin v2": Case(
        lambda: hf_swin_v2.Swinv2Attention(Swinv2Config(), DIM, HEADS, SIDE), (4, TOKENS, DIM), windows
    ),
}
# Each kind with its defaults, and those whose defaults say little, with more.
_KINDS: list[Interaction] = [cls() for kind, cls in INTERACTIONS.items() if kind not in ("overlap", "imhsa")]
SETTINGS: list[Interaction] = [Overlap(3), Interactive(2), Talking(2), *_KINDS]


def create(name: str) -> nn.Module:
    """The module with random weights, so that nothing is preserved by being zero."""
    torch.manual_seed(0)
    attn = CASES[name].make()
    with torch.no_grad():
        for parameter in attn.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    attn.train(False)
    return attn


def inputs(name: str, seed: int = 1) -> list[Tensor]:
    tokens = torch.randn(CASES[name].shape, generator=torch.Generator().manual_seed(seed))
    return [tokens] * CASES[name].times


def output(found: Any) -> Tensor:
    """The first of what a module gives; the rest are attention weights."""
    first: Tensor = found[0] if isinstance(found, tuple) else found
    return first


def why_not(name: str, interaction: Interaction) -> str | None:
    """Why the pair is refused, or None."""
    try:
        from_attention(create(name), interaction, init="paper")
    except ValueError as error:
        return str(error)
    return None


def table() -> str:
    """Which kinds go with which hosts, in Markdown."""
    kinds = list(INTERACTIONS)
    settings = {i.kind: i for i in SETTINGS}  # of talking heads those that don't overlap
    lines = [
        "# Hosts and interactions",
        "",
        "Written by `python tests/layers/every_pair.py > docs/hosts_and_interactions.md`; a test keeps it true.",
        "**yes**: outputs of before are preserved, and every new parameter learns. yes: it works, with other outputs",
        'from the start (`init="paper"`). Else what is missing, or what the interaction can\'t carry.',
        "",
        f"| host | attention | {' | '.join(kinds)} |",
        f"| --- | --- |{' --- |' * len(kinds)}",
    ]
    for name in CASES:
        cls = type(create(name))
        cells = [_cell(name, settings[kind]) for kind in kinds]
        lines.append(
            f"| {name} | `{cls.__module__.removeprefix('timm.')}.{cls.__name__}` | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(name: str, interaction: Interaction) -> str:
    why = why_not(name, interaction)
    if why is None:
        return "yes" if interaction.changes_outputs else "**yes**"
    return why.split(", which")[0].removeprefix(f"{interaction.kind} ")


if __name__ == "__main__":
    print(table(), end="")
