"""The processes of a run, as ``torchrun`` (or anything else that sets its variables) started them."""

import atexit
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
_STORE: dist.Store | None = None  # of the group that this process joined; it joins once


@dataclass(frozen=True)
class World:
    """This process among all. Every method is a collective: all processes call it, in the same order."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: dist.Store | None = None

    @property
    def is_rank0(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes of a tensor on the CPU."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process rank 0's values of ``tensors``, which are of the same shapes and types in all."""
        if self.size == 1:
            return
        own = [tensor.detach() for tensor in tensors]
        # As bytes, all at once: of any type, booleans too, which gloo doesn't know.
        parts = [tensor.cpu().contiguous().view(-1).view(torch.uint8) for tensor in own]
        sent = torch.cat([*parts, torch.zeros(1, dtype=torch.uint8)])
        dist.broadcast(sent, src=0)
        if not self.is_rank0:
            with torch.no_grad():
                for tensor, part in zip(own, sent[:-1].split([len(part) for part in parts]), strict=True):
                    tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))

    def gather(self, value: T) -> list[T]:
        """Every process's ``value``, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def collect(self, value: T) -> list[T]:
        """Every process's ``value``, by rank, in rank 0; nothing in the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_rank0 else None
        dist.gather_object(value, values, dst=0)
        return values or []

    def run_on_rank0(self, work: Callable[[], T]) -> T:
        """Rank 0's ``work()`` for everyone; what it raises is raised everywhere."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None, False]
        if self.is_rank0:
            try:
                outcome[0] = work()
            except Exception as error:
                dist.broadcast_object_list([None, str(error), isinstance(error, ValueError)], src=0)
                raise
        dist.broadcast_object_list(outcome, src=0)
        value, message, is_value_error = outcome
        if message is not None:
            raise ValueError(message) if is_value_error else RuntimeError(f"process 0 failed: {message}")
        return value


def join(timeout_s: float) -> World:
    """``meet`` the other processes and ``connect`` to them."""
    world = meet(timeout_s)
    connect(world, timeout_s)
    return world


def meet(timeout_s: float) -> World:
    """Find the store that the processes share. A process started by itself is a world of one.

    Raises:
        ValueError: the variables that torchrun sets are incomplete or contradict each other.
        RuntimeError: the others did not come within ``timeout_s``.
    """
    global _STORE
    size = _variable("WORLD_SIZE", 1)
    if size == 1:
        return World()
    rank, local_rank = _variable("RANK"), _variable("LOCAL_RANK", 0)
    if not 0 <= rank < size:
        raise ValueError(
            f"RANK is {rank}, which does not fit WORLD_SIZE {size}; start the processes with torchrun"
        )
    if _STORE is None:
        _STORE, _, _ = next(dist.rendezvous("env://", rank, size, timeout=timedelta(seconds=timeout_s)))
    return World(rank, size, local_rank, _STORE)


def connect(world: World, timeout_s: float) -> None:
    """Form the group. Its own time limit is longer than ``timeout_s``: whoever runs into it is told nothing about
    the cause, which a watchdog on the store finds out before."""
    if world.size == 1 or dist.is_initialized():
        return
    # gloo beside nccl: decisions and metrics are a few numbers on the CPU, and need no device's attention.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    timeout = timedelta(seconds=2 * timeout_s + 30)
    dist.init_process_group(
        backend, store=world.store, rank=world.rank, world_size=world.size, timeout=timeout
    )
    atexit.register(leave)


def leave() -> None:
    """Leave the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _variable(name: str, default: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise ValueError(
            f"the environment variable {name} is {text!r} while WORLD_SIZE is {os.environ.get('WORLD_SIZE')!r}; "
            "start the processes with torchrun, which sets both, or unset WORLD_SIZE"
        ) from None
