"""Measures of maps that are products of two thin factors, exact and without a map (iMHSA, arXiv 2402.17507)."""

import torch
from torch import Tensor


def map_products(query_factor: Tensor, key_factor: Tensor) -> Tensor:
    """<A_g - mean, A_h - mean> of A = Â_Q Â_K, each row less its own mean; (B, heads, heads), in O(N L² heads²).

    Args:
        query_factor: Â_Q (B, heads, N, L), the queries that count.
        key_factor: Â_K (B, heads, L, N), the keys that count.
    """
    q, k = query_factor.double(), key_factor.double()
    k = k - k.mean(-1, keepdim=True)  # the mean of a row of A is Â_Q times the means of the rows of Â_K
    batch, heads, landmarks, _ = k.shape
    q = q.transpose(2, 3).flatten(1, 2)
    k = k.flatten(1, 2)
    grams = [(x @ x.mT).view(batch, heads, landmarks, heads, landmarks) for x in (q, k)]
    return torch.einsum("bgihj,bgihj->bgh", *grams)


def row_sums(query_factor: Tensor, key_factor: Tensor) -> Tensor:
    """The sum of each row of Â_Q Â_K, (B, heads, N): 1 without mixing."""
    return (query_factor @ key_factor.sum(-1, keepdim=True)).squeeze(-1)
