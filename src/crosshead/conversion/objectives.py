"""What a converted model is told: how far its answers lie from those of the model that it was; before that, as a quick
start, each layer's attention from what the one before it gave, on the inputs that that one had."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 2.0


def answers_alike(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Knowledge distillation (Hinton, Vinyals, Dean, arXiv 1503.02531, section 2): KL of softened classes, times T².

    Both are logits (B, classes); the mean over the batch, in float32.
    """
    soft, wanted = (F.log_softmax(x.float() / temperature, -1) for x in (student, teacher))
    return F.kl_div(soft, wanted, log_target=True, reduction="batchmean") * temperature**2


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared error over the variance of what is wanted, so that layers of any scale count alike."""
    wanted = teacher.float()
    return F.mse_loss(student.float(), wanted) / wanted.var().clamp(min=1e-12)


def features_alike(student: nn.Module, teacher: nn.Module, images: Tensor) -> Tensor:
    """Of models without classes: the error of all tokens over their variance, plus one less the cosine of the image's.

    ``forward_features`` and ``forward_head`` are timm's.
    """
    tokens = student.forward_features(images)  # type: ignore[operator]
    with torch.no_grad():
        wanted = teacher.forward_features(images)  # type: ignore[operator]
        image = pooled(teacher, wanted)
    return (
        relative_error(tokens, wanted) + (1 - F.cosine_similarity(pooled(student, tokens), image, -1)).mean()
    )


def pooled(model: nn.Module, tokens: Tensor) -> Tensor:
    """(B, D), what the model has of an image as a whole, from what ``forward_features`` gave."""
    return model.forward_head(tokens, pre_logits=True).float()  # type: ignore[operator]


def has_classes(model: nn.Module) -> bool:
    """Whether the model ends in a classifier, as timm tells it.

    Raises:
        ValueError: it has neither classes nor timm's ``forward_features``.
    """
    classes: Any = getattr(model, "num_classes", None)
    if classes != 0:
        return True
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise ValueError(
            f"{type(model).__name__} has no classes and no forward_features; expected a model of timm's, or one that "
            "gives logits"
        )
    return False


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
