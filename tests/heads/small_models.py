"""Small models, one of each way in which heads are read."""

import timm
import torch

import crosshead
from crosshead import swap_attention
from crosshead.models.pyramid import Maps

VIT = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5)


def vit(kind=None, **options):
    torch.manual_seed(0)
    model = timm.models.VisionTransformer(**VIT)
    if kind is not None:
        swap_attention(model, kind, init="paper", **options)
    return randomised(model)


def windowed(kind=None, **options):
    """A ViT of 4 x 4 patches in windows of 3 x 3, but for its last block, with a class token."""
    torch.manual_seed(0)
    vit = timm.models.VisionTransformer(**VIT, dynamic_img_size=True)
    if kind is not None:
        swap_attention(vit, kind, init="paper", **options)
    return randomised(Maps(vit, window=3, global_blocks=[1]))


def swin(overlap=None):
    torch.manual_seed(0)
    name = "plain_swin_micro_patch2_window4_32" if overlap is None else "mohsa_swin_micro_patch2_window4_32"
    options = {} if overlap is None else {"overlap": overlap}
    return randomised(timm.create_model(name, num_classes=5, **options))


def registered(name, **options):
    assert crosshead
    torch.manual_seed(0)
    return randomised(timm.create_model(name, num_classes=5, **options))


@torch.no_grad()
def randomised(model):
    """No parameter at a value that hides what it does."""
    for parameter in model.parameters():
        parameter += 0.15 * torch.randn_like(parameter)
    return model.eval()


MODELS = {
    "plain vit": lambda: (vit(), 16),
    "overlap": lambda: (vit("overlap", overlap="constant:2"), 16),
    "talking": lambda: (vit("talking"), 16),
    "imhsa": lambda: (vit("imhsa", landmarks=2), 16),
    "plain swin": lambda: (swin(), 32),
    "overlapped swin": lambda: (swin("constant:3"), 32),
    "cait": lambda: (registered("plain_cait_micro_patch4_32", img_size=16), 16),
    "ivit": lambda: (registered("ivit_micro_stride1_8", img_size=8), 8),
}


def images(size, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))
