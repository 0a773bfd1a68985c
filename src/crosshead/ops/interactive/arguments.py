"""What interactive attention accepts, checked in one place; messages name what was expected and what came."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_heads, check_shape


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
    """Raises ValueError unless q, k, v are (B, h, N, d) alike and each mixing matrix (h, h)."""
    _, heads, tokens, keys = check_heads(q, k, v)
    if keys != tokens:
        raise ValueError(f"k must have the shape of q, {tuple(q.shape)}, got {tuple(k.shape)}")
    for name, mix in (("mix_query", mix_query), ("mix_key", mix_key)):
        check_shape(name, mix, (heads, heads), "(num_heads, num_heads)")


def check_padding(attn_mask: Tensor, batch: int, tokens: int) -> Tensor:
    """The tokens that a mask of padding leaves, (B or 1, N). Raises ValueError for any other mask."""
    padding = attn_mask.dtype == torch.bool and attn_mask.dim() == 4 and attn_mask.shape[1:3] == (1, 1)
    if not padding or attn_mask.shape[0] not in (1, batch) or attn_mask.shape[3] != tokens:
        raise ValueError(
            "attention through landmarks takes no mask but one of padding, boolean (B or 1, 1, 1, N) = "
            f"({batch}, 1, 1, {tokens}), got {attn_mask.dtype}, {tuple(attn_mask.shape)}: a landmark averages over "
            "queries or keys that another mask would tell apart"
        )
    return attn_mask[:, 0, 0]
