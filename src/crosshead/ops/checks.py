"""One check for each contract that the operators share. Each says what was wanted, what came, and the remedy."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_head_width(dim: int, num_heads: int) -> int:
    """The head width of ``num_heads`` equal heads in ``dim`` channels."""
    if num_heads < 1:
        raise ValueError(f"num_heads must be at least 1, got {num_heads}")
    if dim % num_heads:
        divisors = [n for n in range(1, dim + 1) if dim % n == 0 and n <= 64]
        raise ValueError(
            f"dim {dim} does not split into {num_heads} equal heads; use a number of heads that divides it "
            f"({', '.join(map(str, divisors))}) or give the head width explicitly"
        )
    return dim // num_heads


def check_overlap(overlap: int, head_dim: int) -> int:
    """``overlap`` channels a side, between 0 and the head width (a window never passes its adjacent heads)."""
    if isinstance(overlap, bool) or not isinstance(overlap, int):
        raise ValueError(f"overlap must be a whole number of channels, got {overlap!r}")
    if not 0 <= overlap <= head_dim:
        raise ValueError(
            f"overlap must lie between 0 and the head width {head_dim}, got {overlap}; "
            "a window may not reach past the adjacent heads, so lower the overlap or use wider heads"
        )
    return overlap


def check_packed(qkv: Tensor) -> tuple[int, int, int, int]:
    """The sizes (B, N, num_heads, head_dim) of packed queries, keys and values (B, N, 3, num_heads, head_dim)."""
    if qkv.dim() != 5 or qkv.shape[2] != 3:
        raise ValueError(
            f"qkv must be packed as (B, N, 3, num_heads, head_dim), got shape {tuple(qkv.shape)}; "
            "reshape the projection's output with .view(B, N, 3, num_heads, head_dim)"
        )
    if not qkv.is_floating_point():
        raise ValueError(f"qkv must be floating point, got {qkv.dtype}; convert it with .float()")
    batch, tokens, _, heads, width = qkv.shape
    return batch, tokens, heads, width


def check_mask(attn_mask: Tensor | None, logits_shape: Sequence[int]) -> Tensor | None:
    """A boolean (True takes part) or additive mask that broadcasts to the logits (B, num_heads, N, N)."""
    if attn_mask is None:
        return None
    if attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
        raise ValueError(
            f"attn_mask must be boolean (True takes part) or floating point (added to the logits), "
            f"got {attn_mask.dtype}; convert it with .bool()"
        )
    fits = attn_mask.dim() <= len(logits_shape) and all(
        got in (1, want) for got, want in zip(reversed(attn_mask.shape), reversed(logits_shape), strict=False)
    )
    if not fits:
        raise ValueError(
            f"attn_mask must broadcast to (B, num_heads, N, N) = {tuple(logits_shape)}, "
            f"got shape {tuple(attn_mask.shape)}; add axes of length 1 where it is shared"
        )
    return attn_mask


def check_bias(attn_bias: Tensor | None, logits_shape: Sequence[int]) -> Tensor | None:
    """A bias that broadcasts to the logits (B, num_heads, N, N) and hides no key: a mask is something else."""
    if attn_bias is not None and attn_bias.dtype == torch.bool:
        raise ValueError("attn_bias is added to the logits and must be floating point, got a boolean mask")
    return check_mask(attn_bias, logits_shape)


def check_dropout(dropout_p: float) -> float:
    """A dropout probability in [0, 1)."""
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p must lie in [0, 1), got {dropout_p}")
    return dropout_p


def check_heads(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int, int, int]:
    """The shape (B, num_heads, N, M) of the logits of queries (B, num_heads, N, d), keys and values of M tokens."""
    if q.dim() != 4 or not q.is_floating_point():
        raise ValueError(
            f"q must be floating point of shape (B, num_heads, N, head_dim), got {q.dtype}, {tuple(q.shape)}"
        )
    batch, num_heads, tokens, width = q.shape
    if k.dim() != 4 or (*k.shape[:2], k.shape[3]) != (batch, num_heads, width):
        raise ValueError(
            f"k must be (B, num_heads, M, head_dim) = ({batch}, {num_heads}, M, {width}), got {tuple(k.shape)}"
        )
    if v.shape != k.shape:
        raise ValueError(f"v must have the shape of k, {tuple(k.shape)}, got {tuple(v.shape)}")
    for name, other in (("k", k), ("v", v)):
        if other.dtype != q.dtype or other.device != q.device:
            raise ValueError(
                f"{name} must have the dtype and device of q, {q.dtype} on {q.device}, "
                f"got {other.dtype} on {other.device}"
            )
    return batch, num_heads, tokens, k.shape[2]


def check_self_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int, int, int]:
    """``check_heads`` where queries, keys and values are of the same tokens, (B, num_heads, N, d) each."""
    batch, num_heads, tokens, keys = shape = check_heads(q, k, v)
    if tokens != keys:
        raise ValueError(f"these heads attend among themselves: got {tokens} queries and {keys} keys")
    return shape


def stack_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries, keys and values (B, h, N, d) packed as (B, N, 3, h, d)."""
    return torch.stack([x.transpose(1, 2) for x in (q, k, v)], dim=2)


def check_mixing(
    num_heads: int, pre_weight: Tensor, pre_bias: Tensor | None, post_weight: Tensor, post_bias: Tensor | None
) -> None:
    """Raises ValueError unless the weights that mix heads are (h, h), and their biases (h,) or None."""
    for name, weight in (("pre_weight", pre_weight), ("post_weight", post_weight)):
        if weight.shape != (num_heads, num_heads):
            raise ValueError(
                f"{name} must be (num_heads, num_heads) = ({num_heads}, {num_heads}), got {tuple(weight.shape)}; "
                "row g holds the shares of the heads in mixed head g, as in torch.nn.Linear"
            )
    for name, bias in (("pre_bias", pre_bias), ("post_bias", post_bias)):
        if bias is not None and bias.shape != (num_heads,):
            raise ValueError(f"{name} must be (num_heads,) = ({num_heads},) or None, got {tuple(bias.shape)}")


def check_shape(name: str, x: Tensor | None, wanted: Sequence[int], meaning: str) -> None:
    """Raises ValueError unless ``x`` is None or has the shape ``wanted``, which ``meaning`` explains."""
    if x is not None and tuple(x.shape) != tuple(wanted):
        raise ValueError(f"{name} must be {meaning} = {tuple(wanted)}, got {tuple(x.shape)}")


def check_gain(borrow_gain: Tensor, num_heads: int, overlap: int) -> Tensor:
    """Factors (num_heads, 2·overlap) of borrowed channels."""
    if borrow_gain.shape != (num_heads, 2 * overlap):
        raise ValueError(
            f"borrow_gain must have shape (num_heads, 2·overlap) = ({num_heads}, {2 * overlap}), "
            f"got {tuple(borrow_gain.shape)}; one factor for each borrowed channel of each head"
        )
    return borrow_gain


def check_indices(name: str, indices: Sequence[int] | None, count: int) -> list[int]:
    """``indices`` as a list, each from 0 to ``count - 1``; all of them where None."""
    picked = list(range(count)) if indices is None else list(indices)
    wrong = [i for i in picked if not 0 <= i < count]
    if wrong:
        raise ValueError(f"{name} must be indices from 0 to {count - 1}, got {wrong}")
    return picked
