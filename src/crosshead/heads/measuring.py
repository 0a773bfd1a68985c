"""All measures of all layers over a stream of images, in one pass and without a map of all heads."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.interactions.inspectable import Factored
from ..ops.interactive import AttentionFactors
from ..swap import unwrapped
from .attention_layers import HeadLayer, head_layers
from .calls import Call, reading
from .measures.maps import MapMeasures, Means, Rows, map_products, row_sums
from .measures.outputs import OutputMeasures, effective_heads, mean_off_diagonal, neighbour_excess
from .measures.tokens import Sinks, alignment, outstanding_tokens, prefix_share

# What the weights of one chunk of queries may take; a handful of temporaries of that size come on top.
_CHUNK_BYTES = 4 * 2**20
# Up to so many tokens every query is measured; beyond, this many, one drawn from each of as many equal parts.
ALL_QUERIES_UP_TO = 1024
SAMPLED_QUERIES = 256


@dataclass
class LayerMeasures:
    """One layer's measures: a number, one a head (list) or one a pair of heads (list of lists), by name."""

    path: str
    block: int
    kind: str
    heads: int
    signed: bool
    tokens: int
    queries: int
    windows: int
    values: dict[str, Any] = field(default_factory=dict)


@torch.no_grad()
def measure_heads(
    model: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, Tensor]],
    *,
    blocks: Iterable[int] | None = None,
    queries: int | None = None,
) -> list[LayerMeasures]:
    """Measures the heads of every attention layer; what each measure is stands in ``crosshead.heads.measures``.

    The model runs as it always does, in evaluation mode; its outputs and its mode stay what they were.

    Args:
        model: any model with attention that this library can read, timm's own included.
        batches: images (B, C, H, W), on the model's device; or (images, masks) with masks (B, H, W), True on objects.
        blocks: only these layers.
        queries: how many queries of each map to measure; all up to 1,024 tokens, 256 beyond, unless given.

    Raises:
        ValueError: no attention that can be read, no images, or a block that isn't there.
    """
    model = unwrapped(model)
    layers = head_layers(model, None if blocks is None else list(blocks))
    gathered = {layer.path: _Gathered(layer, queries) for layer in layers}
    mask: list[Tensor | None] = [None]

    def on_call(call: Call) -> None:
        gathered[call.layer.path].take_call(call, mask[0])

    def on_outputs(layer: HeadLayer, outputs: Tensor, images: int) -> None:
        gathered[layer.path].take_outputs(outputs, images)

    was_training, seen = model.training, 0
    model.eval()
    try:
        with reading(model, layers, on_call, on_outputs), _residuals(model, layers, gathered):
            for batch in batches:
                images, mask[0] = batch if isinstance(batch, tuple | list) else (batch, None)
                model(images)
                seen += len(images)
    finally:
        model.train(was_training)
    if not seen:
        raise ValueError("no images to measure heads on")
    return [gathered[layer.path].result() for layer in layers if gathered[layer.path].called]


class _Gathered:
    """What is gathered of one layer while images go by."""

    def __init__(self, layer: HeadLayer, queries: int | None) -> None:
        self.layer, self.wanted_queries = layer, queries
        heads = layer.view.num_heads
        self.outputs = OutputMeasures(heads)
        self.means = Means()
        self.maps: MapMeasures | None = None
        self.called = False

    def take_call(self, call: Call, mask: Tensor | None) -> None:
        self.called, self.last = True, call
        interaction = call.layer.inspected
        factors = (
            interaction.factors(call.layer.view, call.heads) if isinstance(interaction, Factored) else None
        )
        # In windows, which may be filled up, the maps of an image are several: similarity comes of their rows.
        exact = factors is not None and call.places.windows == 1
        if self.maps is None:
            self.signed = interaction.signed(call.heads)
            self.maps = MapMeasures(call.layer.view.num_heads, signed=self.signed)
        self.picked = pick_queries(call.places.count, self.wanted_queries)
        self.maps.add(self._rows(call, factors), pairs=not exact)
        if factors is not None and exact:
            p = call.places.prefix
            q, k = factors.mixed_query[:, :, p:], factors.mixed_key[..., p:]
            self.maps.add_products(map_products(q, k))
            self.means.add("row_sum_spread", row_sums(factors.mixed_query, factors.mixed_key).std(-1))
        if factors is not None:
            for name, matrix in (("entropy_query", factors.query), ("entropy_key", factors.key)):
                self.means.add(name, _entropy(matrix))
        if mask is not None:
            self._align(call, mask)

    def _rows(self, call: Call, factors: AttentionFactors | None) -> Iterator[Rows]:
        """Rows over the grid's tokens, a chunk of queries at a time; beside them the means that come with them."""
        places, prefix = call.places, call.places.prefix
        device, real = call.heads.q.device, places.real.to(call.heads.q.device)
        batch, heads = len(call.heads.q), call.layer.view.num_heads
        size = max(_CHUNK_BYTES // (4 * batch * heads * call.heads.q.shape[1]), 1)
        images, count = batch // places.windows, 0
        change, lost, sunk = (torch.zeros(images, heads, device=device) for _ in range(3))
        sinks = Sinks(F.pad(real, (prefix, 0), value=True))
        for start in range(0, len(self.picked), size):
            part = self.picked[start : start + size]
            kept = real[:, part].flatten()  # what fills a window up is neither a query nor a key
            asked = [i + prefix for i in part]
            found = _weights(call, asked, factors)
            sinks.add(found[0], asked)
            weights, own = (_windows_aside(rows, places.windows)[:, :, kept] for rows in found)
            count += weights.shape[2]
            change = change + (weights - own).abs().sum(-1).sum(-1) / 2
            lost = lost + (weights.clamp(max=0).abs().sum(-1) / weights.abs().sum(-1)).sum(-1)
            if prefix:
                sunk = sunk + prefix_share(weights, prefix) * weights.shape[2]
            allowed, weights = _allowed(call, part), weights[..., prefix:]
            if allowed is not None:
                allowed = allowed[kept]
                weights = weights.masked_fill(~allowed, 0.0)
            separation = places.separation(part, device).repeat(places.windows, 1)[kept]
            yield Rows(weights, separation, allowed)
        self.means.add("change", change / count)
        if self.signed:
            self.means.add("negative_share", lost / count)
        if prefix:
            self.means.add("prefix_share", sunk / count)
        for name, value in sinks.result(
            self._own(call.layer.inspected.operands(call.layer.view, call.heads)[2])
        ).items():
            self.means.add(name, value)

    def _align(self, call: Call, mask: Tensor) -> None:
        places, prefix = call.places, call.places.prefix
        # Windows have a class token each, if any; what an image's tokens receive from one another is one map.
        queries = [0] if prefix and places.windows == 1 else [i + prefix for i in self.picked]
        weights = call.weights(None, queries).float().abs()
        if places.windows > 1:
            asked = places.real[:, self.picked].to(weights).repeat(len(weights) // places.windows, 1)
            weights = weights * asked[:, None, :, None]
        rows = places.laid(weights.mean(2)[..., prefix:])
        # The grid may cover padding, below the image and to the right of it.
        below, right = (round(whole) - side for whole, side in zip(places.size, mask.shape[-2:], strict=True))
        marked = F.pad(mask.float()[:, None], (0, right, 0, below))
        on_grid = F.adaptive_avg_pool2d(marked, (places.rows, places.columns)).flatten(1) >= 0.5
        for name, value in alignment(rows.cpu(), on_grid.cpu()).items():
            judged = (
                ~value.isnan().any(-1) if name == "alignment" else torch.ones(len(value), dtype=torch.bool)
            )
            self.means.add(name, value[judged])

    def take_outputs(self, outputs: Tensor, images: int) -> None:
        """Outputs (B, N, heads, width): each head's own channels, the grid's tokens, windows of an image together."""
        outputs = self._own(outputs[:, self.last.places.prefix :])
        outputs = outputs.reshape(images, -1, *outputs.shape[2:])[:, self.last.places.real.flatten()]
        self.outputs.add(outputs.transpose(1, 2))

    def _own(self, x: Tensor) -> Tensor:
        """The channels of (..., width) that are a head's own, in the middle of those that it borrows."""
        own = self.layer.view.head_dim
        return x.narrow(-1, (x.shape[-1] - own) // 2, own)

    def result(self) -> LayerMeasures:
        assert self.maps is not None
        call, view = self.last, self.layer.view
        values: dict[str, Any] = {**self.maps.result(), **self.outputs.result(), **self.means.result()}
        for name in ("map_similarity", "cka"):
            matrix = values[name]
            values[f"{name}_mean"] = mean_off_diagonal(matrix)
            values[f"{name}_neighbours"] = neighbour_excess(matrix)
            values[f"effective_heads_{name.partition('_')[0]}"] = effective_heads(matrix)
        return LayerMeasures(
            self.layer.path,
            self.layer.block,
            self.layer.kind,
            view.num_heads,
            self.signed,
            call.heads.q.shape[1],
            len(self.picked),
            call.places.windows,
            {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()},
        )


def pick_queries(tokens: int, wanted: int | None) -> list[int]:
    """Which queries of ``tokens`` to measure: all, or one drawn from each of ``wanted`` equal parts."""
    if wanted is None:
        wanted = tokens if tokens <= ALL_QUERIES_UP_TO else SAMPLED_QUERIES
    if wanted < 1:
        raise ValueError(f"queries must be at least 1, got {wanted}")
    if wanted >= tokens:
        return list(range(tokens))
    # Drawn, not in the middle: equal steps would fall on the same columns of the grid in every row.
    places = torch.rand(wanted, generator=torch.Generator().manual_seed(0))
    return [int((i + place) * tokens / wanted) for i, place in enumerate(places.tolist())]


def _weights(call: Call, queries: list[int], factors: AttentionFactors | None) -> tuple[Tensor, Tensor]:
    """The heads' rows, and those that they would have alone."""
    if factors is None:
        return call.weights(None, queries).float(), call.own_weights(None, queries).float()
    return factors.effective_map(None, queries), factors.query[:, :, queries] @ factors.key


def _windows_aside(weights: Tensor, windows: int) -> Tensor:
    """(images · windows, heads, queries, keys) -> (images, heads, windows · queries, keys)."""
    if windows == 1:
        return weights
    return weights.unflatten(0, (-1, windows)).transpose(1, 2).flatten(2, 3)


def _allowed(call: Call, part: list[int]) -> Tensor | None:
    """Which keys of the grid each query of each window may see, (windows · queries, keys); None for all."""
    mask, real = call.heads.window_mask, call.places.real.to(call.heads.q.device)
    if mask is None and real.all():
        return None
    keys = real[:, None].expand(-1, len(part), -1)
    return (keys if mask is None else keys & (mask[:, part] == 0)).flatten(0, 1)


def _entropy(rows: Tensor) -> Tensor:
    """Of rows that sum to 1 (B, heads, rows, keys): entropy over the log of the number of keys, (B, heads)."""
    keys = torch.tensor(max(rows.shape[-1], 2), dtype=rows.dtype)
    return torch.special.entr(rows).sum(-1).mean(-1) / keys.log()


@contextmanager
def _residuals(model: nn.Module, layers: list[HeadLayer], gathered: dict[str, _Gathered]) -> Iterator[None]:
    """While the context lasts, tokens that stand out of the blocks' outputs (B, N, dim) are counted."""

    def watch(layer: HeadLayer) -> Any:
        def after(_: nn.Module, __: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.dim() == 3:
                means = gathered[layer.path].means
                means.add("outstanding_tokens", outstanding_tokens(out).float().mean(-1))

        return model.get_submodule(layer.path.rpartition(".")[0]).register_forward_hook(after)

    handles = [watch(layer) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
