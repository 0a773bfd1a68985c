"""Autocast, as every operator asks for it: also on devices that have none, such as ``meta``."""

import contextlib

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast computes in on the device of ``x``; None where it is off or there is none."""
    device = x.device.type
    if not _has_autocast(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Autocast off on the device of ``x``."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if _has_autocast(device) else contextlib.nullcontext()


def _has_autocast(device: str) -> bool:
    # PyTorch 2.11 cannot compile the second question, whose answer is yes wherever it compiles for.
    return torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
