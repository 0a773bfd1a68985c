"""Landmarks: tokens average-pooled over the cells of their grid, as one small matrix product an axis."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, pad

from ..private_torch import is_without_data
from .arguments import Geometry


def pooling_matrix(length: int, cells: int, like: Tensor) -> Tensor:
    """(cells, length), each row the average over its cell's span; dtype and device of ``like``."""
    if torch.compiler.is_compiling():
        return _compared_pooling_matrix(length, cells, like)
    kept = _pooling_matrix if _may_be_kept(like) else _pooling_matrix.__wrapped__
    return kept(length, cells, like.dtype, like.device)


@lru_cache(maxsize=64)
def _pooling_matrix(length: int, cells: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is kept may meet a gradient later
        return adaptive_avg_pool1d(torch.eye(length, dtype=dtype, device=device), cells).mT


def _may_be_kept(like: Tensor) -> bool:
    """Not what has no data, nor what a graph that is being captured would own."""
    captured = like.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    return not is_without_data(like) and not captured


def _compared_pooling_matrix(length: int, cells: int, like: Tensor) -> Tensor:
    """The same, bit by bit, without PyTorch's pooling, which a traced graph knows for the traced sizes alone."""
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    place = torch.arange(length, device=like.device)
    first, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    inside = ((first <= place) & (place < end)).to(torch.promote_types(like.dtype, torch.float32))
    return (inside / (end - first)).to(like.dtype)


def pooling_matrices(geometry: Geometry, like: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the rows and of the columns."""
    (rows, columns), cells, _ = geometry
    along_rows = pooling_matrix(rows, cells[0], like)
    # An exported graph serves every size: to ask here would bind it to square grids, or to others.
    same = not torch.compiler.is_exporting() and rows == columns and cells[0] == cells[1]
    return along_rows, along_rows if same else pooling_matrix(columns, cells[1], like)


def landmark_matrix(geometry: Geometry, like: Tensor) -> Tensor:
    """(L, N): the landmarks of tokens as one product, the prefix tokens first."""
    along_rows, along_columns = pooling_matrices(geometry, like)
    # Not torch.kron and torch.block_diag, which an exported graph would know for the traced size alone.
    on_grid = along_rows[:, None, :, None] * along_columns[None, :, None, :]
    on_grid = on_grid.flatten(2).flatten(0, 1)
    first = geometry.num_prefix_tokens
    if first == 0:
        return on_grid
    prefix = torch.eye(first, dtype=like.dtype, device=like.device)
    return torch.cat([pad(prefix, (0, on_grid.shape[1])), pad(on_grid, (first, 0))])


def pool_landmarks(q: Tensor, k: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Landmarks of q and of k (B, heads, N, head_dim): each (B, heads, L, head_dim), the prefix tokens first."""
    along = pooling_matrices(geometry, q)
    return _pool(q, geometry, *along), _pool(k, geometry, *along)


def _pool(x: Tensor, geometry: Geometry, along_rows: Tensor, along_columns: Tensor) -> Tensor:
    (rows, columns), cells, num_prefix_tokens = geometry
    batch, heads, _, width = x.shape
    on_grid = x[:, :, num_prefix_tokens:]
    if _heads_are_packed(x):  # views of a projection's output: all heads of a token in one go, uncopied
        on_grid = on_grid.transpose(1, 2).reshape(batch * rows, columns, heads * width)
        half = torch.bmm(along_columns.expand(batch * rows, -1, -1), on_grid)
        half = half.reshape(batch, rows, cells[1] * heads * width)
        pooled = torch.bmm(along_rows.expand(batch, -1, -1), half)
        pooled = pooled.view(batch, cells[0] * cells[1], heads, width).transpose(1, 2)
    else:
        on_grid = on_grid.reshape(batch * heads * rows, columns, width)
        half = torch.bmm(along_columns.expand(batch * heads * rows, -1, -1), on_grid)
        half = half.view(batch * heads, rows, cells[1] * width)
        pooled = torch.bmm(along_rows.expand(batch * heads, -1, -1), half)
        pooled = pooled.view(batch, heads, cells[0] * cells[1], width)
    if num_prefix_tokens == 0:
        return pooled
    return torch.cat((x[:, :, :num_prefix_tokens], pooled), dim=2)


def add_pooling_gradient_(grad_x: Tensor, grad_landmarks: Tensor, geometry: Geometry) -> None:
    """Adds to ``grad_x`` (B, heads, N, head_dim) what the gradient of its landmarks sends back through the pooling."""
    (rows, columns), cells, num_prefix_tokens = geometry
    batch, heads, _, width = grad_x.shape
    along_rows, along_columns = pooling_matrices(geometry, grad_landmarks)
    grad_x[:, :, :num_prefix_tokens] += grad_landmarks[:, :, :num_prefix_tokens]
    pooled = grad_landmarks[:, :, num_prefix_tokens:].transpose(1, 2)
    pooled = pooled.reshape(batch, cells[0], cells[1] * heads * width)
    half = torch.bmm(along_rows.mT.expand(batch, -1, -1), pooled).view(batch * rows, cells[1], heads * width)
    whole = torch.bmm(along_columns.mT.expand(batch * rows, -1, -1), half)
    grad_x[:, :, num_prefix_tokens:] += whole.view(batch, rows * columns, heads, width).transpose(1, 2)


def _heads_are_packed(x: Tensor) -> bool:
    return x.stride(1) == x.shape[3] and x.stride(3) == 1 and x.stride(2) >= x.shape[1] * x.shape[3]
