"""All that this library leans on of what PyTorch and timm keep to themselves: names that may change with any version.

Each stands here once, and has a test of what is expected of it (tests/ops/test_private_torch.py), so that a new version
says at once what it has changed.
"""

import platform
from collections.abc import Collection
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


def transforms_are_active() -> bool:
    """Whether code runs inside a transform of ``torch.func``."""
    return torch._C._are_functorch_transforms_active()


def backward_is_running() -> bool:
    """Whether a backward pass is at work, as where gradient checkpointing calls a layer once more."""
    return torch._C._current_graph_task_id() != -1


def is_without_data(x: Tensor) -> bool:
    """Whether a tensor has a shape alone, as where operations are counted; it may stand for any values."""
    return isinstance(x, FakeTensor)


def softmax_gradient(grad: Tensor, weights: Tensor, out: Tensor | None = None) -> Tensor:
    """The gradient of the logits from that of ``weights``, their softmax over the last axis; in ``out`` if given."""
    if out is None:
        return torch._softmax_backward_data(grad, weights, -1, weights.dtype)
    return torch._softmax_backward_data(grad, weights, -1, weights.dtype, grad_input=out)


@cache
def has_native_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16. An x86 one without AVX512_BF16 and AMX converts at every operation; of
    others nothing is known, and it is taken for granted."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return True
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def hooks_of(module: nn.Module) -> list[Any]:
    """The hooks of a module itself, before and after its call and in the backward pass."""
    tables = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return [hook for table in tables for hook in table.values()]


def remove_hooks_of(module: nn.Module, owner: object) -> None:
    """Takes away the forward hooks of ``module`` that are methods of ``owner``."""
    for table in (module._forward_pre_hooks, module._forward_hooks):
        for key in [key for key, hook in table.items() if getattr(hook, "__self__", None) is owner]:
            del table[key]


def own_names(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's own parameters and submodules, those that are None among them."""
    return (*module._parameters, *module._modules)


def forget(module: nn.Module, names: Collection[str]) -> None:
    """Takes parameters and submodules out of a module, where it has them."""
    for name in names:
        module._parameters.pop(name, None)
        module._modules.pop(name, None)


def taken_indices(count: int, indices: int | list[int] | None) -> tuple[list[int], int]:
    """timm's reading of ``indices`` of feature maps: those of ``count``, and the last of them."""
    from timm.models._features import feature_take_indices  # here: operators need no timm

    return feature_take_indices(count, indices)


def feature_getter(model: nn.Module, out_indices: tuple[int, ...]) -> nn.Module:
    """timm's module that gives a model's feature maps by its ``forward_intermediates``."""
    from timm.models._features import FeatureGetterNet

    return FeatureGetterNet(model, out_indices=out_indices)
