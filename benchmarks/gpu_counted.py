"""What operators ask of a GPU that need not be there: kernels launched, bytes read and written, memory alive. Counted.

    python benchmarks/gpu_counted.py

The operators run on tensors without data, along the path that they take on a GPU, in bfloat16. Every operation of
PyTorch's that is no view is one kernel, which reads its operands and writes its results once; what a cache saves, and
what a kernel of ours reads again, is not in it. Alive is the most that tensors hold at one time, operands included. The
microseconds are no measurement: the bytes at an H200's 4.08 TB/s, and 2 µs a kernel. Kernels of ours, which are limited
by their arithmetic and not by bytes, have none.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crosshead.ops import chunks, half_products
from crosshead.ops.dcmha import composed_attention
from crosshead.ops.reattention import reattention
from crosshead.ops.talking import chunked, triton_operator

HALF = torch.bfloat16
Run = Callable[[], object]


class Counted(TorchDispatchMode):
    """Kernels, bytes, and the most bytes that tensors held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.bytes = self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
        fresh = [x for x in made if not any(_storage(x) == _storage(y) for y in given)]
        if not func.__name__.startswith(("empty", "new_empty")) and (fresh or func._schema.is_mutable):
            self.launched(*given, *fresh)
        for x in made:
            self._note(x.untyped_storage())
        return found

    def launched(self, *tensors: Tensor) -> None:
        """One kernel on these; of tensors that are expanded the memory counts."""
        self.kernels += 1
        self.bytes += sum(min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) for x in tensors)

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


class Kernel:
    """Stands in for a Triton kernel: one launch on the tensors that it is given."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *args, **_: self._counted.launched(*(x for x in args if isinstance(x, Tensor)))


def draw(*sizes: tuple[int, ...]) -> list[Tensor]:
    return [torch.empty(size, dtype=HALF, requires_grad=True) for size in sizes]


def permute_and_linear(q: Tensor, k: Tensor, v: Tensor, pre: Tensor, post: Tensor, bias: Tensor) -> Tensor:
    """Talking heads as timm computes them."""
    attn = (q * q.shape[-1] ** -0.5) @ k.mT
    attn = F.linear(attn.permute(0, 2, 3, 1), pre).permute(0, 3, 1, 2).softmax(dim=-1)
    return F.linear(attn.permute(0, 2, 3, 1), post, bias).permute(0, 3, 1, 2) @ v


def differentiated(operator: Callable[..., Tensor], operands: list[Tensor]) -> tuple[Run, Run]:
    found: list[Tensor] = []
    return (
        lambda: found.append(operator(*operands)),
        lambda: torch.autograd.grad(found[0], operands, torch.empty_like(found[0])),
    )


def talking(batch: int, tokens: int, heads: int, width: int) -> dict[str, Callable[[], tuple[Run, Run]]]:
    def operands() -> list[Tensor]:
        return draw(*[(batch, heads, tokens, width)] * 3, (heads, heads), (heads, heads), (heads,))

    def in_chunks() -> tuple[Run, Run]:
        given = [x.detach() for x in operands()]
        grad = torch.empty(batch, tokens, heads, width, dtype=HALF)
        return (
            lambda: chunked._forward._init_fn(*given, width**-0.5, 0.0, None),
            lambda: chunked._backward._init_fn(grad, *given, width**-0.5, 0.0, None),
        )

    def fused() -> tuple[Run, Run]:
        given, more = [*(x.detach() for x in operands()), None, None, None], (width**-0.5, False, 0.0)
        grad, sums = torch.empty(batch, tokens, heads, width, dtype=HALF), torch.empty(batch, heads, tokens)
        return (
            lambda: triton_operator._attend._init_fn(*given, *more),
            lambda: triton_operator._attend_backward._init_fn(grad, sums, *given, *more, False),
        )

    return {
        "permute and Linear": lambda: differentiated(permute_and_linear, operands()),
        "chunked": in_chunks,
        "triton": fused,
    }


def composed() -> tuple[Run, Run]:
    sizes = [(128, 6, 197, 64)] * 3 + [(128, 197, 384), (4 * 24, 384), (4, 24, 4, 6), (24, 384)]
    return differentiated(composed_attention, draw(*sizes))


def reattended() -> tuple[Run, Run]:
    def operator(*operands: Tensor) -> Tensor:
        q, k, v, mix, weight, bias = operands
        return reattention(q, k, v, mix, None, weight, bias)[0]

    return differentiated(operator, draw(*[(128, 6, 197, 64)] * 3, (6, 6), (6,), (6,)))


def tables() -> dict[str, Callable[[], tuple[Run, Run]]]:
    found: dict[str, Callable[[], tuple[Run, Run]]] = {}
    for batch, tokens, heads, width in ((128, 197, 12, 16), (2, 4096, 4, 48)):
        for name, make in talking(batch, tokens, heads, width).items():
            found[f"talking {batch} x {tokens}, {heads} heads of {width}, {name}"] = make
    return found | {"dcmha, ViT-Small, 128 x 197": composed, "re-attention, ViT-Small, 128 x 197": reattended}


def as_on_a_gpu(counted: Counted) -> None:
    """PyTorch differentiates no fake tensor of a GPU where there is none: those of a CPU take the GPU's path."""
    chunks._CPU_CHUNK, chunked._CPU_CHUNK = chunks._ACCELERATOR_CHUNK, chunked._ACCELERATOR_CHUNK
    half_products.sums_half_in_float32 = lambda device: True
    for name in ("attend", "grad_queries", "grad_keys"):
        setattr(triton_operator.kernel, name, Kernel(counted))


def main() -> None:
    print("operator | direction | kernels | MB moved | MiB alive | µs estimated from both")
    for title, make in tables().items():
        counted = Counted()
        as_on_a_gpu(counted)
        with FakeTensorMode(), counted:
            for direction, run in zip(("forward", "backward"), make(), strict=True):
                counted.kernels = counted.bytes = 0
                counted.most = counted.now
                run()
                estimate = round(counted.bytes / 4.08e6 + 2 * counted.kernels)
                moved, alive = counted.bytes / 1e6, counted.most / 2**20
                told = "-" if "triton" in title else estimate
                print(title, direction, counted.kernels, f"{moved:.0f} | {alive:.0f}", told, sep=" | ")


if __name__ == "__main__":
    main()
