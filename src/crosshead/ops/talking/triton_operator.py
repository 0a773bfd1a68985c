"""The fused GPU kernels of talking heads as one differentiable operator: what they serve, how they are launched."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..modes import is_differentiated_again, plain_gradients
from ..paths import Conditions, talking_kernel_obstacles, talking_tile
from . import triton_kernels as kernel
from .math import attention_with

INTERPRETED = not isinstance(kernel.attend, triton.JITFunction)
PROGRAMS = 264  # to aim at where a sum is split over images: two for each of the 132 processors of an H100


class Tile(NamedTuple):
    """Sizes of a program's tiles, which hold all heads."""

    queries: int
    keys: int
    warps: int


def tile(heads: int, columns: int) -> Tile:
    """For so many heads and columns: what compiles for sm_80 and sm_90 with few registers spilt or none
    (tests/ops/offline.py)."""
    return Tile(32 if heads <= 8 and heads * columns <= 256 else 16, 16, 8)


def attend_fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    scale: float,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """O (B, N, h, c) of q, k, v (B, h, N, c), with both mixings in registers and nothing of size N² kept.

    Args:
        q, k, v: any strides but of the channels; overlapping views too.
        attn_bias: broadcastable to (h, N, N), the same for all images; gets a gradient.
        attn_mask: boolean or additive, broadcastable to (B, 1, N, N); gets none.

    Raises:
        ValueError: for what the kernels don't serve.
    """
    num_heads, tokens, width = q.shape[1:]
    obstacles = talking_kernel_obstacles(
        Conditions.of(q), num_heads, width, tokens, dropout_p, interpreted=INTERPRETED
    )
    if attn_mask is not None and attn_mask.requires_grad:
        obstacles.append("expected a mask that gets no gradient; what heads learn goes into attn_bias")
    if attn_bias is not None and attn_bias.dim() == 4 and attn_bias.shape[0] > 1:
        obstacles.append("expected a bias that all images share, (h, N, N)")
    if obstacles:
        raise ValueError(f"backend='triton' can't serve this: {'; '.join(obstacles)}; use backend='auto'")
    if attn_bias is not None:
        attn_bias = attn_bias.flatten(0, max(0, attn_bias.dim() - 3)).expand(num_heads, tokens, tokens)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, -torch.inf)
    if attn_mask is not None:
        attn_mask = attn_mask[(None,) * (4 - attn_mask.dim())].squeeze(1)
        attn_mask = attn_mask.expand(attn_mask.shape[0], tokens, tokens)
    seed = torch.randint(2**62, (), device=q.device) if dropout_p > 0 else None
    mixing = (pre_weight, post_weight, post_bias)
    attended = _attend(q, k, v, *mixing, attn_bias, attn_mask, seed, scale, is_causal, dropout_p)
    out: Tensor = attended[0]
    return out


class _Launch:
    """What the kernels are called with: operands, strides and sizes, in their order."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pre_weight: Tensor,
        post_weight: Tensor,
        post_bias: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        seed: Tensor | None,
        scale: float,
        is_causal: bool,
        dropout_p: float,
    ) -> None:
        self.batch, self.heads, self.tokens, self.width = q.shape
        self.padded_heads, self.columns = talking_tile(self.heads, self.width)
        self.queries, self.keys, warps = tile(self.padded_heads, self.columns)
        q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
        mixing = tuple(x.contiguous() for x in (pre_weight, post_weight, post_bias))
        self.given = (q, k, v, *mixing, None if bias is None else bias.contiguous(), mask, seed)
        images, strides = (1, (0, 0, 0)) if mask is None else (mask.shape[0], mask.stride())
        rows = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
        self.sizes = (*rows, *strides, images, self.heads, self.tokens, self.width, scale, dropout_p)
        self.forms: dict[str, Any] = dict(
            HEADS=self.padded_heads,
            COLUMNS=self.columns,
            QUERIES=self.queries,
            KEYS=self.keys,
            BIAS=bias is not None,
            MASK=mask is not None,
            CAUSAL=is_causal,
            DROPOUT=dropout_p > 0,
            UPCAST=INTERPRETED and q.dtype != torch.float32,
            num_warps=warps,
        )

    def blocks(self, rows: int) -> int:
        count: int = triton.cdiv(self.tokens, rows)
        return count


def _on_its_device(x: Tensor) -> Any:
    """Triton launches on the current device, wherever the tensors are."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


@torch.library.custom_op("crosshead::talking_heads_fused", mutates_args=())
def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    seed: Tensor | None,
    scale: float,
    is_causal: bool,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """The heads (B, N, h, c), and for the backward pass the log sums (B, h, N)."""
    out, log_sums = _results(q)
    if out.numel() == 0:
        return out, log_sums
    with _on_its_device(q):
        mixing = (pre_weight, post_weight, post_bias)
        call = _Launch(q, k, v, *mixing, bias, mask, seed, scale, is_causal, dropout_p)
        kernel.attend[(call.blocks(call.queries) * call.batch,)](
            *call.given, out, log_sums, *call.sizes, **call.forms
        )
    return out, log_sums


def _results(q: Tensor) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, width = q.shape
    return q.new_empty(batch, tokens, heads, width), q.new_empty(batch, heads, tokens, dtype=torch.float32)


@_attend.register_fake
def _(q, *_):  # type: ignore[no-untyped-def]
    return _results(q)


@torch.library.custom_op("crosshead::talking_heads_fused_backward", mutates_args=())
def _attend_backward(
    grad_out: Tensor,
    log_sums: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    seed: Tensor | None,
    scale: float,
    is_causal: bool,
    dropout_p: float,
    learns_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v (B, h, N, c), of the mixings, and of the bias (empty where it learns nothing)."""
    gradients = _gradients(q, pre_weight, post_weight, post_bias, bias, learns_bias)
    if grad_out.numel() == 0:
        return tuple(x.zero_() for x in gradients)  # type: ignore[return-value]
    grad_q, grad_k, grad_v, *_, grad_bias = gradients
    grad_out, delta = grad_out.contiguous(), torch.empty_like(log_sums)
    with _on_its_device(q):
        mixing = (pre_weight, post_weight, post_bias)
        call = _Launch(q, k, v, *mixing, bias, mask, seed, scale, is_causal, dropout_p)
        by_queries, by_keys = call.blocks(call.queries), call.blocks(call.keys)
        known = (*call.given, grad_out, log_sums, delta)
        parts = log_sums.new_empty(call.batch, by_queries, 33, 16)
        kernel.grad_queries[(by_queries * call.batch,)](*known, grad_q, parts, *call.sizes, **call.forms)
        kernel.grad_keys[(by_keys * call.batch,)](*known, grad_k, grad_v, *call.sizes, **call.forms)
        if learns_bias:
            shares = max(1, min(call.batch, PROGRAMS // (by_queries * by_keys)))
            sums = log_sums.new_empty(shares, *grad_bias.shape)
            grid, order = (by_queries * by_keys, shares), torch.arange(call.batch, device=q.device)
            kernel.grad_bias[grid](*known, sums, order, call.batch, *call.sizes, **call.forms)
            grad_bias = sums.sum(0).to(grad_bias.dtype)
    grad_pre, grad_post, grad_post_bias = (
        g.to(w.dtype, copy=True) for g, w in zip(_of_heads(parts, call), mixing, strict=True)
    )
    return grad_q, grad_k, grad_v, grad_pre, grad_post, grad_post_bias, grad_bias


def _of_heads(parts: Tensor, call: _Launch) -> tuple[Tensor, Tensor, Tensor]:
    """The mixings' gradients, (h, h), (h, h) and (h,), of what the programs found of them."""
    whole, heads, padded = parts.sum((0, 1)), call.heads, call.padded_heads
    squares = whole[:32].view(2, padded, 16 // padded, padded, 16 // padded)
    pre, post = squares.diagonal(dim1=2, dim2=4).sum(-1)[:, :heads, :heads]
    return pre, post, whole[32, :heads]


def _gradients(
    q: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    bias: Tensor | None,
    learns_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_q, grad_k, grad_v = (_results(q)[0].transpose(1, 2) for _ in range(3))
    grad_bias = q.new_empty(0) if bias is None or not learns_bias else bias.new_empty(bias.shape)
    grad_mixing = (w.new_empty(w.shape) for w in (pre_weight, post_weight, post_bias))
    return grad_q, grad_k, grad_v, *grad_mixing, grad_bias  # type: ignore[return-value]


@_attend_backward.register_fake
def _(grad_out, log_sums, q, k, v, pre, post, post_bias, bias, *rest):  # type: ignore[no-untyped-def]
    return _gradients(q, pre, post, post_bias, bias, rest[-1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.is_causal, ctx.dropout_p = inputs
    ctx.save_for_backward(output[1], *tensors)


def _differentiate(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    log_sums, *tensors = ctx.saved_tensors
    if is_differentiated_again():
        if ctx.dropout_p > 0:
            raise RuntimeError("expected a backward pass that is not differentiated again, under dropout")
        found = _differentiable_gradients(ctx, tensors, grad_out)
    else:
        learns_bias = ctx.needs_input_grad[6]
        *found, grad_bias = _attend_backward(
            grad_out, log_sums, *tensors, ctx.scale, ctx.is_causal, ctx.dropout_p, learns_bias
        )
        found.append(grad_bias if learns_bias else None)
    return *found, None, None, None, None, None


def _differentiable_gradients(ctx: Any, tensors: list[Any], grad_out: Tensor) -> list[Tensor | None]:
    *operands, mask, _ = tensors
    mask = None if mask is None else mask.unsqueeze(1)

    def plain(q, k, v, pre, post, post_bias, bias):  # type: ignore[no-untyped-def]
        return attention_with(
            q, k, v, pre, None, post, post_bias, attn_mask=mask, attn_bias=bias, is_causal=ctx.is_causal,
            scale=ctx.scale,
        )  # fmt: skip

    return list(plain_gradients(plain, tuple(operands), grad_out))


_attend.register_autograd(_differentiate, setup_context=_save)


# As the chunked path's formulas count: what the equations ask for, the products and mixings formed again included.
@register_flop_formula(torch.ops.crosshead.talking_heads_fused)
def _(q_shape: torch.Size, *_: Any, **__: Any) -> int:
    batch, heads, tokens, width = q_shape
    # The logits and their mixing twice; the other mixing and the product with V once.
    return 2 * batch * heads * tokens**2 * (3 * width + 3 * heads)


@register_flop_formula(torch.ops.crosshead.talking_heads_fused_backward)
def _(grad_out: Any, log_sums: Any, q_shape: torch.Size, *_: Any, **__: Any) -> int:
    batch, heads, tokens, width = q_shape
    # By queries: logits and weights' gradients twice with two mixings each, dQ, one mixing more and two gradients of
    # mixings. By keys: logits, weights' gradients, dK and dV, and four mixings.
    return 2 * batch * heads * tokens**2 * (9 * width + 11 * heads)
