"""Hooks that read a model's heads while it runs as it always does, and are gone afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers.heads import Heads
from .layers import HeadLayer
from .places import Places, places_of


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
    """While the context lasts, every call of the layers is told.

    Args:
        model: the model whose ``forward`` takes the images first.
        on_call: told before a layer computes.
        on_outputs: told the heads' outputs (B, N, heads, width), with the number of images, before they are projected.
    """
    images: list[Tensor] = []
    prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
    handles = [model.register_forward_pre_hook(lambda _, args: images.__setitem__(slice(None), [args[0]]))]

    def watch(layer: HeadLayer) -> None:
        def before(_: nn.Module, args: tuple, kwargs: dict) -> None:
            with torch.no_grad():
                heads = layer.view.heads_of(*args, **kwargs)
                batch, tokens = heads.q.shape[:2]
                size = images[0].shape[-2], images[0].shape[-1]
                places = places_of(batch, tokens, len(images[0]), size, prefix, heads.grid)
                on_call(Call(layer, heads, places))

        def projected(_: nn.Module, args: tuple) -> None:
            assert on_outputs is not None
            with torch.no_grad():
                outputs = args[0].flatten(1, -2) if args[0].dim() > 3 else args[0]
                on_outputs(layer, outputs.unflatten(-1, (layer.view.num_heads, -1)), len(images[0]))

        handles.append(layer.module.register_forward_pre_hook(before, with_kwargs=True))
        if on_outputs is not None:
            handles.append(layer.projection.register_forward_pre_hook(projected))

    try:
        for layer in layers:
            watch(layer)
        yield
    finally:
        for handle in handles:
            handle.remove()
