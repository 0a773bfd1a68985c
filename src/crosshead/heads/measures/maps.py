"""Measures of maps without a whole map of all heads: from rows in chunks, or from two thin factors."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


class Means:
    """Means over images by name, in float64; each image weighs the same."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._images: dict[str, int] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Takes one value, or one tensor, an image: (images, ...)."""
        total = values.double().sum(0)
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._images[name] = self._images.get(name, 0) + len(values)

    def result(self) -> dict[str, Tensor]:
        return {name: total.cpu() / self._images[name] for name, total in self._sums.items()}


@dataclass(frozen=True)
class Rows:
    """Some queries' rows of every head.

    ``weights`` (B, heads, queries, keys); ``separation`` (queries, keys), how far each key lies from each query, in
    pixels; ``allowed`` (queries, keys), which keys a query may see, where it may not see all.
    """

    weights: Tensor
    separation: Tensor
    allowed: Tensor | None = None


class MapMeasures:
    """Gathers the measures of maps over images; what each is stands in ``naive``.

    ``signed`` says that the maps are no probabilities: distance, entropy and confidence are then those of |A|,
    similarity is of A as it is, and there is no divergence.
    """

    def __init__(self, num_heads: int, *, signed: bool = False) -> None:
        self.num_heads, self.signed = num_heads, signed
        self._means = Means()

    def add(self, chunks: Iterable[Rows], *, pairs: bool = True) -> None:
        """Takes the rows of one batch of images, in any number of chunks; without ``pairs`` of single heads alone."""
        queries, sums = 0, dict[str, Tensor]()
        for rows in chunks:
            queries += rows.weights.shape[2]
            for name, value in self._sums(rows, pairs).items():
                sums[name] = sums[name] + value if name in sums else value
        inner = sums.pop("inner", None)
        for name, value in sums.items():
            self._means.add(name, value / queries)
        if inner is not None:
            self.add_products(inner)

    def add_products(self, inner: Tensor) -> None:
        """Takes <A_g - mean, A_h - mean>, (B, heads, heads), of a batch: how rows arrive, or an exact form of them."""
        own = inner.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        scale = own[:, :, None] * own[:, None]
        # A uniform map is centred to nothing; it resembles itself and nothing else.
        same = torch.eye(self.num_heads, dtype=torch.bool, device=inner.device)
        cosine = torch.where(scale > 0, inner / scale.clamp(min=torch.finfo(inner.dtype).tiny), 0.0)
        self._means.add("map_similarity", torch.where(same, 1.0, cosine))

    def result(self) -> dict[str, Tensor]:
        """Name -> (heads,) or (heads, heads), averaged over the images."""
        found = self._means.result()
        if "distance" in found:
            found["distance_ratio"] = found["distance"] / found.pop("uniform_distance")
        return found

    def _sums(self, rows: Rows, pairs: bool) -> dict[str, Tensor]:
        """The sums over the chunk's queries, (B, heads) or (B, heads, heads)."""
        shares = rows.weights.abs()
        shares = shares / shares.sum(-1, keepdim=True)
        allowed = rows.weights.shape[-1] if rows.allowed is None else rows.allowed.sum(-1)
        keys = torch.as_tensor(allowed, device=shares.device)
        # One allowed key leaves nothing to be uncertain of: its entropy is 0, over any logarithm.
        logarithm = keys.clamp(min=2).to(shares.dtype).log()
        uniform = (
            rows.separation.mean(-1) if rows.allowed is None else _mean_where(rows.separation, rows.allowed)
        )
        found = {
            "distance": (shares * rows.separation).sum(-1).sum(-1, dtype=torch.float64),
            "entropy": (-torch.special.xlogy(shares, shares).sum(-1) / logarithm).sum(
                -1, dtype=torch.float64
            ),
            "confidence": shares.amax(-1).sum(-1, dtype=torch.float64),
        }
        found["uniform_distance"] = uniform.sum(dtype=torch.float64).expand_as(found["distance"])
        if pairs:
            found["inner"] = self._products(rows, shares)
            if not self.signed:
                found["map_divergence"] = _divergence(shares)
        return found

    def _products(self, rows: Rows, shares: Tensor) -> Tensor:
        maps = rows.weights if self.signed else shares
        if rows.allowed is None:
            centred = maps - maps.mean(-1, keepdim=True)
        else:
            centred = torch.where(rows.allowed, maps - _mean_where(maps, rows.allowed)[..., None], 0.0)
        flat = centred.flatten(2)
        return (flat @ flat.mT).double()


def _divergence(shares: Tensor) -> Tensor:
    """JS(A_g, A_h) = H((A_g + A_h) / 2) - (H(A_g) + H(A_h)) / 2 summed over the queries; (B, heads, heads), in bits."""
    heads = shares.shape[1]
    own = -torch.special.xlogy(shares, shares).sum((-2, -1), dtype=torch.float64)
    found = shares.new_zeros(len(shares), heads, heads, dtype=torch.float64)
    for g in range(heads - 1):  # a pair of heads at a time: (heads, heads, queries, keys) would not fit
        middle = (shares[:, g : g + 1] + shares[:, g + 1 :]) / 2
        mixed = -torch.special.xlogy(middle, middle).sum((-2, -1), dtype=torch.float64)
        found[:, g, g + 1 :] = mixed - (own[:, g : g + 1] + own[:, g + 1 :]) / 2
    found = found.clamp(min=0) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    return found + found.mT


def _mean_where(values: Tensor, allowed: Tensor) -> Tensor:
    return (values * allowed).sum(-1) / allowed.sum(-1).clamp(min=1)


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
