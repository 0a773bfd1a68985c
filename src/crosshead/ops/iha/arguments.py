"""What interleaved heads accept, checked in one place."""

from torch import Tensor

from ..checks import check_bias, check_mask, check_self_attention, check_shape


def check_interleaved(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix_query: Tensor,
    mix_key: Tensor,
    mix_value: Tensor,
    collapse: Tensor,
    attn_mask: Tensor | None,
    attn_bias: Tensor | None,
    is_causal: bool,
) -> None:
    """Heads (B, h, N, d), shares (h, h, P) of the same P, and what is added to logits (B, h, N, N)."""
    shape = check_self_attention(q, k, v)
    num_heads, pseudo_heads = shape[1], mix_query.shape[-1]
    for name, shares in (
        ("mix_query", mix_query),
        ("mix_key", mix_key),
        ("mix_value", mix_value),
        ("collapse", collapse),
    ):
        check_shape(name, shares, (num_heads, num_heads, pseudo_heads), "(num_heads, num_heads, P)")
    check_mask(attn_mask, shape)
    check_bias(attn_bias, shape)
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask and is_causal exclude each other; put the causal part into attn_mask")
