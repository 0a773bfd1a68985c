"""A small model of timm's blocks, with an interaction put into its attention."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..layers.registry import HOSTS
from ..swap import swap_attention
from .kinds import Kind
from .probe import Probe

MLP_RATIO = 2.0


class ProbeModel(nn.Module):
    """A linear embedding, timm's blocks, and a linear head on the tokens that are asked. No positions are added."""

    def __init__(self, probe: Probe, width: int, num_heads: int, depth: int, hidden: int) -> None:
        super().__init__()
        self.probe = probe
        self.patch_embed = _Embedding(probe, width)
        # Half a unit more, so that the block's own rounding down arrives at ``hidden``.
        ratio = (hidden + 0.5) / width
        self.blocks = nn.ModuleList(
            Block(width, num_heads, mlp_ratio=ratio, qkv_bias=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, probe.questions * probe.answers)

    def forward(self, x: Tensor, asked: int) -> Tensor:
        """Logits (B, asked, questions, answers) of the last ``asked`` tokens of x (B, N, F)."""
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -asked:])).unflatten(-1, (self.probe.questions, self.probe.answers))


class _Embedding(nn.Linear):
    """Tells interactions of the tokens' grid, as timm's patch embedding does."""

    def __init__(self, probe: Probe, width: int) -> None:
        super().__init__(probe.features, width)
        self.grid_size = probe.grid

    def dynamic_feat_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.grid_size


class _Hosted(nn.Module):
    """Attention of another model's, which is given the tokens alone."""

    def __init__(self, attn: nn.Module) -> None:
        super().__init__()
        self.attn = attn

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        return self.attn(x)


def build_model(
    probe: Probe,
    kind: Kind,
    *,
    width: int,
    num_heads: int,
    depth: int,
    seed: int,
    hidden: int | None = None,
    host: str | None = None,
) -> ProbeModel:
    """The model; of one ``seed`` all kinds begin with the same embedding, blocks and head.

    Args:
        hidden: of the blocks' MLPs; twice the width unless given.
        host: a class of attention in place of timm's own, by the end of its name (``beit.Attention``).

    Raises:
        ValueError: heads that don't divide the width, or an interaction or host that this model can't have.
    """
    if width < 1 or num_heads < 1 or width % num_heads:
        raise ValueError(
            f"{num_heads} heads don't divide a width of {width}; expected a divisor of it, such as "
            f"{', '.join(str(n) for n in range(1, width + 1) if width % n == 0)}"
        )
    torch.manual_seed(seed)
    model = ProbeModel(probe, width, num_heads, depth, hidden or int(MLP_RATIO * width))
    if host is not None:
        for block in model.blocks:
            block.attn = _Hosted(_attention_of(host, width, num_heads, probe))
    if kind.swap is not None:
        torch.manual_seed(seed + 777)
        swap_attention(model, **kind.swap)
    return model


def _attention_of(host: str, width: int, num_heads: int, probe: Probe) -> nn.Module:
    """Attention of a class that has a host, where it takes sequences as timm's blocks give them."""
    known = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in HOSTS}
    found = [cls for name, cls in known.items() if name == host or name.endswith(f".{host}")]
    if len(found) != 1:
        raise ValueError(f"no one host is named {host!r}; expected the end of one of {', '.join(known)}")
    given = {"dim": width, "num_heads": num_heads, "head_dim": width // num_heads, "qkv_bias": True}
    takes = inspect.signature(found[0].__init__).parameters
    try:
        attn = found[0](**{name: value for name, value in given.items() if name in takes})
        x = torch.zeros(1, probe.tokens, width)
        if attn(x).shape != x.shape:
            raise ValueError("its output has another shape")
    except Exception as error:
        raise ValueError(
            f"host {host!r} takes no plain sequence of tokens ({str(error).splitlines()[0]}); take another one"
        ) from error
    return attn


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def count_gmacs(model: ProbeModel) -> float:
    """Billions of multiply-adds of one sequence forward: matrix products, as PyTorch counts them."""
    probe, counter = model.probe, FlopCounterMode(display=False)
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()(torch.zeros(1, probe.tokens, probe.features), 1)
    model.train()
    return counter.get_total_flops() / 2e9


def equal_hidden(probe: Probe, wanted: int, *, width: int, num_heads: int, depth: int) -> int:
    """The width of plain blocks' MLPs that gives nearest to ``wanted`` parameters in all."""
    hidden = int(MLP_RATIO * width)
    with torch.device("meta"):
        plain = count_parameters(ProbeModel(probe, width, num_heads, depth, hidden))
    return max(1, hidden + round((wanted - plain) / (depth * (2 * width + 1))))
