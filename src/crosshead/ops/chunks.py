"""Attention in chunks of a few images, or of a few rows of queries, each formed again in the backward pass.

A function of attention matrices is written plainly, for any images and any rows of queries. Here it is called chunk by
chunk, so that a chunk stays in the cache and nothing of size N² outlives it; the backward pass calls it again and lets
autograd differentiate it. PyTorch's compiler is told the same by PyTorch's checkpointing. For ``torch.func``,
forward-mode differentiation and exported programs the function is called once, on everything. Where a gradient is
itself to be differentiated, the chunks stay.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .dropout import Draw
from .modes import is_differentiated_again, is_transformed, without_autocast

# Attention weights (all heads) of one chunk. On a CPU two large images at once are slower than one after the other,
# since their products want copies.
_CPU_CHUNK, _ACCELERATOR_CHUNK = 400_000, 1 << 26
_COMPILED_CHUNKS = 8


class Axes(NamedTuple):
    """Which axis of an operand runs over the images, and which over the queries; None where all share it."""

    images: int | None = None
    rows: int | None = None


IMAGES = Axes(images=0)
SHARED = Axes()

# Called with the operands of a chunk, and with the draw of its dropout (None: of the global generator).
ChunkFunction = Callable[..., Tensor]


class Work(NamedTuple):
    """``function`` of operands of which each has its ``axes``, on chunks of ``images`` and ``rows`` of queries.

    ``out`` says where the chunks of the result lie; with shared axes they are summed.
    """

    function: ChunkFunction
    axes: tuple[Axes, ...]
    out: Axes
    images: list[slice]
    rows: list[slice]

    def chunks(self, seed: Tensor | None) -> Iterator[tuple[slice, slice, Draw | None]]:
        """Images, rows and draw of each chunk, the same in either pass."""
        for i, images in enumerate(self.images):
            for j, rows in enumerate(self.rows):
                yield images, rows, None if seed is None else Draw(seed, i * len(self.rows) + j)


def in_chunks(
    function: ChunkFunction,
    operands: Sequence[Tensor | None],
    axes: Sequence[Axes],
    out: Axes,
    logits_shape: tuple[int, int, int, int],
    seed: Tensor | None = None,
) -> Tensor:
    """``function(*operands, draw)``, computed in chunks of attention matrices (B, h, N, N) = ``logits_shape``.

    Args:
        function: attention of any images and any rows of queries: operands, then the draw of its dropout.
        operands: tensors, or None.
        axes: how each is cut.
        out: where the chunks of the result lie; shared: their sum is the result.
        seed: what dropout is drawn from in either pass (``dropout.new_seed``), or None: the function draws nothing.
    """
    given = [x for x in operands if x is not None]
    if must_be_plain(given):
        return function(*operands, None)
    batch, num_heads, tokens, keys = logits_shape
    limit = _CPU_CHUNK if given[0].device.type == "cpu" else _ACCELERATOR_CHUNK
    if torch.compiler.is_compiling():  # which writes out every chunk
        limit = max(limit, batch * num_heads * tokens * keys // _COMPILED_CHUNKS)
    row = max(1, num_heads * keys)
    images = min(batch, max(1, limit // max(1, row * tokens)))
    rows = min(tokens, max(1, limit // max(1, images * row)))
    work = Work(function, tuple(axes), out, spans(batch, images), spans(tokens, rows))
    if torch.compiler.is_compiling():
        return _checkpointed(work, operands, seed)
    found: Tensor = _Recomputed.apply(work, seed, *operands)
    return found


def must_be_plain(given: Sequence[Tensor]) -> bool:
    """Whether ``torch.func``, forward-mode differentiation or an export is at work: only plain PyTorch will do."""
    return torch.compiler.is_exporting() or is_transformed(*given)


def spans(length: int, step: int) -> list[slice]:
    """Slices of ``length`` in equal steps of at most ``step``; one empty slice of nothing."""
    count = max(1, -(-length // max(1, step)))
    even = max(1, -(-length // count))
    return [slice(start, min(start + even, length)) for start in range(0, max(1, length), even)]


def mask_axes(mask: Tensor | None) -> Axes:
    """How a mask that broadcasts to (B, h, N, N), with four axes, is cut."""
    if mask is None:
        return SHARED
    return Axes(0 if mask.shape[0] > 1 else None, 2 if mask.shape[2] > 1 else None)


def empty_token_major(x: Tensor) -> Tensor:
    """An empty (B, h, N, c) like ``x``, laid out token by token, as the projection behind it wants it."""
    batch, num_heads, tokens, width = x.shape
    return x.new_empty(batch, tokens, num_heads, width).transpose(1, 2)


def _cut(x: Tensor, axes: Axes, images: slice, rows: slice) -> Tensor:
    """The part of ``x`` that belongs to some images and rows, a view."""
    for axis, span in ((axes.images, images), (axes.rows, rows)):
        if axis is not None:
            x = x.narrow(axis, span.start, span.stop - span.start)
    return x


def _checkpointed(work: Work, operands: Sequence[Tensor | None], seed: Tensor | None) -> Tensor:
    """The chunks as the compiler is told of them; each draws its dropout from the seed, the second time too."""
    found = []
    for images, rows, draw in work.chunks(seed):

        def chunk(*cut: Tensor | None, draw: Draw | None = draw) -> Tensor:
            return work.function(*cut, draw)

        cut = _cut_all(work, operands, images, rows)
        part: Tensor = checkpoint(chunk, *cut, use_reentrant=False, preserve_rng_state=False)
        found.append(part)
    if work.out == SHARED:
        return torch.stack(found).sum(0)
    for axis, count in ((work.out.rows, len(work.rows)), (work.out.images, len(work.images))):
        if axis is not None and count > 1:
            found = [torch.cat(found[i : i + count], axis) for i in range(0, len(found), count)]
    return found[0]


class _Recomputed(torch.autograd.Function):
    """The function in chunks; keeps its operands only."""

    @staticmethod
    def forward(ctx: Any, work: Work, seed: Tensor | None, *operands: Tensor | None) -> Tensor:
        ctx.work, ctx.seed = work, seed
        ctx.save_for_backward(*operands)
        chunks = list(work.chunks(seed))
        total: Tensor | None = None
        for images, rows, draw in chunks:
            with without_autocast(_first(operands)):
                found = work.function(*_cut_all(work, operands, images, rows), draw)
            if len(chunks) == 1:
                return found
            if work.out == SHARED:
                total = found if total is None else total.add_(found)
                continue
            if total is None:
                total = _empty_result(found, work)
            _cut(total, work.out, images, rows).copy_(found)
        assert total is not None
        return total

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        work, operands = ctx.work, ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        if is_differentiated_again():
            return None, None, *_differentiable_gradients(work, ctx.seed, operands, wanted, grad_out)
        grads = [
            _room(x, axes) if w else None for x, axes, w in zip(operands, work.axes, wanted, strict=True)
        ]
        for images, rows, draw in work.chunks(ctx.seed):
            with without_autocast(grad_out), torch.enable_grad():
                cut = [
                    None if x is None else x.detach().requires_grad_(w)
                    for x, w in zip(_cut_all(work, operands, images, rows), wanted, strict=True)
                ]
                found = work.function(*cut, draw)
                leaves = [x for x in cut if x is not None and x.requires_grad]
                parts = iter(torch.autograd.grad(found, leaves, _cut(grad_out, work.out, images, rows)))
            for grad, axes in zip(grads, work.axes, strict=True):
                if grad is not None:
                    place = _cut(grad, axes, images, rows)
                    part = next(parts)
                    place.copy_(part) if _written_once(axes) else place.add_(part)
        ready = (None if g is None else g.to(x.dtype) for g, x in zip(grads, operands, strict=True))
        return None, None, *ready


def _differentiable_gradients(
    work: Work, seed: Tensor | None, operands: Sequence[Any], wanted: Sequence[bool], grad_out: Tensor
) -> Iterator[Tensor | None]:
    """The gradients as functions of the operands, for a gradient of the gradient; nothing is formed again then."""
    found, grads = [], []
    for images, rows, draw in work.chunks(seed):
        with without_autocast(grad_out):
            found.append(work.function(*_cut_all(work, operands, images, rows), draw))
        grads.append(_cut(grad_out, work.out, images, rows))
    leaves = [x for x, w in zip(operands, wanted, strict=True) if w]
    parts = iter(torch.autograd.grad(found, leaves, grads, create_graph=True))
    return (next(parts) if w else None for w in wanted)


def _cut_all(
    work: Work, operands: Sequence[Tensor | None], images: slice, rows: slice
) -> list[Tensor | None]:
    return [
        None if x is None else _cut(x, axes, images, rows)
        for x, axes in zip(operands, work.axes, strict=True)
    ]


def _empty_result(chunk: Tensor, work: Work) -> Tensor:
    """Room for the whole result, of which ``chunk`` is the first part."""
    shape = list(chunk.shape)
    for axis, parts in ((work.out.images, work.images), (work.out.rows, work.rows)):
        if axis is not None:
            shape[axis] = parts[-1].stop
    return chunk.new_empty(shape)


def _written_once(axes: Axes) -> bool:
    return axes.images is not None and axes.rows is not None


def _room(x: Tensor, axes: Axes) -> Tensor:
    """Room for the gradient of ``x``, in float32 or better where parts of it are summed; as ``x`` lies in memory."""
    if _written_once(axes):
        return torch.empty_like(x)
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))


def _first(operands: Sequence[Tensor | None]) -> Tensor:
    return next(x for x in operands if x is not None)
