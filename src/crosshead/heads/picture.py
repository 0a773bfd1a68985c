"""Maps of one picture: what a query attends to in every head, and the maps that are made of such."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..swap import check_whole, unwrapped
from .attention_layers import HeadLayer, head_layers
from .calls import Call, reading
from .places import Places

# The class token, the mean over all queries, a pixel (x, y), or all patches of a box (left, top, right, bottom).
Query = Literal["cls", "mean"] | tuple[float, float] | tuple[float, float, float, float]
_ROLLOUT_TOKENS = 4096


@dataclass(frozen=True)
class LayerMaps:
    """One layer's maps of a picture: (heads, rows, columns), NaN where the query may not look.

    ``words`` say what its heads do with each other; ``even`` (rows, columns) is what the maps would be if the query
    gave all that it may see the same, None where they are no attention.
    """

    path: str
    block: int
    kind: str
    heads: tuple[int, ...]
    maps: Tensor
    signed: bool
    words: str = ""
    even: Tensor | None = None


@torch.no_grad()
def attention_maps(
    model: nn.Module,
    picture: Tensor,
    query: Query = "cls",
    *,
    blocks: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> list[LayerMaps]:
    """Where a query looks, head by head: the layers' own ``attention_weights``, laid onto the picture's grid.

    Args:
        picture: (1, C, H, W), prepared as the model wants it, on its device.
        query: ``cls``, ``mean`` (over all patches), a pixel (x, y), or a box of pixels, whose patches are averaged.
        blocks, heads: only these; all unless given.

    Raises:
        ValueError: attention that can't be read, a block, head or query that isn't there.
    """
    _check_query(query, picture)
    model = unwrapped(model)
    layers = head_layers(model, blocks)
    found: list[LayerMaps] = []

    def on_call(call: Call) -> None:
        chosen = _chosen_heads(call, heads)
        rows = _rows(call, picture, query, lambda window, tokens: call.weights(chosen, tokens)[window])
        even = _rows(call, picture, query, lambda window, tokens: _even(call, window, tokens))[0]
        found.append(_layer_maps(call, chosen, rows, even=even))

    _run(model, picture, layers, on_call)
    return found


def gradient_maps(
    model: nn.Module,
    picture: Tensor,
    target: int,
    query: Query = "cls",
    *,
    blocks: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> list[LayerMaps]:
    """What of a query's attention speaks for a class: relu(A ∘ dy/dA), y the class's logit (after arXiv 2103.15679).

    A is what the values are multiplied by, so that dy/dA_ij = (dy/dO_i) · v_j: no map needs to be in the graph.
    Arguments as ``attention_maps``; ``target`` is the class.

    Raises:
        ValueError: as there, or a class that the model doesn't have.
    """
    _check_query(query, picture)
    model = unwrapped(model)
    check_whole(model, "gradient_maps")
    layers = head_layers(model, blocks)
    calls: list[Call] = []
    outputs: dict[str, Tensor] = {}
    handles = [_keep_inputs(layer, outputs) for layer in layers]
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad(), reading(model, layers, calls.append):
            found = model(picture)
            logits = getattr(found, "logits", found)  # transformers' models give them by name
            if not isinstance(logits, Tensor) or logits.dim() != 2:
                raise ValueError(f"{type(model).__name__} gives no logits (1, classes) of a picture")
            if not 0 <= target < logits.shape[-1]:
                raise ValueError(f"there is no class {target}; expected 0 to {logits.shape[-1] - 1}")
            reached = [call for call in calls if call.layer.path in outputs]
            grads = torch.autograd.grad(
                logits[0, target], [outputs[call.layer.path] for call in reached], allow_unused=True
            )
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return [
        _gradient_layer(call, grad, picture, query, heads)
        for call, grad in zip(reached, grads, strict=True)
        if grad is not None
    ]


@torch.no_grad()
def rollout(model: nn.Module, picture: Tensor, query: Query = "cls") -> Tensor:
    """Attention rollout (arXiv 2005.00928): the product over layers of (A + 1) / 2, A the mean over heads.

    Returns the query's row on the grid, (rows, columns).

    Raises:
        ValueError: maps that are no probabilities over the whole grid (mixed heads, windows, pooled stages): their
            product would mean nothing.
    """
    _check_query(query, picture)
    model = unwrapped(model)
    layers = head_layers(model)
    joined: list[Tensor] = []
    last: list[Call] = []

    def on_call(call: Call) -> None:
        where = f"block {call.layer.block} ({call.layer.kind})"
        if call.layer.inspected.signed(call.heads):
            raise ValueError(f"rollout multiplies probabilities, and the maps of {where} may be negative")
        tokens = call.heads.q.shape[1]
        if call.places.windows > 1 or (joined and len(joined[0]) != tokens):
            raise ValueError(
                f"rollout wants maps over the same whole grid in every block, which {where} has not"
            )
        if tokens > _ROLLOUT_TOKENS:
            raise ValueError(
                f"rollout keeps a map of {tokens} x {tokens} tokens; expected at most {_ROLLOUT_TOKENS}"
            )
        mean = torch.stack(
            [call.weights([head])[0, 0].float() for head in range(call.layer.view.num_heads)]
        ).mean(0)
        step = (mean + torch.eye(tokens, device=mean.device)) / 2
        joined[:] = [step @ joined[0] if joined else step]
        last[:] = [call]

    _run(model, picture, layers, on_call)
    return _rows(last[0], picture, query, lambda _, tokens: joined[0][None, tokens])[0]


def _run(model: nn.Module, picture: Tensor, layers: Sequence[HeadLayer], on_call) -> None:  # type: ignore[no-untyped-def]
    was_training = model.training
    model.eval()
    try:
        with reading(model, layers, on_call):
            model(picture)
    finally:
        model.train(was_training)


def _check_query(query: Query, picture: Tensor) -> None:
    if picture.dim() != 4 or len(picture) != 1:
        raise ValueError(f"expected one picture (1, C, H, W), got {tuple(picture.shape)}")
    if isinstance(query, str):
        if query not in ("cls", "mean"):
            raise ValueError(f"query must be cls, mean, a pixel (x, y) or a box, got {query!r}")
        return
    height, width = picture.shape[-2:]
    ends = [(query[i], query[i + 1]) for i in range(0, len(query), 2)]
    if len(query) not in (2, 4) or not all(0 <= x < width and 0 <= y < height for x, y in ends):
        raise ValueError(f"query {query} is not in the picture of {width} x {height} pixels (x, y from 0)")


def _chosen_heads(call: Call, heads: Sequence[int] | None) -> list[int]:
    count = call.layer.view.num_heads
    if heads is None:
        return list(range(count))
    absent = [head for head in heads if not 0 <= head < count]
    if absent:
        raise ValueError(
            f"there is no head {absent[0]} in block {call.layer.block}; expected 0 to {count - 1}"
        )
    return list(heads)


def _rows(call: Call, picture: Tensor, query: Query, rows_of) -> Tensor:  # type: ignore[no-untyped-def]
    """The mean row of the query's tokens on the grid, (heads, rows, columns); NaN where none of them may look.

    ``rows_of(window, tokens)`` gives (heads, tokens, all tokens of the window).
    """
    places, total = call.places, None
    asked = _asked(places, picture, query, call)
    count = sum(len(tokens) for tokens in asked.values())
    for window, tokens in asked.items():
        row = rows_of(window, tokens).float().sum(1)[..., places.prefix :]
        laid = places.on_grid(row, window)
        if total is None:
            total = laid
            continue
        both = total.nan_to_num() + laid.nan_to_num()
        total = torch.where(total.isnan() & laid.isnan(), torch.nan, both)
    assert total is not None
    return total / count


def _asked(places: Places, picture: Tensor, query: Query, call: Call) -> dict[int, list[int]]:
    """The tokens that a query stands for, by window."""
    if query == "cls":
        if not places.prefix:
            raise ValueError(
                f"block {call.layer.block} sees no class token; ask for a pixel (x, y), or for the mean"
            )
        return {window: [0] for window in range(places.windows)}
    if query == "mean":
        real = [tokens.nonzero().flatten() + places.prefix for tokens in places.real]
        return {window: tokens.tolist() for window, tokens in enumerate(real)}
    height, width = places.size
    if len(query) == 2:
        window, token = places.query_at(query[0] / width, query[1] / height)
        return {window: [token]}
    left, top, right, bottom = query
    asked: dict[int, list[int]] = {}
    for row in _span(top / height, bottom / height, places.rows):
        for column in _span(left / width, right / width, places.columns):
            window, token = places.query_at((column + 0.5) / places.columns, (row + 0.5) / places.rows)
            asked.setdefault(window, []).append(token)
    return asked


def _span(start: float, end: float, count: int) -> range:
    first = min(int(start * count), count - 1)
    return range(first, max(min(int(end * count + 0.999), count), first + 1))


def _even(call: Call, window: int, tokens: list[int]) -> Tensor:
    """Rows of attention that is the same for all keys that a query may see, (1, tokens, N)."""
    mask = call.heads.window_mask
    if mask is None:
        allowed = torch.ones(len(tokens), call.heads.q.shape[1], device=call.heads.q.device)
    else:
        allowed = (mask[window, tokens] == 0).float()
    return (allowed / allowed.sum(-1, keepdim=True))[None]


def _layer_maps(
    call: Call, heads: list[int], maps: Tensor, *, signed: bool | None = None, even: Tensor | None = None
) -> LayerMaps:
    layer = call.layer
    is_signed = layer.inspected.signed(call.heads) if signed is None else signed
    even = None if even is None else even.cpu()
    return LayerMaps(
        layer.path, layer.block, layer.kind, tuple(heads), maps.cpu(), is_signed, layer.words, even
    )


def _keep_inputs(layer: HeadLayer, outputs: dict[str, Tensor]):  # type: ignore[no-untyped-def]
    """Keeps what goes into the projection, with a gradient even where the model is frozen."""

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        out = args[0] if args[0].requires_grad else args[0].requires_grad_()
        outputs[layer.path] = out
        return (out,)

    return layer.projection.register_forward_pre_hook(before)


@torch.no_grad()
def _gradient_layer(
    call: Call, grad: Tensor, picture: Tensor, query: Query, heads: Sequence[int] | None
) -> LayerMaps:
    view = call.layer.view
    chosen = _chosen_heads(call, heads)
    values = call.layer.inspected.operands(view, call.heads)[2]
    by_head = view.by_head(grad)
    by_head = (by_head.flatten(1, -3) if by_head.dim() > 4 else by_head).transpose(1, 2)

    def rows_of(window: int, tokens: list[int]) -> Tensor:
        slopes = by_head[window][chosen][:, tokens] @ values[window][chosen].mT
        return (call.weights(chosen, tokens)[window] * slopes).clamp(min=0)

    return _layer_maps(call, chosen, _rows(call, picture, query, rows_of), signed=False)
