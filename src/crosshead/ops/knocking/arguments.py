"""What knocking heads accept, checked in one place."""

from torch import Tensor

from ..checks import check_heads, check_shape


def check_knock(q: Tensor, k: Tensor, v: Tensor, matrices: Tensor) -> None:
    """Heads (B, h, N, d) and a matrix (d, d) for each of the three."""
    check_heads(q, k, v)
    width = q.shape[3]
    check_shape("matrices", matrices, (3, width, width), "(3, head_dim, head_dim)")


def check_packed_knock(heads: Tensor, matrices: Tensor) -> None:
    """Heads (B, N, n, h, d) and a matrix (d, d) for each of the n."""
    if heads.dim() != 5 or not heads.is_floating_point():
        raise ValueError(
            f"heads must be floating point, packed as (B, N, n, num_heads, head_dim), got {heads.dtype}, "
            f"{tuple(heads.shape)}"
        )
    count, width = heads.shape[2], heads.shape[4]
    check_shape("matrices", matrices, (count, width, width), "(n, head_dim, head_dim)")


def check_gated(values: Tensor, up: Tensor, gate: Tensor, down: Tensor) -> None:
    """Values (..., d) and three matrices (d, d)."""
    width = values.shape[-1]
    for name, matrix in (("up", up), ("gate", gate), ("down", down)):
        check_shape(name, matrix, (width, width), "(head_dim, head_dim)")


def check_fold(weight: Tensor, bias: Tensor | None, matrices: Tensor) -> int:
    """The number of heads of a projection (n·h·d, D) that n matrices (d, d) fold into."""
    if matrices.dim() != 3 or matrices.shape[1] != matrices.shape[2]:
        raise ValueError(f"matrices must be (n, head_dim, head_dim), got {tuple(matrices.shape)}")
    count, width, _ = matrices.shape
    if weight.dim() != 2 or weight.shape[0] % (count * width):
        raise ValueError(
            f"weight must be (n·num_heads·head_dim, dim) with n = {count}, head_dim = {width}, "
            f"got {tuple(weight.shape)}"
        )
    check_shape("bias", bias, (weight.shape[0],), "(n·num_heads·head_dim,)")
    return weight.shape[0] // (count * width)
