"""Hooks that read a model's heads while it runs as it always does, and are gone afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.grid_sources import prefix_of
from ..layers.layer import Heads
from ..models.windowed_vit import WindowedViT
from ..swap import running_eagerly
from .attention_layers import HeadLayer, through_views
from .pictures_given import Pictures
from .places import Places, places_of, windowed_places


@dataclass(frozen=True)
class Call:
    """What a layer's heads made of one batch: read now, while the model waits; nothing of it is kept by the model."""

    layer: HeadLayer
    heads: Heads
    places: Places

    def weights(self, heads: Sequence[int] | None = None, queries: Sequence[int] | None = None) -> Tensor:
        """What the values are multiplied by, (B, heads, queries, N); all of them unless given."""
        return self.layer.view.weights_of(self.heads, heads, queries)

    def own_weights(self, heads: Sequence[int] | None = None, queries: Sequence[int] | None = None) -> Tensor:
        """The same without what the heads give each other."""
        return self.layer.view.own_weights_of(self.heads, heads, queries)


@contextmanager
def reading(
    model: nn.Module,
    layers: Sequence[HeadLayer],
    on_call: Callable[[Call], None],
    on_outputs: Callable[[HeadLayer, Tensor, int], None] | None = None,
) -> Iterator[None]:
    """While the context lasts, every call of the layers is told; nothing that was compiled runs as a graph.

    Args:
        model: what is called with the images, see ``Pictures``.
        on_call: told before a layer computes.
        on_outputs: told the heads' outputs (B, N, heads, width), with the number of images, before they are projected.
    """
    pictures = Pictures(model, layers)
    handles = pictures.watch()

    block_grids: dict[str, tuple[int, int] | None] = {}

    def watch(layer: HeadLayer) -> None:
        block = model.get_submodule(layer.path.rpartition(".")[0])

        def entered(_: nn.Module, args: tuple[Any, ...]) -> None:
            block_grids[layer.path] = _grid_given(args)

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            with torch.no_grad():
                heads = layer.view.heads_of(*args, **kwargs)
                batch, tokens = heads.q.shape[:2]
                count, size, taker = pictures.given(layer)
                prefix = prefix_of(taker, layer.path.removeprefix(pictures.path_of(taker)))
                grid = block_grids.get(layer.path)
                if isinstance(taker, WindowedViT) and batch > count:
                    places = windowed_places((batch, tokens), size, prefix, taker)
                else:
                    places = places_of((batch, tokens), count, size, prefix, heads.grid, block, grid)
                on_call(Call(layer, heads, places))

        def projected(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            assert on_outputs is not None
            with torch.no_grad():
                outputs = layer.view.by_head(args[0])
                outputs = outputs.flatten(1, -3) if outputs.dim() > 4 else outputs
                on_outputs(layer, outputs, pictures.given(layer)[0])

        if block is not layer.module:
            handles.append(block.register_forward_pre_hook(entered))
        handles.append(layer.module.register_forward_pre_hook(before, with_kwargs=True))
        if on_outputs is not None:
            handles.append(layer.projection.register_forward_pre_hook(projected))

    try:
        for layer in layers:
            watch(layer)
        with through_views(layers), running_eagerly(model):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _grid_given(args: tuple[Any, ...]) -> tuple[int, int] | None:
    """Rows and columns, where a block is given a map (B, H, W, C), or tokens and their grid."""
    if args and isinstance(args[0], Tensor) and args[0].dim() == 4:
        return args[0].shape[1], args[0].shape[2]
    if len(args) > 1 and isinstance(args[1], tuple) and len(args[1]) == 2:
        rows, columns = args[1]
        return int(rows), int(columns)
    return None
