"""The models of which version 0.1.0 wrote the files in this folder: names, arguments, and how attention was swapped."""

import timm

from crosshead import swap_attention

_TINY = dict(
    num_classes=3, in_chans=1, depth=2, embed_dim=12, num_heads=3, img_size=8, patch_size=4, mlp_ratio=1.0
)
_SWIN = dict(
    num_classes=3,
    in_chans=1,
    img_size=16,
    patch_size=2,
    window_size=4,
    embed_dim=12,
    depths=(2,),
    num_heads=(3,),
    mlp_ratio=1.0,
)
_IVIT = dict(num_classes=3, in_chans=1, dims=(8, 12), depths=(1, 1), num_heads=2, landmarks=2, mlp_ratio=1.0)

# name of the file: (timm's name, arguments, arguments of swap_attention or None)
MODELS = {
    "mohsa_vit": ("mohsa_vit_micro_patch4_32", _TINY, None),
    "mohsa_cait": ("mohsa_cait_micro_patch4_32", _TINY, None),
    "mohsa_swin": ("mohsa_swin_micro_patch2_window4_32", _SWIN, None),
    "ivit": ("ivit_micro_stride1_8", dict(_IVIT, attention_stages=(0, 1)), None),
    "swapped_vit": (
        "vit_tiny_patch16_224",
        dict(_TINY, qk_norm=True),
        dict(kind="overlap", overlap="index+1"),
    ),
    "swapped_cait": ("cait_xxs24_224", dict(_TINY, init_values=0.1), dict(kind="overlap", overlap=2)),
    "swapped_swin": ("swin_tiny_patch4_window7_224", _SWIN, dict(kind="overlap", overlap=2)),
    "swapped_imhsa": ("vit_tiny_patch16_224", _TINY, dict(kind="imhsa", init="paper", landmarks=1)),
}


def create(name):
    architecture, arguments, swap = MODELS[name]
    model = timm.create_model(architecture, **arguments)
    if swap is not None:
        swap_attention(model, **swap)
    return model
