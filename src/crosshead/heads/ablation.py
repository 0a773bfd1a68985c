"""What a model loses without a head (arXiv 1905.10650), and how much the loss leans on each."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..swap import running_eagerly, unwrapped
from .attention_layers import HeadLayer, head_layers, through_views

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


@dataclass
class HeadAblation:
    """One layer: the loss without each head less the loss with it, and the mean of |dL / d gate|.

    ``output``: the head's output is 0 at the projection. ``source``: beside that its channels, or its share in what is
    mixed, are 0 for the other heads too; None where heads give each other nothing.
    """

    path: str
    block: int
    output: list[float]
    source: list[float] | None
    importance: list[float]


def ablate_heads(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    blocks: list[int] | None = None,
) -> list[HeadAblation]:
    """Takes away one head of each layer after the other; the model is as it was afterwards.

    Args:
        batches: gives (images, targets) anew each time it is called.
        loss: (model, images, targets) -> the losses (B,) of the images.

    Raises:
        ValueError: no attention whose heads can be read.
    """
    model = unwrapped(model)
    layers = head_layers(model, blocks)
    was_training = model.training
    model.eval()
    try:
        with running_eagerly(model):
            return _ablated(model, layers, batches, loss)
    finally:
        model.train(was_training)


def _ablated(model: nn.Module, layers: list[HeadLayer], batches: Batches, loss: Loss) -> list[HeadAblation]:
    with torch.no_grad():
        whole = _mean_loss(model, batches, loss)
    found = []
    for layer in layers:
        heads = range(layer.view.num_heads)
        with torch.no_grad():
            output = [_without(model, layer, head, batches, loss, source=False) - whole for head in heads]
            source = None
            if layer.inspected.exchanges(layer.view):
                source = [_without(model, layer, head, batches, loss, source=True) - whole for head in heads]
        importance = _importance(model, layer, batches, loss)
        found.append(HeadAblation(layer.path, layer.block, output, source, importance))
    return found


def _mean_loss(model: nn.Module, batches: Batches, loss: Loss) -> float:
    losses = [loss(model, images, targets).double() for images, targets in batches()]
    if not losses:
        raise ValueError("no images to measure heads on")
    return torch.cat(losses).mean().item()


def _without(
    model: nn.Module, layer: HeadLayer, head: int, batches: Batches, loss: Loss, *, source: bool
) -> float:
    with _gated(layer, _all_but(layer, head)):
        if not source:
            return _mean_loss(model, batches, loss)
        with layer.inspected.without_head(layer.view, head):
            return _mean_loss(model, batches, loss)


def _all_but(layer: HeadLayer, head: int) -> Tensor:
    gate = torch.ones(layer.view.num_heads)
    gate[head] = 0
    return gate


@contextmanager
def _gated(layer: HeadLayer, gate: Tensor | Callable[[int], Tensor]) -> Iterator[None]:
    """The heads' outputs are multiplied by ``gate`` (heads,), or (B, heads) of a batch, before the projection."""

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        out = args[0]
        factors = gate(len(out)) if callable(gate) else gate
        factors = factors.to(out.device, out.dtype)
        heads = layer.view.by_head(out)
        shape = (-1, *[1] * (heads.dim() - 3), factors.shape[-1], 1)
        return (layer.view.side_by_side(heads * factors.view(shape)),)

    handle = layer.projection.register_forward_pre_hook(before)
    try:
        with through_views([layer]):
            yield
    finally:
        handle.remove()


class _Gates:
    """Gates at 1, one an image (or window) and head, that ask for a gradient."""

    def __init__(self, heads: int) -> None:
        self.heads = heads
        self.made: list[Tensor] = []

    def __call__(self, size: int) -> Tensor:
        self.made.append(torch.ones(size, self.heads, requires_grad=True))
        return self.made[-1]


def _importance(model: nn.Module, layer: HeadLayer, batches: Batches, loss: Loss) -> list[float]:
    """The mean over images of |dL / d gate|, the gate at 1."""
    total, seen = torch.zeros(layer.view.num_heads, dtype=torch.float64), 0
    for images, targets in batches():
        gate = _Gates(layer.view.num_heads)
        with torch.enable_grad(), _gated(layer, gate):
            grads = torch.autograd.grad(loss(model, images, targets).sum(), gate.made)
        for grad in grads:  # windows of one image add up
            total += grad.double().view(len(images), -1, layer.view.num_heads).sum(1).abs().sum(0)
        seen += len(images)
    return (total / max(seen, 1)).tolist()
