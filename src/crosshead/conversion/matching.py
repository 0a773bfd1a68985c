"""The quick start: every layer's attention learns what the one before it gave, on the inputs that that one had."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from crosshead.conversion.objectives import relative_error


def attention_error(student: nn.Module, teacher: nn.Module, images: Tensor, paths: Sequence[str]) -> Tensor:
    """The sum over ``paths`` of the relative errors of attention, all layers at once and each by itself.

    The student runs whole, and so tells its layers of the grid that they need, but each attention is given the
    teacher's input, and what follows it the teacher's output: no layer sees another's errors.
    """
    with _noting(teacher, paths) as given, torch.no_grad():
        teacher(images)
    errors: list[Tensor] = []
    with _in_place(student, paths, given, errors):
        student(images)
    return torch.stack(errors).sum()


Calls = dict[str, list[tuple[tuple[Any, ...], Tensor]]]


@contextmanager
def _noting(model: nn.Module, paths: Sequence[str]) -> Iterator[Calls]:
    """The arguments and the result of every call of the modules at ``paths``."""
    calls: Calls = {path: [] for path in paths}

    def noting(path: str) -> Callable[..., None]:
        return lambda module, args, out: calls[path].append((args, out))

    with ExitStack() as stack:
        for path in paths:
            handle = model.get_submodule(path).register_forward_hook(noting(path))
            stack.callback(handle.remove)
        yield calls


@contextmanager
def _in_place(model: nn.Module, paths: Sequence[str], given: Calls, errors: list[Tensor]) -> Iterator[None]:
    """Each module at ``paths`` is called with what is ``given``, its error is kept, and its result replaced."""

    def calling(path: str) -> tuple[Callable[..., Any], Callable[..., Tensor]]:
        waiting = iter(given[path])
        wanted: list[Tensor] = []

        def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            args, out = next(waiting)
            wanted.append(out)
            return args

        def after(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
            errors.append(relative_error(out, wanted[-1]))
            return wanted[-1]

        return before, after

    with ExitStack() as stack:
        for path in paths:
            before, after = calling(path)
            module = model.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        yield
