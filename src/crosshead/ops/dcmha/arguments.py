"""What dynamic composition accepts, checked in one place."""

from torch import Tensor

from ..checks import check_bias, check_dropout, check_heads, check_mask, check_shape


def check_composition(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor,
    hidden_weight: Tensor,
    factor_weight: Tensor,
    diagonal_weight: Tensor,
    pre_weight: Tensor | None,
    post_weight: Tensor | None,
    attn_bias: Tensor | None,
    attn_mask: Tensor | None,
    dropout_p: float,
    sources: Tensor | None = None,
) -> tuple[int, int, int, int]:
    """The shape (B, h, N, N) of the logits; raises ValueError for what does not fit."""
    batch, heads, tokens, keys = shape = check_heads(q, k, v)
    if tokens != keys:
        raise ValueError(f"composed heads attend among themselves: {tokens} queries and {keys} keys")
    if x.dim() != 3 or x.shape[:2] != (batch, tokens):
        raise ValueError(
            f"x must be the tokens (B, N, dim) of the heads, ({batch}, {tokens}, dim), got {tuple(x.shape)}"
        )
    if factor_weight.dim() != 4 or factor_weight.shape[0] != 4 or factor_weight.shape[2] % 2:
        raise ValueError(
            f"factor_weight must be (4, hidden, 2·rank, num_heads), got {tuple(factor_weight.shape)}"
        )
    hidden, factors = factor_weight.shape[1:3]
    dim = x.shape[2]
    check_shape("factor_weight", factor_weight, (4, hidden, factors, heads), "(4, hidden, 2·rank, num_heads)")
    check_shape("hidden_weight", hidden_weight, (4 * hidden, dim), "(4·hidden, dim)")
    check_shape("diagonal_weight", diagonal_weight, (4 * heads, dim), "(4·num_heads, dim)")
    check_shape("pre_weight", pre_weight, (heads, heads), "(num_heads, num_heads)")
    check_shape("post_weight", post_weight, (heads, heads), "(num_heads, num_heads)")
    check_shape("sources", sources, (heads,), "(num_heads,)")
    check_bias(attn_bias, shape)
    check_mask(attn_mask, shape)
    check_dropout(dropout_p)
    return shape
