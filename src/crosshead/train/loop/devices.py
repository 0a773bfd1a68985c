"""Where a process computes, in which precision, and how it holds its memory."""

import contextlib
import ctypes
import os
import sys

import torch

from crosshead.ops.private_torch import has_native_bfloat16
from crosshead.recipe.schema import TrainConfig

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_HUGE = 2**31 - 1  # the largest number that mallopt takes


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called ``name``; "auto" takes CUDA, then Apple's MPS, then the CPU.

    "cuda" without a number is the one of this process: the ``local_rank``-th of the machine.

    Raises:
        ValueError: the device is unknown or not there.
    """
    if name == "auto":
        available = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
        return choose_device(available, local_rank)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"train.device is {name!r}; expected auto, cpu, mps, cuda or cuda:0, cuda:1, ..."
        ) from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        index = local_rank if device.index is None else device.index
        if index >= count:
            raise ValueError(
                f"train.device {name!r} asks for CUDA device {index}, and {count} are visible; start at most one "
                "process a device, or use train.device=cpu"
            )
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            "train.device is 'mps', and this machine or this PyTorch has no MPS; use auto or cpu"
        )
    if device.type not in {"cpu", "mps"}:
        raise ValueError(f"train.device is {name!r}; expected auto, cpu, mps or cuda")
    return device


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which the forward pass and the loss run."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST_DTYPES[precision])


def precision_advice(precision: str, device: torch.device) -> str | None:
    """What to say of a precision that this device has not got."""
    if precision != "bf16" or device.type != "cpu" or has_native_bfloat16():
        return None
    return (
        "train.precision=bf16 on a processor without bfloat16 arithmetic (neither AVX512_BF16 nor AMX): PyTorch "
        "converts at every operation. A training step took 3 to 4 times as long as in float32 where that was measured "
        "(4.0 and 5.1 s against 1.3 s); train.precision=fp32 is faster here"
    )


def grad_scaler(train: TrainConfig, device: torch.device) -> torch.amp.GradScaler | None:
    """Loss scaling, which float16 needs: its smallest normal number is 6e-5."""
    return torch.amp.GradScaler(device.type) if train.precision == "fp16" else None


@contextlib.contextmanager
def deterministic_algorithms(wanted: bool):
    """Within it, PyTorch uses algorithms that give the same bits every time, or raises where it has none."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def tune_allocator() -> str:
    """Keeps large buffers on the heap from now on; says in a word what is in force.

    glibc takes every buffer of more than 32 MB from the kernel and gives it back when it is freed, so that each step of
    a training run touches, and has zeroed, the same gigabytes of fresh pages. Kept on the heap instead, the buffers
    are used again: a training step of the authors' ViT-Tiny takes 2.5 times timm's with the default and 1.4 times with
    this.

    Safe at any time: both settings only change when memory goes back to the system, which on the heap is when the
    process ends or more than 2 GB at its top are free. ``glibc`` where it took effect, ``environment`` where the user
    has set ``MALLOC_*`` or loaded another allocator (nothing is changed then), ``default`` elsewhere.
    """
    chosen = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "LD_PRELOAD")
    if any(name in os.environ for name in chosen):
        return "environment"
    if not sys.platform.startswith("linux"):
        return "default"
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return "default"
    took = libc.mallopt(_M_MMAP_THRESHOLD, _HUGE) and libc.mallopt(_M_TRIM_THRESHOLD, _HUGE)
    return "glibc" if took else "default"


def peak_memory_mib(device: torch.device) -> float | None:
    """The most memory so far: on a GPU what PyTorch allocated there, elsewhere what the process had; None where the
    system doesn't tell it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10  # bytes there, KiB elsewhere
