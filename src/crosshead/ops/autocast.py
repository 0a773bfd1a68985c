"""Autocast, as every operator asks for it: also on devices that have none, such as ``meta``."""

import contextlib

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast computes ``x`` in; None where it is off, there is none, or x is float64, which it leaves alone."""
    device = x.device.type
    if x.dtype == torch.float64 or not _has_autocast(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def autocast_to(x: Tensor) -> Tensor:
    """``x`` as autocast hands it to a product; ``x`` itself where it changes nothing."""
    return x.to(autocast_dtype(x) or x.dtype)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Autocast off on the device of ``x``."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if _has_autocast(device) else contextlib.nullcontext()


def _has_autocast(device: str) -> bool:
    # PyTorch 2.11 cannot compile the second question, whose answer is yes wherever it compiles for.
    return torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
