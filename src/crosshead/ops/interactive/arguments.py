"""What interactive attention accepts, checked in one place; every message names what was wanted and what came."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Geometry(NamedTuple):
    """Where the tokens lie: a ``grid`` of rows and columns, its landmark ``cells`` per side, the prefix before it."""

    grid: tuple[int, int]
    cells: tuple[int, int]
    num_prefix_tokens: int

    @property
    def num_landmarks(self) -> int:
        return self.num_prefix_tokens + self.cells[0] * self.cells[1]


def check_tokens(
    tokens: int, grid: Sequence[int], landmarks: int | Sequence[int], num_prefix_tokens: int
) -> Geometry:
    """The geometry of ``tokens`` tokens; never more landmark cells than the grid has rows and columns.

    Raises ValueError unless ``num_prefix_tokens`` and then the ``grid`` account for all ``tokens``.
    """
    sides = (landmarks, landmarks) if isinstance(landmarks, int) else tuple(landmarks)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(
            f"landmarks must be one or two counts of at least 1 (rows, columns), got {landmarks}"
        )
    if len(grid) != 2 or min(grid) < 1:
        raise ValueError(f"grid must be two sizes of at least 1 (rows, columns), got {tuple(grid)}")
    if num_prefix_tokens < 0:
        raise ValueError(f"num_prefix_tokens must be at least 0, got {num_prefix_tokens}")
    rows, columns = grid
    wanted = rows * columns + num_prefix_tokens
    if tokens != wanted:
        raise ValueError(
            f"a grid of {rows} x {columns} after {num_prefix_tokens} prefix tokens has {wanted} tokens, got {tokens}; "
            "pass the grid that the tokens lie on and the number of tokens before it"
        )
    return Geometry((rows, columns), (min(sides[0], rows), min(sides[1], columns)), num_prefix_tokens)


def check_operands(q: Tensor, k: Tensor, v: Tensor, mix_query: Tensor | None, mix_key: Tensor | None) -> None:
    """Raises ValueError unless q, k, v are (B, heads, N, head_dim) alike and each mixing matrix (heads, heads)."""
    if q.ndim != 4 or not q.is_floating_point():
        raise ValueError(
            f"q must be floating point of shape (batch, heads, tokens, head_dim), got {q.dtype}, {tuple(q.shape)}"
        )
    for name, other in (("k", k), ("v", v)):
        if other.shape != q.shape:
            raise ValueError(f"{name} must have the shape of q, {tuple(q.shape)}, got {tuple(other.shape)}")
        if other.dtype != q.dtype or other.device != q.device:
            raise ValueError(
                f"{name} must have the dtype and device of q, {q.dtype} on {q.device}, "
                f"got {other.dtype} on {other.device}"
            )
    heads = q.shape[1]
    for name, mix in (("mix_query", mix_query), ("mix_key", mix_key)):
        if mix is not None and mix.shape != (heads, heads):
            raise ValueError(f"{name} must be (heads, heads) = ({heads}, {heads}), got {tuple(mix.shape)}")
