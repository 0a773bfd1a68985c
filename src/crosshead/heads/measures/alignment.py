"""Whether attention lies on an object: DINO's comparison with a mask (arXiv 2104.14294), less what chance gives."""

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
