"""What a forward pass takes as images grow: time and memory, of several models in turn."""

import copy
import statistics
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FACTORS = (1, 2, 4)
_SLOW_S = 20.0  # a model that takes longer is timed once


@dataclass(frozen=True)
class Cost:
    """One image of ``size`` (height, width) through ``model``: the median time, the most that was allocated beyond
    weights and image. Where it takes no such image, ``refused`` says why, and both are NaN."""

    model: str
    size: tuple[int, int]
    ms: float
    mib: float
    refused: str = ""


def forward_costs(
    models: Mapping[str, nn.Module],
    size: tuple[int, int],
    channels: int,
    *,
    factors: Sequence[int] = FACTORS,
    rounds: int = 5,
) -> list[Cost]:
    """Each model at ``factors`` times ``size``; of each size all models in turn, so that they have the machine alike.

    The models are left as they are: others than the size that they are for are tried on copies.
    """
    found = []
    for factor in factors:
        larger = (factor * size[0], factor * size[1])
        device = next(next(iter(models.values())).parameters()).device
        image = torch.randn(1, channels, *larger, generator=torch.Generator().manual_seed(0)).to(device)
        ready: dict[str, nn.Module] = {}
        for name, model in models.items():
            try:
                ready[name] = taking(model, larger if factor > 1 else None)
                with torch.inference_mode():
                    ready[name](image)
            except (AssertionError, RuntimeError, ValueError) as error:
                ready.pop(name, None)
                why = (str(error).splitlines() or [type(error).__name__])[0]
                found.append(Cost(name, larger, float("nan"), float("nan"), why))
        seconds = _seconds(ready, image, rounds)
        found += [
            Cost(name, larger, 1e3 * seconds[name], peak_mib(model, image)) for name, model in ready.items()
        ]
    return found


def taking(model: nn.Module, size: tuple[int, int] | None) -> nn.Module:
    """The model, or a copy of it that takes images of ``size``, where timm's ``set_input_size`` can have it so."""
    if size is None or not hasattr(model, "set_input_size"):
        return model.eval()
    model = copy.deepcopy(model).eval()
    model.set_input_size(img_size=size)  # type: ignore[operator]
    return model


def _seconds(models: Mapping[str, nn.Module], image: Tensor, rounds: int) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            if found[name] and found[name][0] > _SLOW_S:
                continue
            _wait(image)
            begun = time.perf_counter()
            with torch.inference_mode():
                model(image)
            _wait(image)
            found[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _wait(image: Tensor) -> None:
    if image.is_cuda:
        torch.cuda.synchronize(image.device)


def peak_mib(model: nn.Module, image: Tensor) -> float:
    """The most memory that a forward pass has at one time, beyond weights and image, in MiB.

    On a GPU as PyTorch's allocator tells it; elsewhere of all tensors that operations give, what they need inside not
    counted.
    """
    with torch.inference_mode():
        if image.is_cuda:
            before = torch.cuda.memory_allocated(image.device)
            torch.cuda.reset_peak_memory_stats(image.device)
            model(image)
            return (torch.cuda.max_memory_allocated(image.device) - before) / 2**20
        with _Allocated([*model.parameters(), *model.buffers(), image]) as allocated:
            model(image)
    return allocated.most / 2**20


class _Allocated(TorchDispatchMode):
    """Adds up what tensors that come about hold, until they go."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
