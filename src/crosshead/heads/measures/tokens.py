"""Which tokens attention lies on: an object's, or those that draw it whatever is asked."""

from collections.abc import Sequence

import torch
from torch import Tensor

_SHUFFLES = 20


def alignment(rows: Tensor, mask: Tensor, *, share: float = 0.6, seed: int = 0) -> dict[str, Tensor]:
    """How the tokens that hold ``share`` of a row's mass agree with an object's tokens.

    Args:
        rows: (B, heads, N), non-negative: what one query, or the mean of several, pays attention to.
        mask: (B, N) bool, the object's tokens. An image without an object, or full of it, can't be judged: NaN.

    Returns:
        (B, heads) each: ``jaccard``; ``chance``, the same of maps whose tokens were shuffled; and ``alignment``,
        (jaccard - chance) / (1 - chance): 0 where chance does as well, 1 where the tokens are exactly the object's.
    """
    chosen = _top(rows, share)
    found = _jaccard(chosen, mask[:, None])
    generator = torch.Generator().manual_seed(seed)
    tokens = rows.shape[-1]
    orders = [torch.randperm(tokens, generator=generator).to(rows.device) for _ in range(_SHUFFLES)]
    chance = torch.stack([_jaccard(chosen[..., order], mask[:, None]) for order in orders]).mean(0)
    judged = (mask.any(-1) & ~mask.all(-1))[:, None]
    corrected = torch.where(judged, (found - chance) / (1 - chance).clamp(min=1e-12), torch.nan)
    return {"jaccard": found, "chance": chance, "alignment": corrected}


def _top(rows: Tensor, share: float) -> Tensor:
    """The fewest tokens that hold ``share`` of each row's mass."""
    order = rows.argsort(dim=-1, descending=True, stable=True)
    values = rows.double().gather(-1, order)
    before = values.cumsum(-1) - values
    # A hair less than the share: sums of equal parts must not take one more for a rounding error.
    chosen = before < (share - 1e-6) * values.sum(-1, keepdim=True)
    return torch.zeros_like(chosen).scatter(-1, order, chosen)


def _jaccard(chosen: Tensor, mask: Tensor) -> Tensor:
    return (chosen & mask).sum(-1).double() / (chosen | mask).sum(-1).clamp(min=1)


class Sinks:
    """The token of each head that draws most attention, and whether there is anything to take from it (2606.08105).

    A sink whose value is near 0 lets a head say nothing; one whose value is not hands the same to every query, and the
    head's outputs are then of low rank (``OutputMeasures``). In windows each has a sink of its own.

    Args:
        real: (windows, N), the prefix counted: which tokens there are, and do not fill a window up.
    """

    def __init__(self, real: Tensor) -> None:
        self._real = real
        self._received = self._queries = torch.zeros(())

    def add(self, weights: Tensor, queries: Sequence[int]) -> None:
        """Takes the rows (images · windows, heads, queries, N) of some queries; of a signed map |A|."""
        mass = weights.abs().unflatten(0, (-1, len(self._real)))
        asked = self._real[:, list(queries)].to(mass.dtype)
        shares = mass / mass.sum(-1, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
        self._received = self._received.to(mass.device) + torch.einsum("bwhqn,wq->bwhn", shares, asked)
        self._queries = self._queries.to(mass.device) + asked.sum(-1)[:, None, None]

    def result(self, values: Tensor) -> dict[str, Tensor]:
        """Of values (images · windows, heads, N, d): ``sink_share`` and ``sink_value_norm``, (images, heads)."""
        received = (self._received / self._queries).masked_fill(~self._real[:, None], -1.0)
        share, sink = received.max(-1, keepdim=True)
        norms = values.float().norm(dim=-1).unflatten(0, (-1, len(self._real))) * self._real[:, None]
        own = norms.gather(-1, sink)
        others = (norms.sum(-1, keepdim=True) - own) / (self._real.sum(-1)[:, None, None] - 1)
        # A window of one token has no others: NaN there, and the mean of the other windows.
        return {
            "sink_share": share.squeeze(-1).mean(1),
            "sink_value_norm": (own / others).squeeze(-1).nanmean(1),
        }


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
