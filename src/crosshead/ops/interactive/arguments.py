"""What interactive attention accepts, checked in one place; messages name what was expected and what came."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_bias, check_heads, check_shape
from ..private_torch import is_without_data, transforms_are_active

# How tokens (B, h, N, d) and landmarks (B, h, L, d) are rotated.
Rotations = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


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


def check_parts(attn_mask: Tensor, batch: int, tokens: int) -> Tensor:
    """The parts that a mask leaves, (B or 1, P, N) of booleans: one of those that take part, or those of windows.

    Raises ValueError for a mask that is neither of padding nor one by which tokens fall into at most MAX_PARTS groups.
    """
    shape = attn_mask.shape
    fits = attn_mask.dtype == torch.bool and attn_mask.dim() == 4 and shape[0] in (1, batch) and shape[1] == 1
    if fits and shape[2:] == (1, tokens):
        return attn_mask[:, 0]
    if not fits or shape[2:] != (tokens, tokens):
        raise ValueError(f"{_MASKS.format(batch, tokens)}, got {attn_mask.dtype}, {tuple(shape)}")
    visible = attn_mask[:, 0]
    first = visible.int().argmax(-1)  # the first token of a token's part
    opens = first == torch.arange(tokens, device=first.device)
    number = (opens.cumsum(-1) - 1).gather(-1, first)
    parts = number.unsqueeze(1) == torch.arange(MAX_PARTS, device=first.device).view(-1, 1)
    if not (torch.compiler.is_compiling() or transforms_are_active() or is_without_data(visible)):
        together = (parts.unsqueeze(2) & parts.unsqueeze(3)).any(1)
        if not bool((together == visible).all()):
            raise ValueError(f"{_MASKS.format(batch, tokens)}, got one that parts them otherwise")
    return parts


def check_landmark_bias(attn_bias: Tensor, batch: int, num_heads: int, tokens: int) -> Tensor:
    """A bias as (B or 1, h or 1, N, N). Raises ValueError where it isn't one of every pair of tokens."""
    check_bias(attn_bias, (batch, num_heads, tokens, tokens))
    if attn_bias.shape[-2:] != (tokens, tokens):
        raise ValueError(
            f"attn_bias must be (..., N, N) = (..., {tokens}, {tokens}), of which landmarks take means, "
            f"got {tuple(attn_bias.shape)}"
        )
    return attn_bias.reshape(*[1] * (4 - attn_bias.dim()), *attn_bias.shape)


# Windows that are shifted along both axes of an image hold tokens of four places.
MAX_PARTS = 4
_MASKS = (
    "attention through landmarks takes no mask but one of padding, boolean (B or 1, 1, 1, N), B {0} and N {1} here, or "
    "one that parts tokens, boolean (B or 1, 1, N, N), into at most 4 groups that see one another and nobody else: a "
    "landmark averages over queries or keys that another mask would tell apart"
)
