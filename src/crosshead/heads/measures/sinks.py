"""Tokens that draw attention whatever is asked (arXiv 2309.16588)."""

from torch import Tensor

# A token stands out where its norm is this many median absolute deviations above the median.
DEVIATIONS = 10.0


def prefix_share(weights: Tensor, prefix: int) -> Tensor:
    """The share of attention that goes to the first ``prefix`` tokens, mean over the queries; (B, heads).

    ``weights`` (B, heads, queries, N) over all tokens, of a signed map |A|.
    """
    mass = weights.abs()
    return (mass[..., :prefix].sum(-1) / mass.sum(-1)).mean(-1)


def outstanding_tokens(features: Tensor, deviations: float = DEVIATIONS) -> Tensor:
    """Which tokens' norms lie above median + ``deviations`` · MAD of their image; features (B, N, D) -> (B, N) bool."""
    norms = features.norm(dim=-1)
    median = norms.median(-1, keepdim=True).values
    spread = (norms - median).abs().median(-1, keepdim=True).values
    return norms > median + deviations * spread
