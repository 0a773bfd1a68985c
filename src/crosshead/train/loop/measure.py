"""The size of a model."""

from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from crosshead.data.base import each_tensor


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_gmacs(model: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Billions of multiply-adds that ``model(*inputs)`` takes, in evaluation mode.

    Counted by PyTorch as the model runs: matrix products, convolutions and attention; not element-wise work.
    """
    was_training = model.training
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    # Attention as matrix products, since PyTorch 2.11 does not count its fused one on a CPU; and all on tensors
    # without memory, since these products are quadratic in the image. Gradients stay on: with them off, a parameter
    # that CaiT hands from module to module makes the counter fail.
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()(*each_tensor(inputs, lambda tensor: tensor.to(device)))
    model.train(was_training)
    return counter.get_total_flops() / 2e9
