"""Small models of all that is exported: the registered families, every host with every kind, segmenters, detectors.

benchmarks/export_matrix.py exports all of them, test_matrix.py a few.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
import transformers as hf
from timm.models import (
    convit,
    davit,
    edgenext,
    efficientformer,
    gcvit,
    hiera,
    hieradet_sam2,
    levit,
    maxxvit,
    metaformer,
    mobilenetv3,
    mvitv2,
    nest,
    nextvit,
    pvt_v2,
    tiny_vit,
    tnt,
    twins,
    visformer,
    volo,
    xcit,
)
from timm.models import vision_transformer_sam as sam
from timm.models._efficientnet_builder import decode_arch_def
from torch import Tensor, nn

import test_swap_others as others
from crosshead import swap_attention
from crosshead.export.about import About
from crosshead.export.checks import BATCHES
from crosshead.export.onnx_file import export_onnx
from crosshead.export.programs import part_of
from crosshead.layers import INTERACTIONS
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


class Patches(nn.Module):
    """transformers' SigLIP 2, which takes images as patches and a grid's size."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {name: size for name, size in others.VIT.items() if name != "image_size"}
        self.model = hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**sizes, num_patches=16))
        self.side = sizes["patch_size"]

    def forward(self, images: Tensor) -> Tensor:
        patches = F.unfold(images, self.side, stride=self.side).mT
        shown = torch.ones_like(patches[..., 0], dtype=torch.long)
        grid = torch.stack(
            [shown.new_full(shown.shape[:1], side // self.side) for side in images.shape[2:]], 1
        )
        found: Tensor = self.model(patches, shown, grid).last_hidden_state
        return found


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


def _coatnet() -> nn.Module:
    attention = maxxvit.MaxxVitTransformerCfg(dim_head=8, window_size=(8, 8), rel_pos_type="bias")
    cfg = maxxvit.MaxxVitCfg(
        embed_dim=(16, 24), depths=(1, 1), block_type=("C", "T"), stem_width=8, transformer_cfg=attention
    )
    return maxxvit.MaxxVit(cfg, img_size=32, num_classes=5)


def _pvt(*reduced: int, **options: Any) -> nn.Module:
    sizes = dict(depths=(1, 1), embed_dims=(16, 24), num_heads=(2, 3), mlp_ratios=(2, 2))
    return pvt_v2.PyramidVisionTransformerV2(**sizes, sr_ratios=reduced, num_classes=5, **options)


def _twins(**options: Any) -> nn.Module:
    sizes = dict(img_size=32, depths=(1, 1), embed_dims=(16, 24), num_heads=(2, 3), mlp_ratios=(2, 2))
    return twins.Twins(**sizes, sr_ratios=(4, 2), num_classes=5, **options)


def _mobilenet() -> nn.Module:
    blocks = ["uir_r1_a3_k3_s2_e2_c24", "mqa_r1_k3_h3_s1_v2_d4_c24", "uir_r1_a3_k3_s1_e2_c24"]
    stages = decode_arch_def([["cn_r1_k3_s2_c16"], blocks])
    return mobilenetv3.MobileNetV3(stages, num_classes=5, num_features=32, stem_size=16, fix_stem=False)


def _gcvit(depth: int) -> nn.Module:
    """The first block attends within windows, the second one from tokens of the whole image."""
    return gcvit.GlobalContextVit(
        num_classes=5, img_size=32, window_size=(4,), embed_dim=24, depths=(depth,), num_heads=(3,)
    )


def _hiera(pooled: bool) -> nn.Module:
    return hiera.Hiera(
        img_size=(32, 32), embed_dim=24, num_heads=3, num_classes=5, stages=(1, 1), q_pool=int(pooled),
        mask_unit_size=(2, 2) if pooled else (1, 1), mask_unit_attn=(pooled,) * 2,
    )  # fmt: skip


def _sam2(pooled: bool) -> nn.Module:
    return hieradet_sam2.HieraDet(
        embed_dim=24, num_heads=3, num_classes=5, stages=(1, 1), q_pool=int(pooled), window_spec=(4, 4),
        global_att_blocks=(), global_pos_size=(4, 4),
    )  # fmt: skip


def _mvit(stride: int) -> nn.Module:
    cfg = mvitv2.MultiScaleVitCfg(
        depths=(1, 1), embed_dim=(24, 24), num_heads=(3, 3), stride_q=((1, 1), (stride, stride))
    )
    return mvitv2.MultiScaleVit(cfg, img_size=32, num_classes=5)


def _levit(**options: Any) -> nn.Module:
    return levit.Levit(
        img_size=64, embed_dim=(24,), key_dim=4, depth=(1,), num_heads=(3,), num_classes=5, **options
    )


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
    "XCiT": Whole(
        lambda: xcit.Xcit(
            img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, cls_attn_layers=1, num_classes=5
        )
    ),
    "EdgeNeXt": Whole(
        lambda: edgenext.EdgeNeXt(
            num_classes=5,
            dims=(16, 24, 24, 24),
            depths=(1, 1, 1, 1),
            global_block_counts=(0, 1, 0, 0),
            heads=(2, 3, 3, 3),
        )
    ),
    "PVT v2": Whole(lambda: _pvt(4, 2)),
    "PVT v2, linear": Whole(lambda: _pvt(4, 2, linear=True)),
    "PVT v2, whole": Whole(lambda: _pvt(1, 1)),
    "Twins, subsampled": Whole(_twins),
    "Twins, grouped": Whole(lambda: _twins(wss=(3, 3))),
    "NextViT": Whole(
        lambda: nextvit.NextViT(3, num_classes=5, stem_chs=(8, 8, 8), depths=(1, 1, 5, 1), head_dim=8), 64
    ),
    "LeViT": Whole(_levit, 64),
    "LeViT, convolutions": Whole(lambda: _levit(use_conv=True), 64),
    "EfficientFormer": Whole(
        lambda: efficientformer.EfficientFormer(
            depths=(1, 1, 1, 1), embed_dims=(8, 16, 16, 24), num_vit=1, num_classes=5
        ),
        224,
    ),
    "CoAtNet": Whole(_coatnet),
    "Visformer": Whole(
        lambda: visformer.Visformer(
            img_size=64,
            patch_size=8,
            init_channels=8,
            embed_dim=48,
            depth=(1, 1, 1),
            num_heads=3,
            attn_stage="011",
            num_classes=5,
        ),
        64,
    ),
    "MobileNet v4": Whole(_mobilenet),
    "DaViT": Whole(
        lambda: davit.DaVit(
            depths=(1, 1),
            embed_dims=(16, 24),
            num_heads=(2, 3),
            window_size=3,
            num_classes=5,
            attn_types=("spatial",),
        )
    ),
    "GCViT": Whole(lambda: _gcvit(2)),
    "GCViT, within windows": Whole(lambda: _gcvit(1)),
    "Swin v2 of Reich": Whole(_timm("swinv2_cr_tiny_224", **SWIN, strict_img_size=False)),
    "NesT": Whole(
        lambda: nest.Nest(
            img_size=32,
            num_levels=2,
            embed_dims=(24, 24),
            num_heads=(3, 3),
            depths=(1, 1),
            num_classes=5,
            drop_path_rate=0.0,
        )
    ),
    "SAM": Whole(
        lambda: sam.VisionTransformerSAM(
            **SMALL, use_rel_pos=True, window_size=3, neck_chans=8, num_classes=5
        )
    ),
    "TNT": Whole(
        lambda: tnt.TNT(
            img_size=32,
            patch_size=8,
            embed_dim=24,
            inner_dim=12,
            depth=1,
            num_heads_inner=3,
            num_heads_outer=3,
            num_classes=5,
        )
    ),
    "ConViT": Whole(lambda: convit.ConVit(**SMALL, local_up_to_layer=0, num_classes=5)),
    "Hiera": Whole(lambda: _hiera(False)),
    "Hiera, pooled": Whole(lambda: _hiera(True)),
    "SAM 2": Whole(lambda: _sam2(False)),
    "SAM 2, pooled": Whole(lambda: _sam2(True)),
    "MViT v2": Whole(lambda: _mvit(1)),
    "MViT v2, pooled": Whole(lambda: _mvit(2)),
    "PyTorch, torchvision's ViT": Whole(others.MODELS["torchvision's ViT"]),
    **{name: Whole(make) for name, make in others.MODELS.items() if name.startswith("torchvision's Swin")},
    **{f"transformers' {name}": Whole(_theirs(name)) for name in others.OURS if name != "TimmWrapper"},
    "transformers' SigLIP 2": Whole(Patches),
}


def registered(name: str) -> Case:
    """A registered model of few blocks, as the conformance suite makes it; its sizes vary where they can."""
    free = {"vit": {"dynamic_img_size": True}, "swin": {"strict_img_size": False}}
    given = next((options for family, options in free.items() if f"_{family}_" in name), {})
    side = test_conformance.side(name)
    return Case(test_conformance.create(name, num_classes=5, **given), (3, side, side))


def on_host(host: str, kind: str | None) -> Case:
    """A host's model with a kind of interaction in it. ValueError where they don't fit."""
    interaction = next((each for each in every_pair.SETTINGS if each.kind == kind), None)
    torch.manual_seed(0)
    model, side = HOSTS[host].make(), HOSTS[host].side
    if interaction is not None:
        try:
            swap_attention(model, kind, init="paper", **interaction.options())
        except ValueError as error:
            if every_pair.why_not(host, interaction) is None:
                raise RuntimeError(f"{kind} fits {host}, but not its model here: {error}") from error
            raise
    return Case(model, (3, side, side))


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
    """The largest difference of the file from the model, over the largest output, or why there is no file.

    What the model itself does not compute is a fault of the case, and no reason: it is raised.
    """
    try:
        model, (channels, height, width), part = make()
    except ValueError as error:
        return {"refused": str(error)}
    with torch.no_grad():
        drawn = torch.Generator().manual_seed(0)
        for parameter in model.parameters():  # nothing is hidden by being zero
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=drawn))
        for batch in BATCHES:
            part_of(model.eval(), part)(torch.zeros(batch, channels, height, width))
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
