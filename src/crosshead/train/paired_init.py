"""Initial tensors that don't depend on what was drawn before them: each from a generator keyed on (seed, name).

Two models that differ in the shape of one tensor then start alike in all others, so that runs of them pair.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def build_paired(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """``build()``, every random tensor of which comes from a generator keyed on ``seed`` and its name in the model.

    It is built twice, the first time to learn which draw belongs to which parameter or buffer. What is drawn elsewhere
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
