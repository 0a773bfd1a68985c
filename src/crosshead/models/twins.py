"""Whether two models of the same names and shapes compute the same.

Such arguments as the number of heads leave no trace in the weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..swap import plain_path

# Of the largest output. The same operations on the same device differ by rounding, other ones by far more.
_TOLERANCE = {torch.float16: 5e-2, torch.bfloat16: 5e-2}


def compute_alike(model: nn.Module, twin: nn.Module, size: tuple[int, int, int]) -> bool:
    """Compares them in evaluation mode on a random picture of ``size`` (channels, height, width), where ``model`` is.

    Both get the same weights, and not those of ``model`` alone: a classifier that starts as zeros, or a layer scale of
    1e-5, would hide what lies behind it. Neither model is changed but for the place and width of ``twin``.

    Raises:
        RuntimeError, ValueError, TypeError, AssertionError: ``model`` itself can't be run on such a picture.
    """
    first = next(model.parameters())
    dtype = first.dtype
    twin.to(device=first.device, dtype=dtype)
    drawn = torch.Generator().manual_seed(0)
    picture = torch.randn(1, *size, generator=drawn).to(first.device, dtype)
    own = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    stirred = own | {
        name: _stirred(p.detach(), drawn) for name, p in model.named_parameters() if p.is_floating_point()
    }
    with _evaluating(model), _evaluating(twin), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for weights in (stirred, own):
            found = _outputs(functional_call(model, weights, (picture,)))
            if all(output.isfinite().all() for output in found):
                break
        try:
            again = _outputs(
                functional_call(twin, {plain_path(n): t for n, t in weights.items()}, (picture,))
            )
        except (RuntimeError, ValueError, TypeError, AssertionError):
            return False
    tolerance = _TOLERANCE.get(dtype, 1e-4)
    return len(found) == len(again) and all(
        one.shape == other.shape and bool((one - other).abs().max() <= tolerance * one.abs().max())
        for one, other in zip(found, again, strict=True)
    )


def _stirred(parameter: Tensor, drawn: torch.Generator) -> Tensor:
    """Wide enough that attention is not uniform, and that a layer keeps the scale of what it is given."""
    noise = torch.randn(parameter.shape, generator=drawn).to(parameter)
    return parameter + noise * (max(parameter[0].numel(), 1) ** -0.5 if parameter.dim() > 1 else 0.1)


def _outputs(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    parts = found.values() if isinstance(found, Mapping) else found if isinstance(found, list | tuple) else ()
    return [tensor for part in parts for tensor in _outputs(part)]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
