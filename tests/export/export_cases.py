"""Small models of all that is exported: the registered families, every host with every kind, segmenters, detectors.

benchmarks/export_matrix.py exports all of them, test_matrix.py a few.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models import maxxvit, metaformer, tiny_vit, volo
from torch import Tensor, nn

import test_swap_others as others
from crosshead import swap_attention
from crosshead.export.about import About
from crosshead.export.onnx_file import export_onnx
from crosshead.layers import INTERACTIONS, from_attention
from layers import every_pair
from models import test_conformance, test_detectors, test_segmenters

MODES = {"one image": (), "any number": ("batch",), "any number and size": ("batch", "size")}
FAMILIES = (
    "plain_vit_micro_patch4_32", "mohsa_vit_micro_patch4_32", "plain_cait_micro_patch4_32",
    "mohsa_cait_micro_patch4_32", "plain_swin_micro_patch2_window4_32", "mohsa_swin_micro_patch2_window4_32",
    "ivit_micro_stride2_32", "ivit_tiny",
)  # fmt: skip
SWIN = dict(img_size=32, patch_size=2, embed_dim=24, depths=(2,), num_heads=(3,), window_size=4)
SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3)
ROTARY = SMALL | dict(embed_dim=48, dynamic_img_size=True)


class Whole(NamedTuple):
    """What makes a host's model, and the sides of its images."""

    make: Callable[[], nn.Module]
    side: int = 32


class Case(NamedTuple):
    """A model to export, and (channels, height, width) of its images."""

    model: nn.Module
    shape: tuple[int, int, int]
    part: str = "whole"


class Plain(nn.Module):
    """A model of transformers', which gives one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = others.outputs(self.model, images)
        return found


class Tokens(nn.Module):
    """Attention alone, whose images (B, C, 1, N) are tokens: of a host whose models are not here."""

    def __init__(self, attn: nn.Module, call: dict[str, Any], times: int) -> None:
        super().__init__()
        self.attn, self.call, self.times = attn, call, times

    def forward(self, images: Tensor) -> Tensor:
        found = self.attn(*[images[:, :, 0].mT] * self.times, **self.call)
        return every_pair.output(found)


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **options)


def _maxvit(heads_first: bool) -> nn.Module:
    attention = maxxvit.MaxxVitTransformerCfg(
        dim_head=8, window_size=(4, 4), head_first=heads_first, rel_pos_type="mlp" if heads_first else "bias"
    )
    cfg = maxxvit.MaxxVitCfg(
        embed_dim=(16, 24), depths=(1, 1), block_type=("M", "M"), stem_width=8, transformer_cfg=attention
    )
    return maxxvit.MaxxVit(cfg, img_size=32, num_classes=5)


def _theirs(name: str) -> Callable[[], nn.Module]:
    return lambda: Plain(others.MODELS[name]())


HOSTS: dict[str, Whole] = {
    "ViT": Whole(_timm("vit_tiny_patch16_224", **SMALL, dynamic_img_size=True)),
    "ViT, output norm": Whole(
        _timm("vit_tiny_patch16_224", **SMALL, dynamic_img_size=True, scale_attn_norm=True)
    ),
    "CaiT": Whole(_timm("cait_xxs24_224", **SMALL, init_values=0.1)),
    "Swin": Whole(_timm("swin_tiny_patch4_window7_224", **SWIN, strict_img_size=False)),
    "Swin v2": Whole(_timm("swinv2_tiny_window8_256", **SWIN, strict_img_size=False)),
    "rotary ViT": Whole(_timm("vit_small_patch16_rope_224", **ROTARY)),
    "rotary ViT, half-split": Whole(_timm("vit_small_patch16_dinov3", **ROTARY)),
    "EVA": Whole(_timm("eva02_tiny_patch14_224", **ROTARY)),
    "CAFormer": Whole(
        lambda: metaformer.MetaFormer(
            num_classes=5,
            depths=(1, 1),
            dims=(16, 32),
            token_mixers=[metaformer.SepConv, metaformer.Attention],
            norm_layers=[metaformer.LayerNorm2dNoBias, metaformer.LayerNormNoBias],
        )
    ),
    "MaxViT": Whole(lambda: _maxvit(True)),
    "MaxViT, heads last": Whole(lambda: _maxvit(False)),
    "BEiT": Whole(_timm("beit_base_patch16_224", **SMALL)),
    "relative ViT": Whole(_timm("vit_relpos_small_patch16_224", **SMALL)),
    "FastViT": Whole(_timm("fastvit_sa12", layers=(1, 1, 1, 1), embed_dims=(16, 16, 32, 64)), 64),
    "TinyViT": Whole(
        lambda: tiny_vit.TinyVit(
            num_classes=5, embed_dims=(16, 32), depths=(1, 1), num_heads=(1, 2), window_sizes=(4, 4)
        )
    ),
    "VOLO": Whole(
        lambda: volo.VOLO(
            layers=(1, 1, 1, 1),
            img_size=64,
            num_classes=5,
            embed_dims=(24, 48, 48, 48),
            num_heads=(3, 3, 3, 3),
        ),
        64,
    ),
    "PyTorch, torchvision's ViT": Whole(others.MODELS["torchvision's ViT"]),
    **{name: Whole(make) for name, make in others.MODELS.items() if name.startswith("torchvision's Swin")},
    **{f"transformers' {name}": Whole(_theirs(name)) for name in others.OURS if name != "TimmWrapper"},
}


def registered(name: str) -> Case:
    """A registered model of few blocks, as the conformance suite makes it; its sizes vary where they can."""
    free = {"vit": {"dynamic_img_size": True}, "swin": {"strict_img_size": False}}
    given = next((options for family, options in free.items() if f"_{family}_" in name), {})
    side = test_conformance.side(name)
    return Case(test_conformance.create(name, num_classes=5, **given), (3, side, side))


def on_host(host: str, kind: str | None) -> Case:
    """A host's model, or its attention alone, with a kind of interaction in it. ValueError where they don't fit."""
    options = next((each.options() for each in every_pair.SETTINGS if each.kind == kind), {})
    torch.manual_seed(0)
    if host in HOSTS:
        model, side = HOSTS[host].make(), HOSTS[host].side
        if kind is not None:
            swap_attention(model, kind, init="paper", **options)
        return Case(model, (3, side, side))
    case, attn = every_pair.CASES[host], every_pair.create(host)
    if kind is not None:
        attn = from_attention(attn, INTERACTIONS[kind](**options), init="paper")
    return Case(Tokens(attn, case.call(), case.times), (case.shape[-1], 1, case.shape[-2]))


def cases() -> Iterator[tuple[str, Callable[[], Case]]]:
    """A name for each, and what makes it."""
    for name in FAMILIES:
        yield name, lambda name=name: registered(name)
    for name in test_segmenters.NAMES:
        yield f"{name} on iViT", lambda name=name: Case(test_segmenters.segmenter(name), (3, 64, 64))
    for name in test_detectors.LOSSES:
        # FCOS normalises groups of one channel here, which a map of one entry has nothing to normalise over for.
        side = 96 if name == "fcos" else 64
        yield (
            f"{name} on iViT",
            lambda name=name, side=side: Case(test_detectors.detector(name), (3, side, side)),
        )
    yield (
        "mask_rcnn on iViT, backbone and pyramid",
        lambda: Case(test_detectors.detector("mask_rcnn"), (3, 64, 64), "pyramid"),
    )
    for host in every_pair.CASES:
        for kind in (None, *INTERACTIONS):
            yield f"{host}, {kind or 'plain'}", lambda host=host, kind=kind: on_host(host, kind)


def measure(make: Callable[[], Case], varying: tuple[str, ...]) -> dict[str, Any]:
    """The largest difference of the file from the model, over the largest output, or why there is no file."""
    try:
        model, (channels, height, width), part = make()
    except ValueError as error:
        return {"refused": str(error)}
    with torch.no_grad():
        drawn = torch.Generator().manual_seed(0)
        for parameter in model.parameters():  # nothing is hidden by being zero
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=drawn))
    about = About(
        task="classify", size=(height, width), channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels,
        crop="none",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = export_onnx(model.eval(), Path(folder) / "m.onnx", about, part=part, varying=varying)
        except (ValueError, RuntimeError) as error:  # transformers' own, where sizes don't fit
            return {"reason": str(error).splitlines()[0]}
    return {"difference": written.difference, "shapes": len(written.shapes)}
