"""The model of a recipe as training starts with it, and its size."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from crosshead.data.base import each_tensor
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Task


def build_model(recipe: Recipe, task: Task, *, from_weights: bool) -> nn.Module:
    """The model of a recipe as training starts with it, on the CPU."""
    if recipe.train.paired_init:
        model = build_paired(lambda: task.build_model(from_weights=from_weights), recipe.train.seed)
    else:
        torch.manual_seed(recipe.train.seed)
        model = task.build_model(from_weights=from_weights)
    if recipe.train.grad_checkpointing:
        _checkpoint_activations(model, recipe.model.name)
    return model


def build_paired(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """``build()``, every random tensor of which comes from a generator keyed on ``seed`` and its name in the model.

    Two models that differ in the shape of one tensor then start alike in all others, so that runs of them pair. Each is
    built twice, the first time to learn which draw belongs to which parameter or buffer. What is drawn elsewhere
    and copied into a parameter (as orthogonal starts are) is keyed on its number among such draws.
    """
    torch.manual_seed(seed)
    draws = _Draws()
    with draws:
        model = build()
    keys = draws.named(model)
    del model
    with _Keyed(keys, seed):
        model = build()
    torch.manual_seed(seed)
    return model


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


def _checkpoint_activations(model: nn.Module, name: str) -> None:
    switch = getattr(model, "set_grad_checkpointing", None)
    if not callable(switch):
        raise ValueError(f"model {name!r} cannot recompute activations; set train.grad_checkpointing=false")
    switch(True)


class _Draws(TorchDispatchMode):
    """Keeps what every random operation wrote to."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.written.append(found)  # kept, so that no other tensor takes its place in memory
        return found

    def named(self, model: nn.Module) -> list[str]:
        """A key for each draw: the tensor's name and where in it the draw begins."""
        places = [*model.named_parameters(), *model.named_buffers()]
        names = {tensor.untyped_storage().data_ptr(): name for name, tensor in reversed(places)}
        keys = []
        for number, tensor in enumerate(self.written):
            name = names.get(tensor.untyped_storage().data_ptr())
            keys.append(f"unnamed {number}" if name is None else f"{name} {tensor.storage_offset()}")
        return keys


class _Keyed(TorchDispatchMode):
    """Seeds the generator anew before every random operation."""

    def __init__(self, keys: list[str], seed: int) -> None:
        super().__init__()
        self.keys, self.seed = iter(keys), seed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            digest = hashlib.sha256(f"{self.seed} {next(self.keys)}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:7], "big"))
        return func(*args, **(kwargs or {}))
