"""The size of a model."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_gmacs(model: nn.Module, channels: int, image_size: tuple[int, int]) -> float:
    """Billions of multiply-adds that one image of (height, width) takes in the forward pass.

    Counted by PyTorch as the model runs: matrix products, convolutions and attention; not element-wise work.
    """
    was_training = model.training
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    # As matrix products: PyTorch 2.11 does not count its fused attention on a CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()(torch.zeros(1, channels, *image_size, device=device))
    model.train(was_training)
    return counter.get_total_flops() / 2e9
