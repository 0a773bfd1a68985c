"""The one table of tolerances. A test takes its numbers from here and never loosens them.

A figure is relative to the largest magnitude of the expected tensor: ``|got - want| <= figure * max|want|``.
"""

import torch
from torch import Tensor

OUTPUT = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
GRADIENT = {torch.float64: 1e-11, torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 4e-3}
# Golden files: what their README promises.
GOLDEN_OUTPUT = {torch.float32: 1e-5, torch.float64: 1e-10}
GOLDEN_GRADIENT = {torch.float32: 1e-4, torch.float64: 1e-10}


def assert_close(got: Tensor, want: Tensor, tolerance: float, what: str = "") -> None:
    """Fails unless ``got`` has the shape of ``want`` and differs by at most ``tolerance`` of its largest entry."""
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    assert torch.isfinite(got).all(), f"{what}: not finite"
    scale = max(want.abs().max().item(), torch.finfo(torch.float32).tiny) if want.numel() else 1.0
    error = (got.double() - want.double()).abs().max().item() / scale if want.numel() else 0.0
    assert error <= tolerance, f"{what}: relative error {error:.2e}, allowed {tolerance:.0e}"
