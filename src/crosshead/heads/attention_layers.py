"""The attention layers of a model, each with a view through which its heads can be read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..layers import InteractingAttention, Overlap, from_attention
from ..layers.capabilities import MEANING, Capability
from ..layers.interactions.inspectable import Inspectable, inspectable
from ..swap.sites import find_sites


@dataclass(frozen=True)
class HeadLayer:
    """One attention module: its path, its number among the model's, the module, and a view of its heads.

    The view is the module itself where its heads interact. Around a module of timm's it is a host that shares all
    parts with it; the module stays as it is.
    """

    path: str
    block: int
    module: nn.Module
    view: InteractingAttention

    @property
    def kind(self) -> str:
        """The kind of interaction; ``plain`` for a module of timm's."""
        return self.view.interaction.kind if self.view is self.module else "plain"

    @property
    def words(self) -> str:
        """What its heads do with each other, as a person says it: ``borrows 8 channels a side``."""
        if self.kind == "plain":
            return "plain attention"
        options = self.view.interaction.options()
        overlap = options.pop("overlap", None)
        borrowing = [] if overlap is None else [_borrowing(overlap)]
        say = _WORDS.get(self.kind)
        said = (
            say(options)
            if say
            else ", ".join([self.kind, *(f"{n} {v}" for n, v in options.items() if n != "mode")])
        )
        return ", ".join([said, *borrowing] if said else borrowing)

    @property
    def inspected(self) -> Inspectable:
        """What its interaction says of its heads."""
        return inspectable(self.view.interaction)

    @property
    def projection(self) -> nn.Module:
        """What the heads' outputs go into, laid as ``view.side_by_side`` lays them."""
        return self.module.get_submodule(self.view.entrance or self.view.projection)


# By kind of interaction, of its options less the overlap; a kind of another package is told by its name and options.
_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "overlap": lambda options: "",
    "talking": lambda options: "heads mixed before and after the softmax",
    "reattention": lambda options: "heads mixed after the softmax",
    "dcmha": lambda options: "heads mixed before and after the softmax, by each token",
    "knocking": lambda options: "heads mixed as they are projected",
    "iha": lambda options: f"{options['pseudo_heads']} pseudo-heads a head, mixed of all heads",
    "imhsa": lambda options: (
        f"through {_cells(options['landmarks'])} landmarks, heads {'mixed' if options['interaction'] else 'apart'}"
    ),
}


def _borrowing(overlap: int) -> str:
    return (
        f"borrows {overlap} channel{'' if overlap == 1 else 's'} a side" if overlap else "borrows no channels"
    )


def _cells(landmarks: int | tuple[int, int]) -> str:
    rows, columns = (landmarks, landmarks) if isinstance(landmarks, int) else landmarks
    return f"{rows} x {columns}"


@contextmanager
def through_views(layers: Sequence[HeadLayer]) -> Iterator[None]:
    """While it lasts, modules that don't call their projection compute as their view does, which calls it.

    ``nn.MultiheadAttention`` and torchvision's Swin hand its weights to a function, past its hooks.
    """
    past = [layer for layer in layers if layer.view is not layer.module and not layer.view.calls_projection]
    for layer in past:
        layer.module.forward = layer.view.forward
    try:
        yield
    finally:
        for layer in past:
            vars(layer.module).pop("forward", None)


def head_layers(model: nn.Module, blocks: Sequence[int] | None = None) -> list[HeadLayer]:
    """The attention layers of ``model`` whose heads can be read, in the order of its modules.

    Args:
        blocks: only these, counted from 0, negative from the end; all unless given.

    Raises:
        ValueError: there is none, a block isn't there, or an interaction that does not say how its heads attend.
    """
    found = [(site.path, site.module) for site in find_sites(model)]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no attention whose heads can be read; `crosshead.supported` tells which "
            "classes of attention can"
        )
    layers = [HeadLayer(path, block, module, _view(module)) for block, (path, module) in enumerate(found)]
    if blocks is None:
        return [_checked(layer) for layer in layers]
    absent = [b for b in blocks if not -len(layers) <= b < len(layers)]
    if absent:
        raise ValueError(
            f"there is no block {absent[0]}; expected 0 to {len(layers) - 1}, or negative from the end"
        )
    chosen = {b % len(layers) for b in blocks}
    return [_checked(layer) for layer in layers if layer.block in chosen]


def _checked(layer: HeadLayer) -> HeadLayer:
    """Raises ValueError for heads that don't attend among tokens of a picture whose places are known."""
    brought = layer.view.brings(layer.view)
    beyond = [c for c in (Capability.CHANNELS, Capability.OTHER_KEYS) if c in brought]
    why = MEANING[beyond[0]] if beyond else layer.view.unplaced
    if why is not None:
        raise ValueError(
            f"block {layer.block} ({layer.path}) can't be measured or drawn: {why}; expected heads that attend among "
            "the tokens of a picture, row by row; choose such blocks with blocks="
        )
    return layer


def _view(module: nn.Module) -> InteractingAttention:
    if isinstance(module, InteractingAttention):
        inspectable(module.interaction)
        return module
    return from_attention(module, Overlap(overlap=0), init="preserve")
