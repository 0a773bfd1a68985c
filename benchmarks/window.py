"""Overlapped heads in windows against timm's WindowAttention, with relative position bias and shift mask.

python benchmarks/window.py                         the module, at the sizes of Swin-Tiny's stages
python benchmarks/window.py --allocator default     the same with glibc's allocator as it is
"""

import argparse
from functools import partial

import torch
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from torch import Tensor, nn

from crosshead.layers import InteractingAttention, overlapped_window_attention_layer
from crosshead.ops.overlap import naive_overlapped_attention
from crosshead.train.loop.devices import tune_allocator
from interleave import RESULTS, Timing, compare, conditions, report, require_close
from packed import of_packed

# (windows in all, windows an image, heads of 32, overlap): two images of 56 x 56 tokens, and what training gives.
SIZES = [(128, 64, 3, 5), (1024, 64, 3, 5), (256, 16, 6, 3), (64, 4, 12, 9)]
SIDE, HEAD_DIM = 7, 32


def shift_mask(windows: int) -> Tensor:
    """The mask of a shifted block whose image has so many windows."""
    tokens = SIDE * round(windows**0.5)
    block = SwinTransformerBlock(
        HEAD_DIM, (tokens, tokens), num_heads=1, window_size=SIDE, shift_size=SIDE // 2
    )
    assert block.attn_mask is not None and len(block.attn_mask) == windows
    return block.attn_mask


def check(layer: InteractingAttention, x: Tensor, mask: Tensor) -> None:
    """The module against the equations in float64, on one image."""
    x = x[: len(mask)].detach()
    qkv = layer.qkv(x).unflatten(-1, (3, layer.num_heads, layer.head_dim)).double()
    bias = (layer._get_rel_pos_bias() + mask.unsqueeze(1)).double()
    heads = of_packed(naive_overlapped_attention)(qkv, layer.interaction.overlap, attn_mask=bias)
    want = nn.functional.linear(heads, layer.proj.weight.double(), layer.proj.bias.double())
    require_close(layer(x, mask), want, 1e-5, f"overlap {layer.interaction.overlap}")


def tables(rounds: int) -> dict[str, list[Timing]]:
    found = {}
    for windows, per_image, heads, overlap in SIZES:
        torch.manual_seed(0)
        mask, dim = shift_mask(per_image), heads * HEAD_DIM
        x = torch.randn(windows, SIDE**2, dim, requires_grad=True)
        upstream = torch.randn_like(x)
        modules: dict[str, nn.Module] = {"timm": WindowAttention(dim, heads, window_size=SIDE)}
        for o in (0, overlap):
            layer = overlapped_window_attention_layer(dim, heads, window_size=SIDE, overlap=o)
            check(layer, x, mask)
            modules[f"overlap {o}"] = layer
        size = f"{windows} windows of {SIDE**2}, h {heads}, d {HEAD_DIM}, bias and mask, float32"
        inference = {name: torch.no_grad()(partial(module, x, mask)) for name, module in modules.items()}
        found[f"module forward, {size}"] = compare(inference, rounds)
        both = {name: partial(gradients, module, x, mask, upstream) for name, module in modules.items()}
        found[f"module forward + backward, {size}"] = compare(both, rounds)
    return found


def gradients(module: nn.Module, x: Tensor, mask: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(module(x, mask), [x, *module.parameters()], upstream)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--allocator", choices=["tuned", "default"], default="tuned")
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    allocator = tune_allocator() if args.allocator == "tuned" else "default"
    report(RESULTS / f"window_cpu_{args.allocator}.json", conditions(allocator), tables(args.rounds))


if __name__ == "__main__":
    main()
