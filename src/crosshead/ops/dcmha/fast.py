"""Dynamically composable heads as the library uses them: in chunks, without anything of size N² kept."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..chunks import IMAGES, Axes, in_chunks, mask_axes
from ..dropout import Draw, drop, new_seed
from ..half_products import precise_product
from ..modes import autocast_dtype, is_transformed, traceable, without_autocast
from .arguments import check_composition

_EPSILON = 1e-6  # of the normalised factors, as the authors have it


@traceable
def composed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor,
    hidden_weight: Tensor,
    factor_weight: Tensor,
    diagonal_weight: Tensor,
    pre_weight: Tensor | None = None,
    post_weight: Tensor | None = None,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    sources: Tensor | None = None,
) -> Tensor:
    """Attention whose heads are composed anew at every pair of tokens (DCMHA, arXiv 2405.08553, section 3).

    Logits and weights of the heads are mixed by h x h matrices that the query and the key bring: products of rank R,
    a diagonal, and a static part. The equations are in ``naive.py``. Memory is linear in N.

    Args:
        q, k, v: (B, h, N, d), any strides.
        x: the tokens (B, N, dim) that the dynamic weights come from; the input of the layer.
        hidden_weight: (4·K, dim), rows: before the softmax by query, by key, after it by query, by key.
        factor_weight: (4, K, 2·R, h): the first R factors, normalised over the heads, read the heads, the others write.
        diagonal_weight: (4·h, dim).
        pre_weight, post_weight: static mixing (h, h) before and after the softmax, beside the identity; rows composed
            heads. None is 0.
        attn_bias: finite, broadcastable to (B, h, N, N); part of a head's logits, and composed with them. It may learn.
        attn_mask: boolean (True takes part) or additive, broadcastable to (B, h, N, N); it joins the composed logits.
            A query with no key left attends to nothing.
        dropout_p: the share of attention weights that is dropped, before they are composed. Give 0 in evaluation.
        scale: factor of the logits; d^(-1/2) by default.
        sources: (h,), what each head gives to every composed head is multiplied by it, 1 unless given: with 0 a head
            is left out of all mixtures, before and after the softmax. For analysis.

    Returns:
        (B, h, N, d) in the dtype of q; under autocast in autocast's dtype.

    Raises:
        ValueError: for sizes that do not fit, a mask or a dropout rate that cannot be.
    """
    shape = check_composition(
        q,
        k,
        v,
        x,
        hidden_weight,
        factor_weight,
        diagonal_weight,
        pre_weight,
        post_weight,
        attn_bias,
        attn_mask,
        dropout_p,
        sources,
    )
    scale = q.shape[3] ** -0.5 if scale is None else scale
    out_dtype = q.dtype if q.dtype == torch.float64 else (autocast_dtype(q) or q.dtype)
    # Half precision would lose the small differences that the composition is made of.
    precise = torch.promote_types(q.dtype, torch.float32)
    with without_autocast(q):
        mixing = mixing_matrices(
            *(t.to(precise) for t in (x, hidden_weight, factor_weight, diagonal_weight)),
            *(None if t is None else t.to(precise) for t in (pre_weight, post_weight)),
        )
        if sources is not None:
            mixing = mixing * sources.to(precise)
        added = [t if t is None else t[(None,) * (4 - t.dim())] for t in (attn_bias, attn_mask)]
        out = in_chunks(
            partial(_attend, scale=scale, dropout_p=dropout_p),
            (q, k, v, mixing, mixing, *added),
            (Axes(0, 2), IMAGES, IMAGES, Axes(0, 1), IMAGES, *map(mask_axes, added)),
            Axes(0, 2),
            shape,
            new_seed(dropout_p, q.device),
        )
    return out.to(out_dtype)


def mixing_matrices(
    x: Tensor,
    hidden_weight: Tensor,
    factor_weight: Tensor,
    diagonal_weight: Tensor,
    pre_weight: Tensor | None,
    post_weight: Tensor | None,
) -> Tensor:
    """The mixing matrices that the tokens bring: (B, N, 4, h, h) of tokens x (B, N, dim), before the softmax by query
    and by key, and after it.

    Row g holds the shares of the heads in composed head g. The identity and the static part are in the queries'.
    """
    _, _, num_factors, num_heads = factor_weight.shape
    hidden = F.gelu(F.linear(x, hidden_weight)).unflatten(-1, (4, -1))
    # One product for each of the four: (4, B·N, K) by (4, K, 2R·h).
    factors = torch.bmm(hidden.flatten(0, 1).transpose(0, 1), factor_weight.flatten(2))
    factors = factors.transpose(0, 1).view(*x.shape[:2], 4, num_factors, num_heads)
    first, second = factors.chunk(2, dim=3)
    first = first * torch.rsqrt(first.square().mean(-1, keepdim=True) + _EPSILON)
    diagonal = torch.tanh(F.linear(x, diagonal_weight)).unflatten(-1, (4, num_heads))
    same = torch.eye(num_heads, dtype=x.dtype, device=x.device)
    nothing = torch.zeros_like(same)
    static = torch.stack(
        [
            same if pre_weight is None else same + pre_weight,
            nothing,
            same if post_weight is None else same + post_weight,
            nothing,
        ]
    )
    return second.mT @ first + torch.diag_embed(diagonal) + static


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    at_queries: Tensor,
    at_keys: Tensor,
    attn_bias: Tensor | None,
    attn_mask: Tensor | None,
    draw: Draw | None,
    *,
    scale: float,
    dropout_p: float,
) -> Tensor:
    """O (b, h, t, d) of the queries q (b, h, t, d) among all keys and values (b, h, N, d).

    ``at_queries`` (b, t, 4, h, h) and ``at_keys`` (b, N, 4, h, h) are their mixing matrices. Logits and weights lie as
    (b, t, h, N), where a query's mixing is one product with (h, N), and a key's acts on their transpose (b, N, h, t).
    Both are float32; of q, k and v the products are of what they are.
    """
    logits, by_key = precise_product(q, k.mT, scale), precise_product(k, q.mT, scale)
    if attn_bias is not None:
        logits, by_key = logits + attn_bias, by_key + attn_bias.mT
    logits = at_queries[:, :, 0] @ logits.transpose(1, 2)
    by_key = _in_rows(at_keys[:, :, 1] @ by_key.transpose(1, 2))
    logits = logits + by_key.permute(0, 3, 2, 1)
    weights = drop(_softmax(logits, attn_mask), dropout_p, draw)
    by_query = at_queries[:, :, 2] @ weights
    by_key = _in_rows(at_keys[:, :, 3] @ weights.permute(0, 3, 2, 1).contiguous())
    return precise_product(by_query.transpose(1, 2), v) + precise_product(by_key.permute(0, 2, 3, 1), v)


def _in_rows(product: Tensor) -> Tensor:
    """``product``, whose gradient, that of a transpose, is laid out in rows: products of columns are slow."""
    if product.requires_grad and not torch.compiler.is_compiling() and not is_transformed(product):
        product.register_hook(lambda grad: None if grad is None else grad.contiguous())
    return product


def _softmax(logits: Tensor, attn_mask: Tensor | None) -> Tensor:
    """The weights of masked logits (b, t, h, N); zeros for a query with no key left."""
    if attn_mask is None:
        return logits.softmax(dim=-1)
    attn_mask = attn_mask.transpose(1, 2)
    if attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -torch.inf)
    else:
        logits = logits + attn_mask.to(logits.dtype)
    dead = (logits == -torch.inf).all(dim=-1, keepdim=True)
    return logits.masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)
