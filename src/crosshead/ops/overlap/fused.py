"""The fused GPU kernels of overlapped heads as one differentiable operator: what they serve, how they are launched."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..modes import is_differentiated_again, plain_gradients
from ..paths import Conditions, overlap_kernel_obstacles
from . import kernel
from .views import borrowed_factors, plain_attention

INTERPRETED = not isinstance(kernel.attend, triton.JITFunction)
PROGRAMS = 264  # to aim at where a sum is split over images: two for each of the 132 processors of an H100


class Tile(NamedTuple):
    """Sizes of a program's tiles; what the benchmark sweeps."""

    queries: int = 64
    keys: int = 64
    warps: int = 4


def tile(columns: int, plain: bool) -> Tile:
    """For windows of so many columns, with (or ``plain``: without) a bias, a mask, dropout: what compiles for sm_80 and
    sm_90 without registers spilt (tests/ops/test_overlap_kernel.py)."""
    if columns > 64:
        return Tile(32, 16, 4)
    return Tile(64, 32, 4) if plain and columns <= 32 else Tile(32, 32, 4)


BIAS_TILE = Tile(32, 16, 4)  # where the bias's gradient stays in registers too


def attend_fused(
    qkv: Tensor,
    overlap: int,
    scale: float,
    attn_bias: Tensor | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    borrow_gain: Tensor | None = None,
) -> Tensor:
    """(B, N, h·(d + 2·overlap)) of packed qkv (B, N, 3, h, d), nothing copied and nothing of size N² kept.

    Args:
        attn_bias: (h, N, N), added to the logits; gets a gradient.
        attn_mask: added to the logits too, (images, h or 1, N, N) with a number of images that divides B (those of
            windows), or boolean; gets none.

    Raises:
        ValueError: for a device, dtype or width that the kernels don't serve.
    """
    obstacles = overlap_kernel_obstacles(
        Conditions.of(qkv), qkv.shape[4], overlap, *qkv.shape[:2], interpreted=INTERPRETED
    )
    if attn_mask is not None and attn_mask.requires_grad:
        obstacles.append("expected a mask that gets no gradient; one of (h, N, N) goes into attn_bias")
    if obstacles:
        raise ValueError(f"backend='triton' can't serve this: {'; '.join(obstacles)}; use backend='auto'")
    if attn_mask is not None:
        attn_mask = attn_mask[(None,) * (4 - attn_mask.dim())]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=qkv.dtype).masked_fill(~attn_mask, -torch.inf)
    seed = torch.randint(2**62, (), device=qkv.device) if dropout_p > 0 else None
    attended = _attend(qkv, overlap, scale, attn_bias, attn_mask, borrow_gain, is_causal, dropout_p, seed)
    out: Tensor = attended[0]
    return out.flatten(2)


class _Launch:
    """What the kernels are called with: operands, strides and sizes, in their order."""

    def __init__(
        self,
        qkv: Tensor,
        overlap: int,
        scale: float,
        bias: Tensor | None,
        mask: Tensor | None,
        gain: Tensor | None,
        is_causal: bool,
        dropout_p: float,
        seed: Tensor | None,
    ) -> None:
        self.batch, self.tokens, _, self.heads, head_dim = qkv.shape
        self.width = head_dim + 2 * overlap
        pad, self.columns = _columns(head_dim, overlap)
        plain = bias is None and mask is None and dropout_p == 0
        self.queries, self.keys, warps = tile(self.columns, plain)
        if mask is not None:
            mask = mask.expand(-1, self.heads, self.tokens, self.tokens)
        strides = (0, 0, 0, 0) if mask is None else mask.stride()
        images = 1 if mask is None else mask.shape[0]
        self.given = (qkv, gain, bias, mask, seed)
        rows, numbers = (*qkv.stride()[:2], self.tokens**2), (scale, dropout_p, pad)
        self.sizes = (*rows, *strides, images, self.heads, self.tokens, *numbers)
        self.forms: dict[str, Any] = dict(
            d=head_dim,
            o=overlap,
            COLUMNS=self.columns,
            QUERIES=self.queries,
            KEYS=self.keys,
            GAIN=gain is not None,
            BIAS=bias is not None,
            MASK=mask is not None,
            CAUSAL=is_causal,
            DROPOUT=dropout_p > 0,
            UPCAST=INTERPRETED and qkv.dtype != torch.float32,
            num_warps=warps,
        )

    def grid(self, rows: int) -> tuple[int, int, int]:
        return triton.cdiv(self.tokens, rows), self.heads, self.batch


def _columns(head_dim: int, overlap: int) -> tuple[int, int]:
    """How far before the head's own channels a tile's columns begin, and how many they are (a power of two).

    At whole vectors of eight where that takes no more columns.
    """
    narrow = triton.next_power_of_2(head_dim + 2 * overlap)
    whole = -(-overlap // 8) * 8
    wide = triton.next_power_of_2(head_dim + 2 * whole)
    return (whole, max(16, wide)) if wide <= narrow else (overlap, max(16, narrow))


def _on_its_device(x: Tensor) -> Any:
    """Triton launches on the current device, wherever the tensors are."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


@torch.library.custom_op("crosshead::overlapped_heads", mutates_args=())
def _attend(
    qkv: Tensor,
    overlap: int,
    scale: float,
    bias: Tensor | None,
    mask: Tensor | None,
    gain: Tensor | None,
    is_causal: bool,
    dropout_p: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The heads (B, N, h, d + 2·overlap), and for the backward pass the log sums (B, h, N)."""
    out, log_sums = _results(qkv, overlap)
    if out.numel() == 0:
        return out, log_sums
    with _on_its_device(qkv):
        call = _Launch(*_in_rows(qkv, overlap, scale, bias, mask, gain, is_causal, dropout_p, seed))
        kernel.attend[call.grid(call.queries)](*call.given, out, log_sums, *call.sizes, **call.forms)
    return out, log_sums


def _in_rows(qkv: Tensor, overlap: int, scale: float, bias: Tensor | None, *more: Any) -> tuple[Any, ...]:
    """The operands with whole rows of channels, and a bias without gaps."""
    whole = qkv.stride()[2:] == (qkv.shape[3] * qkv.shape[4], qkv.shape[4], 1)
    mask, gain, *rest = more
    return (
        qkv if whole else qkv.contiguous(),
        overlap,
        scale,
        None if bias is None else bias.contiguous(),
        mask,
        None if gain is None else gain.contiguous(),
        *rest,
    )


def _results(qkv: Tensor, overlap: int) -> tuple[Tensor, Tensor]:
    batch, tokens, _, heads, head_dim = qkv.shape
    out = qkv.new_empty(batch, tokens, heads, head_dim + 2 * overlap)
    return out, qkv.new_empty(batch, heads, tokens, dtype=torch.float32)


@_attend.register_fake
def _(qkv, overlap, *_):  # type: ignore[no-untyped-def]
    return _results(qkv, overlap)


@torch.library.custom_op("crosshead::overlapped_heads_backward", mutates_args=())
def _attend_backward(
    grad_out: Tensor,
    out: Tensor,
    log_sums: Tensor,
    qkv: Tensor,
    overlap: int,
    scale: float,
    bias: Tensor | None,
    mask: Tensor | None,
    gain: Tensor | None,
    is_causal: bool,
    dropout_p: float,
    seed: Tensor | None,
    learns_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of qkv, of the bias and of the gains; empty where there is none."""
    gradients = _gradients(qkv, bias, gain, learns_bias)
    if out.numel() == 0:
        return tuple(x.zero_() for x in gradients)  # type: ignore[return-value]
    grad_qkv, grad_bias, grad_gain = gradients
    grad_out, delta = grad_out.contiguous(), torch.empty_like(log_sums)
    with _on_its_device(qkv):
        call = _Launch(*_in_rows(qkv, overlap, scale, bias, mask, gain, is_causal, dropout_p, seed))
        by_queries, by_keys = call.grid(call.queries), call.grid(call.keys)
        kernel.row_products[by_queries](
            out, grad_out, delta, call.heads, call.tokens, call.width, call.queries,
            triton.next_power_of_2(call.width),
        )  # fmt: skip
        windows = qkv.new_empty(*qkv.shape[:4], call.width)
        known = (*call.given, grad_out, log_sums, delta)
        kernel.grad_keys[by_keys](*known, windows, *call.sizes, **call.forms)
        parts = (
            None if gain is None else log_sums.new_empty(call.batch, by_queries[0], call.heads, call.columns)
        )
        kernel.grad_queries[by_queries](*known, windows, parts, *call.sizes, **call.forms)
        rows, channels = call.batch * call.tokens * 3, call.heads * qkv.shape[4]
        kernel.overlap_add[(triton.cdiv(rows, 16), triton.cdiv(channels, 256))](
            windows, grad_qkv, rows, call.heads, qkv.shape[4], overlap, ROWS=16, CHANNELS=256
        )
        if learns_bias:
            queries, keys, warps = BIAS_TILE
            forms = call.forms | dict(QUERIES=queries, KEYS=keys, num_warps=warps)
            blocks = triton.cdiv(call.tokens, queries) * triton.cdiv(call.tokens, keys)
            shares = max(1, min(call.batch, PROGRAMS // max(1, blocks * call.heads)))
            sums = log_sums.new_empty(shares, *grad_bias.shape)
            kernel.grad_bias[(blocks, call.heads, shares)](*known, sums, call.batch, *call.sizes, **forms)
            grad_bias = sums.sum(0).to(grad_bias.dtype)
    if parts is not None:
        pad, head_dim = _columns(qkv.shape[4], overlap)[0], qkv.shape[4]
        whole = parts.sum((0, 1))[:, pad - overlap :]
        grad_gain = torch.cat([whole[:, :overlap], whole[:, overlap + head_dim : call.width]], dim=1)
        grad_gain = grad_gain.to(qkv.dtype)
    return grad_qkv, grad_bias, grad_gain


def _gradients(
    qkv: Tensor, bias: Tensor | None, gain: Tensor | None, learns_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grad_bias = qkv.new_empty(0) if bias is None or not learns_bias else torch.empty_like(bias)
    grad_gain = qkv.new_empty(0) if gain is None else qkv.new_empty(gain.shape)
    return qkv.new_empty(qkv.shape), grad_bias, grad_gain


@_attend_backward.register_fake
def _(grad_out, out, log_sums, qkv, overlap, scale, bias, mask, gain, *rest):  # type: ignore[no-untyped-def]
    return _gradients(qkv, bias, gain, rest[-1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, ctx.overlap, ctx.scale, bias, mask, gain, ctx.is_causal, ctx.dropout_p, seed = inputs
    ctx.save_for_backward(*output, qkv, bias, mask, gain, seed)


def _differentiate(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    out, log_sums, qkv, bias, mask, gain, seed = ctx.saved_tensors
    if is_differentiated_again():
        if ctx.dropout_p > 0:
            raise RuntimeError("expected a backward pass that is not differentiated again, under dropout")
        grad_qkv, grad_bias, grad_gain = _differentiable_gradients(ctx, qkv, bias, mask, gain, grad_out)
    else:
        learns_bias = ctx.needs_input_grad[3]
        grad_qkv, grad_bias, grad_gain = _attend_backward(
            grad_out, out, log_sums, qkv, ctx.overlap, ctx.scale, bias, mask, gain, ctx.is_causal, ctx.dropout_p,
            seed, learns_bias,
        )  # fmt: skip
        grad_bias = grad_bias if learns_bias else None
        grad_gain = None if gain is None else grad_gain
    return grad_qkv, None, None, grad_bias, None, grad_gain, None, None, None


def _differentiable_gradients(
    ctx: Any, qkv: Tensor, bias: Tensor | None, mask: Tensor | None, gain: Tensor | None, grad_out: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    def plain(qkv: Tensor, bias: Tensor | None, gain: Tensor | None) -> Tensor:
        tokens, heads, head_dim = qkv.shape[1], *qkv.shape[3:]
        added = None if bias is None else bias.unsqueeze(0)
        if mask is not None:
            whole = mask.repeat(qkv.shape[0] // mask.shape[0], 1, 1, 1)
            added = whole if added is None else added + whole
        if ctx.is_causal:
            later = torch.ones(tokens, tokens, dtype=torch.bool, device=qkv.device).triu(1)
            added = qkv.new_zeros(1, 1, tokens, tokens) if added is None else added
            added = added.masked_fill(later, -torch.inf)
        factors = borrowed_factors(gain, heads, head_dim, ctx.overlap, qkv.dtype)
        found: Tensor = plain_attention(qkv, ctx.overlap, ctx.scale, added, factors).unflatten(2, (heads, -1))
        return found

    found = plain_gradients(plain, (qkv, bias, gain), grad_out)
    return found[0], found[1], found[2]


_attend.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.crosshead.overlapped_heads)
def _(qkv_shape: torch.Size, overlap: int, *_: Any, **__: Any) -> int:
    batch, tokens, _three, heads, head_dim = qkv_shape
    return 4 * batch * heads * tokens**2 * (head_dim + 2 * overlap)


@register_flop_formula(torch.ops.crosshead.overlapped_heads_backward)
def _(grad: Any, out: Any, sums: Any, qkv_shape: torch.Size, overlap: int, *_: Any, **__: Any) -> int:
    batch, tokens, _three, heads, head_dim = qkv_shape
    # Logits and weights' gradients once for the queries and once for the keys, and three products of gradients.
    return 14 * batch * heads * tokens**2 * (head_dim + 2 * overlap)
