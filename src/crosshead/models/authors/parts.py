"""What the authors' architectures have in common: where heads and overlaps are told, blocks, and patch embeddings.

Their files hold neither the schedule nor, in ViT, the number of heads. Both follow from the widths: the projection of
block b has h·(d + 2·o_b) inputs, and under each of the paper's schedules the overlap moves by 1 somewhere, so that the
smallest step between two blocks is 2h.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

State = dict[str, Tensor]
# (state, number of heads if it was given) -> (model name, arguments, weights under this library's names)
Converter = Callable[[State, int | None], tuple[str, dict[str, Any], State]]


def overlaps_from_widths(inner: int, inputs: list[int], num_heads: int | None) -> tuple[int, list[int]]:
    """The number of heads, and the overlap of each block, from the projections' inputs.

    Args:
        inner: h·d, the width of all heads before they overlap.
        inputs: h·(d + 2·o_b) of each block.
        num_heads: h, where it is known.
    """
    extra = [width - inner for width in inputs]
    if num_heads is None:
        steps = [abs(b - a) for a, b in itertools.pairwise(extra) if a != b]
        if not steps:
            raise ValueError(
                "the number of heads can't be told from this checkpoint, whose blocks all overlap alike; give it "
                "with num_heads (--num-heads on the command line)"
            )
        num_heads = min(steps) // 2
    if num_heads < 1 or inner % num_heads or any(e < 0 or e % (2 * num_heads) for e in extra):
        raise ValueError(
            f"{num_heads} heads don't fit this checkpoint: heads of {inner} channels in all, and projections of "
            f"{inputs} inputs; give the number of heads that it was trained with"
        )
    return num_heads, [e // (2 * num_heads) for e in extra]


def check_inner_width(inner: int, dim: int) -> None:
    """timm's ViT and CaiT have heads as wide, in all, as their tokens."""
    if inner != dim:
        raise ValueError(f"heads of {inner} channels in all in a model of width {dim} are not supported")


def mlp_ratio(hidden: int, dim: int) -> float:
    """The ratio that gives an MLP of ``hidden`` channels where timm computes ``int(dim * ratio)``."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def blocks_of(state: State, layers: str) -> list[str]:
    """The names of the blocks under ``layers``, such as ``transformer.layers``, in order."""
    numbers = {int(match[1]) for n in state if (match := re.match(re.escape(layers) + r"\.(\d+)\.", n))}
    return [f"{layers}.{number}" for number in sorted(numbers)]


def embeddings(state: State, channels: int = 3) -> tuple[int, State]:
    """The side of a patch in pixels, and class, position and patch embedding.

    Theirs is a linear layer on patches flattened pixel by pixel, channels last; ours the convolution that equals it.
    """
    dim, numbers = state["to_patch_embedding.1.weight"].shape
    patch = math.isqrt(numbers // channels)
    if numbers != channels * patch**2:
        raise ValueError(f"patches of {numbers} numbers are not square ones of {channels} channels")
    weight = state["to_patch_embedding.1.weight"].view(dim, patch, patch, channels)
    return patch, {
        "cls_token": state["cls_token"],
        "pos_embed": state["pos_embedding"],
        "patch_embed.proj.weight": weight.permute(0, 3, 1, 2),
        "patch_embed.proj.bias": state["to_patch_embedding.1.bias"],
    }


def renamed(state: State, pairs: Mapping[str, str]) -> State:
    """Weight and bias of each module: our name -> theirs."""
    return {
        f"{ours}.{part}": state[f"{theirs}.{part}"]
        for ours, theirs in pairs.items()
        for part in ("weight", "bias")
    }
