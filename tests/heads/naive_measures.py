"""The measures as their equations say, on whole maps in float64: the oracle of what streams.

Maps A are (B, heads, N, N) over the tokens of the grid; ``separation`` (N, N) holds |x_i - x_j| in pixels; outputs O
are (B, heads, N, d). Everything is computed image by image and then averaged; CKA alone pools the tokens of all images.
"""

import itertools
import math

import torch
from torch import Tensor


def shares(maps: Tensor) -> Tensor:
    """|A| with rows that sum to 1: a softmax restricted to some keys renormalised, or the mass of a signed map."""
    mass = maps.double().abs()
    return mass / mass.sum(-1, keepdim=True)


def distance(maps: Tensor, separation: Tensor) -> Tensor:
    """Mean over the queries of sum_j A_ij |x_i - x_j|, (heads,), in pixels."""
    return (shares(maps) * separation.double()).sum(-1).mean((0, 2))


def entropy(maps: Tensor) -> Tensor:
    """Mean over the queries of -sum A log A, over the log of the number of keys; (heads,), 0 to 1."""
    a = shares(maps)
    return -(a * torch.where(a > 0, a, 1.0).log()).sum(-1).mean((0, 2)) / math.log(maps.shape[-1])


def confidence(maps: Tensor) -> Tensor:
    """Mean over the queries of max_j A_ij, (heads,)."""
    return shares(maps).amax(-1).mean((0, 2))


def map_similarity(maps: Tensor, *, signed: bool = False) -> Tensor:
    """Cosine of the centred maps, (heads, heads). A signed map is centred by its own row means, not renormalised."""
    a = maps.double() if signed else shares(maps)
    centred = (a - a.mean(-1, keepdim=True)).flatten(2)
    unit = torch.nn.functional.normalize(centred, dim=-1)
    return (unit @ unit.mT).mean(0)


def map_divergence(maps: Tensor) -> Tensor:
    """Mean over the queries of the Jensen-Shannon divergence of two heads' rows, (heads, heads), in bits."""
    a = shares(maps)
    p, q = a[:, :, None], a[:, None]
    middle = (p + q) / 2
    halves = [(x * torch.where(x > 0, x / middle, 1.0).log2()).sum(-1) for x in (p, q)]
    return ((halves[0] + halves[1]) / 2).mean((0, 3))


def output_similarity(outputs: Tensor) -> Tensor:
    """Mean over the tokens of cos(O_g, O_h), (heads, heads)."""
    unit = torch.nn.functional.normalize(outputs.double(), dim=-1)
    return torch.einsum("bgnd,bhnd->ghbn", unit, unit).mean((2, 3))


def output_variance(outputs: Tensor) -> float:
    """sum_g |O_g - mean O|^2 / sum_g |O_g|^2, 0 to 1."""
    o = outputs.double()
    apart = (o - o.mean(1, keepdim=True)).pow(2).sum((1, 2, 3))
    return (apart / o.pow(2).sum((1, 2, 3))).mean().item()


def linear_cka(outputs: Tensor) -> Tensor:
    """|Y^T X|^2 / (|X^T X| |Y^T Y|) of the heads' outputs over all tokens of all images, centred; (heads, heads)."""
    x = _pooled(outputs)
    x = x - x.mean(1, keepdim=True)
    hsic = torch.einsum("gnd,hne->ghde", x, x).pow(2).sum((2, 3))
    own = hsic.diagonal().sqrt()
    return hsic / (own[:, None] * own[None])


def debiased_cka(outputs: Tensor) -> Tensor:
    """Linear CKA with the unbiased estimator of HSIC (arXiv 2010.15327, equation 3), (heads, heads)."""
    x = _pooled(outputs)
    n = x.shape[1]
    gram = x @ x.mT
    gram.diagonal(dim1=-2, dim2=-1).zero_()
    total = gram.sum((1, 2))
    traces = torch.einsum("gij,hij->gh", gram, gram)
    crossed = torch.einsum("gi,hi->gh", gram.sum(2), gram.sum(2))
    hsic = traces + total[:, None] * total / ((n - 1) * (n - 2)) - 2 / (n - 2) * crossed
    own = hsic.diagonal().clamp(min=0).sqrt()
    return hsic / (own[:, None] * own[None])


def effective_heads(similarity: Tensor) -> float:
    """exp of the entropy of the eigenvalues of (similarity / heads): 1 where all are alike, heads where none are."""
    values = torch.linalg.eigvalsh(similarity.double() / len(similarity)).clamp(min=0)
    values = values / values.sum()
    return (values * torch.where(values > 0, values, 1.0).log()).sum().neg().exp().item()


def sinks(maps: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Of maps (B, heads, queries, N) over all tokens: attention to the one that draws most, and its value's norm over
    the mean of the others'; (heads,) each."""
    mass = shares(maps)
    share, value = torch.zeros(2, *mass.shape[:2], dtype=torch.float64)
    for b, head in itertools.product(*map(range, mass.shape[:2])):
        received = mass[b, head].mean(0)
        sink = int(received.argmax())
        norms = values[b, head].double().norm(dim=-1)
        share[b, head] = received[sink]
        value[b, head] = norms[sink] / norms[torch.arange(len(norms)) != sink].mean()
    return share.mean(0), value.mean(0)


def output_rank(outputs: Tensor) -> Tensor:
    """|O|_F^2 / s_1^2, s_1 the largest singular value of O (N, d); (heads,)."""
    singular = torch.linalg.svdvals(outputs.double())
    return (singular.pow(2).sum(-1) / singular.amax(-1).pow(2)).mean(0)


def top_share(row: Tensor, share: float = 0.6) -> Tensor:
    """The fewest tokens that hold ``share`` of a row's mass, largest first; (..., N) bool."""
    order = row.argsort(dim=-1, descending=True, stable=True)
    sorted_row = row.gather(-1, order)
    before = sorted_row.cumsum(-1) - sorted_row
    chosen = before < share * row.sum(-1, keepdim=True)
    return torch.zeros_like(chosen).scatter(-1, order, chosen)


def jaccard(chosen: Tensor, mask: Tensor) -> Tensor:
    """|both| / |either| over the last axis; bool in."""
    either = (chosen | mask).sum(-1)
    return (chosen & mask).sum(-1) / either.clamp(min=1)


def _pooled(outputs: Tensor) -> Tensor:
    return outputs.double().transpose(0, 1).flatten(1, 2)
