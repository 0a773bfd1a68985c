"""A device like Apple's MPS, which has no float64: tensors on it refuse to become or to meet one."""

import torch
from torch.utils._pytree import tree_map

ELSEWHERE = torch.device("meta")  # one that is not the CPU, and that every build of PyTorch knows


class Elsewhere(torch.Tensor):
    """Computes on the CPU, and says that it is on ``ELSEWHERE``; ``.cpu()`` gives the tensor itself."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=ELSEWHERE, strides=inner.stride()
        )

    def __init__(self, inner):
        if inner.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
            )
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        plain = lambda value: value.inner if isinstance(value, Elsewhere) else value  # noqa: E731
        target = kwargs.get("device")
        leaves = func is torch.ops.aten._to_copy.default and target is not None and target.type == "cpu"
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        if leaves and kwargs.get("dtype") == torch.float64:
            Elsewhere(plain(args[0]).double())  # converted there, before it is moved
        found = func(*tree_map(plain, args), **tree_map(plain, kwargs))
        wrap = lambda value: Elsewhere(value) if isinstance(value, torch.Tensor) else value  # noqa: E731
        return found if leaves else tree_map(wrap, found)
