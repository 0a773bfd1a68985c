"""Measures of the heads' outputs, from one pass over batches: a covariance of all channels holds every pair."""

import torch
from torch import Tensor


class OutputMeasures:
    """Gathers the measures of outputs (B, heads, N, d) over images; what each is stands in ``naive``.

    Keeps one (heads·d, heads·d) matrix and a few vectors, in float64.
    """

    def __init__(self, num_heads: int) -> None:
        self.num_heads = num_heads
        self._images = self._tokens = 0
        self._cosines = torch.zeros(num_heads, num_heads, dtype=torch.float64)
        self._variance = 0.0
        self._ranks = torch.zeros(num_heads, dtype=torch.float64)
        self._sums: list[Tensor] = []

    def add(self, outputs: Tensor) -> None:
        """Takes the outputs of one batch of images."""
        outputs = outputs.double().cpu()
        images, _, tokens, _ = outputs.shape
        self._images += images
        self._tokens += images * tokens
        unit = torch.nn.functional.normalize(outputs, dim=-1).permute(0, 2, 1, 3)
        self._cosines += (unit @ unit.mT).mean(1).sum(0)
        apart = (outputs - outputs.mean(1, keepdim=True)).pow(2).sum((1, 2, 3))
        whole = outputs.pow(2).sum((1, 2, 3))
        self._variance += (apart / whole.clamp(min=torch.finfo(whole.dtype).tiny)).sum().item()
        self._ranks += stable_rank(outputs).sum(0)
        found = _statistics(outputs.permute(1, 0, 2, 3).flatten(1, 2))
        self._sums = [a + b for a, b in zip(self._sums, found, strict=True)] if self._sums else found

    def result(self) -> dict[str, Tensor | float]:
        """By name: (heads, heads), ``output_rank`` (heads,), and ``output_variance``."""
        images = max(self._images, 1)
        found: dict[str, Tensor | float] = {
            "output_similarity": self._cosines / images,
            "output_variance": self._variance / images,
            "output_rank": self._ranks / images,
        }
        if self._sums:
            found["cka"] = _normalised(self._biased())
        if self._tokens > 3:
            found["cka_debiased"] = _normalised(self._unbiased())
        return found

    def _biased(self) -> Tensor:
        products, total, *_ = self._sums
        covariance = products - total[:, None, :, None] * total[None, :, None, :] / self._tokens
        return covariance.pow(2).sum((2, 3))

    def _unbiased(self) -> Tensor:
        """HSIC_1 (arXiv 2010.15327, equation 3) of linear kernels, without the (tokens, tokens) matrices."""
        products, total, weighted, squares, norms = self._sums
        n = self._tokens
        traces = products.pow(2).sum((2, 3)) - squares
        own = total.pow(2).sum(1) - norms
        # sum_i (x_i·s_x - |x_i|^2)(y_i·s_y - |y_i|^2), s the sum over all tokens
        both = torch.einsum("gd,ghde,he->gh", total, products, total)
        one = torch.einsum("gd,ghd->gh", total, weighted)
        crossed = both - one - one.mT + squares
        return traces + own[:, None] * own / ((n - 1) * (n - 2)) - 2 / (n - 2) * crossed


def stable_rank(outputs: Tensor) -> Tensor:
    """|O|_F^2 / s_1^2 of outputs (..., N, d), s_1 the largest singular value: 1 where all tokens are given one vector.

    Without centring: what a head hands to all tokens alike counts (arXiv 2606.08105). A head that gives nothing: NaN.
    """
    tall = outputs if outputs.shape[-2] >= outputs.shape[-1] else outputs.mT
    squares = torch.linalg.eigvalsh(tall.mT @ tall).clamp(min=0)
    return squares.sum(-1) / squares[..., -1]


def _statistics(x: Tensor) -> list[Tensor]:
    """Of (heads, tokens, d): X_g^T X_h, sum x, sum x_g |x_h|^2, sum |x_g|^2 |x_h|^2, sum |x|^2."""
    norms = x.pow(2).sum(2)
    heads, _, width = x.shape
    flat = x.transpose(0, 1).flatten(1)
    products = (flat.mT @ flat).view(heads, width, heads, width).transpose(1, 2)
    return [products, x.sum(1), torch.einsum("gnd,hn->ghd", x, norms), norms @ norms.mT, norms.sum(1)]


def _normalised(hsic: Tensor) -> Tensor:
    own = hsic.diagonal().clamp(min=0).sqrt()
    scale = own[:, None] * own
    return torch.where(scale > 0, hsic / scale.clamp(min=torch.finfo(hsic.dtype).tiny), torch.nan)


def effective_heads(similarity: Tensor) -> float:
    """How many heads there are in effect (Vendi score, arXiv 2210.02410): 1 where all are alike, h where none are.

    The exponential of the entropy of the eigenvalues of ``similarity`` (h, h) / h, whose diagonal is 1.
    """
    values = torch.linalg.eigvalsh(similarity.double() / len(similarity)).clamp(min=0)
    values = values / values.sum()
    return torch.special.entr(values).sum().exp().item()


def mean_off_diagonal(similarity: Tensor) -> float:
    """The mean over pairs of two different heads; NaN with one head."""
    heads = len(similarity)
    return (
        ((similarity.sum() - similarity.trace()) / (heads * (heads - 1))).item()
        if heads > 1
        else float("nan")
    )


def neighbour_excess(similarity: Tensor) -> float:
    """What neighbours (|g - h| = 1) share beyond other pairs; NaN below three heads."""
    heads = len(similarity)
    apart = (torch.arange(heads)[:, None] - torch.arange(heads)).abs()
    if heads < 3:
        return float("nan")
    return (similarity[apart == 1].mean() - similarity[apart > 1].mean()).item()
