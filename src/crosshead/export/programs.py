"""Models as files that run without this library: ``torch.export`` programs (.pt2), compared with the model before they
count as written."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from crosshead.export.graphs import whole
from crosshead.export.mends import followed
from crosshead.export.two_stage import TwoStages
from crosshead.models.pyramid import Maps, Pyramid

Part = Literal["whole", "backbone", "pyramid"]
ABOUT = "about.json"  # in the file, for ``torch.export.load(file, extra_files={ABOUT: ""})``
TOLERANCE = 1e-5  # of an output's largest entry, in float32


@dataclass(frozen=True)
class Exported:
    """What a file holds. ``inputs`` is the shape of its one input, a number or what may stand there ("batch", "height",
    "width"); ``outputs`` are the shapes that came of ``tried`` images. Where sizes vary they are multiples of
    ``multiple`` from ``smallest`` on; ``fixed_because`` says why something does not vary that might have.
    ``difference`` is the largest from the model, over an output's largest entry.
    """

    file: Path
    part: Part
    inputs: tuple[int | str, ...]
    tried: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]
    difference: float
    multiple: int | None = None
    smallest: int | None = None
    fixed_because: str | None = None


def export_model(
    model: nn.Module,
    file: Path,
    *,
    size: tuple[int, int],
    channels: int = 3,
    part: Part = "whole",
    about: Mapping[str, Any] | None = None,
) -> Exported:
    """Writes a model, or a part of it, as a ``torch.export`` program in float32 for evaluation on images (B, C, H, W).

    ``whole`` and ``pyramid`` take images of ``size`` alone, in batches of any number where the model allows that. A
    ``backbone`` gives its maps, a list, for images of any size that its largest stride divides (pad others below and
    to the right), where the model takes any size, and otherwise of ``size``. The file is loaded again and compared
    with the model, and only then takes its name.

    Args:
        model: a classifier, segmenter or detector; on the CPU. Its classifier is lost where ``part`` is not whole.
        file: to write, .pt2; replaced if it is there.
        size: (height, width).
        channels: of the images.
        part: what of it.
        about: what the file shall tell of itself besides; see ``ABOUT``.

    Raises:
        ValueError: a whole detector of two stages, a part that is not there, a size that the model does not take, or a
            model that torch.export can't follow or whose file computes something else.
    """
    if file.suffix != ".pt2":
        raise ValueError(f"{file}: the name of an exported program must end in .pt2")
    module = part_of(model, part).eval()
    if isinstance(module, TwoStages):
        raise ValueError(
            f"{type(model).__name__} can't be exported whole as a program of PyTorch: how many boxes go from its first "
            "stage to its second depends on the picture, and it would run with this library's operators only; write an "
            "ONNX file (--to onnx), or export its backbone (--backbone), or backbone and pyramid (--pyramid)"
        )
    shapes = _Shapes(module, part, size, channels)
    with torch.no_grad():
        shapes.check_size()
        program, varying, reason = _traced(shapes)
        told: dict[str, Any] = {
            "part": part,
            "inputs": shapes.inputs(varying),
            "fixed_because": reason,
            "torch": torch.__version__,
        }
        if "size" in varying:
            told |= {"multiple": shapes.multiple, "smallest": shapes.smallest(program.module())}
        aside = file.with_name(f".{file.stem}.tmp.pt2")
        try:
            extra = {ABOUT: json.dumps({**told, **(about or {})})}
            torch.export.save(program, aside, extra_files=extra)
            difference = shapes.compare(torch.export.load(aside).module(), varying)
            os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)
        outputs = tuple(
            tuple(out.shape) for out in _outputs(module(shapes.images(1, *shapes.example(varying))))
        )
    return Exported(
        file,
        part,
        told["inputs"],
        (1, channels, *shapes.example(varying)),
        outputs,
        difference,
        told.get("multiple"),
        told.get("smallest"),
        reason,
    )


def part_of(model: nn.Module, part: Part) -> nn.Module:
    if part not in get_args(Part):
        raise ValueError(f"part must be one of {', '.join(get_args(Part))}, got {part!r}")
    if part == "whole":
        return whole(model)
    wanted = Maps if part == "backbone" else Pyramid
    found = next((module for module in model.modules() if isinstance(module, wanted)), None)
    if found is not None:
        return found
    if part == "pyramid":
        raise ValueError(f"{type(model).__name__} has no pyramid; export it whole, or its backbone")
    return Maps(model, window=None)


Varying = frozenset[str]  # of "batch" and "size"


class _Shapes:
    """Of which shapes a part takes images, and whether a program gives on them what the part gives."""

    def __init__(self, module: nn.Module, part: Part, size: tuple[int, int], channels: int) -> None:
        self.module, self.size, self.channels = module, size, channels
        self.multiple = module.multiple if isinstance(module, Maps) else 1
        self.candidates = [frozenset({"batch"}), frozenset[str]()]
        if part == "backbone":
            self.candidates.insert(0, frozenset({"batch", "size"}))

    def images(self, batch: int, height: int, width: int) -> Tensor:
        numbers = torch.Generator().manual_seed(height * width + batch)
        return torch.randn(batch, self.channels, height, width, generator=numbers)

    def inputs(self, varying: Varying) -> tuple[int | str, ...]:
        sides = ("height", "width") if "size" in varying else self.size
        return ("batch" if "batch" in varying else 1, self.channels, *sides)

    def example(self, varying: Varying) -> tuple[int, int]:
        """(height, width) to trace with. Where sizes vary it is no square, and large enough for grids that have more
        tokens a side than landmarks: a trace is bound to which of two numbers is the smaller."""
        if "size" not in varying:
            return self.size
        side = max(*self.size, 8 * self.multiple)
        side += -side % self.multiple
        return side, side + self.multiple

    def check_size(self) -> None:
        try:
            self.module(self.images(1, *self.size))
        except (ValueError, RuntimeError, AssertionError) as error:
            height, width = self.size
            raise ValueError(
                f"the model does not take images of {height} x {width}: {_line(error)}"
            ) from error

    def smallest(self, program: Callable[[Tensor], Any]) -> int:
        """The side of the smallest square images that a program takes."""
        for side in count(self.multiple, self.multiple):
            try:
                program(self.images(1, side, side))
            except (AssertionError, RuntimeError, ValueError):
                continue
            return side
        raise AssertionError("count does not end")

    def compare(self, program: Callable[[Tensor], Any], varying: Varying) -> float:
        """The largest difference from the model, over an output's largest entry; ValueError beyond the tolerance."""
        height, width = self.example(varying)
        sizes = [(height, width)]
        if "size" in varying:
            sizes += [(height, height), (height + self.multiple, height), (height, 2 * width)]
        batches = [1, 3] if "batch" in varying else [1]
        worst = 0.0
        for batch, size in [(batch, sizes[0]) for batch in batches] + [(1, size) for size in sizes[1:]]:
            images = self.images(batch, *size)
            for got, want in zip(_outputs(program(images)), _outputs(self.module(images)), strict=True):
                if got.shape != want.shape:
                    raise ValueError(
                        f"its output has the shape {tuple(got.shape)}, the model's {tuple(want.shape)}"
                    )
                largest = want.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
                worst = max(worst, float((got - want).abs().max() / largest))
        if not worst <= TOLERANCE:
            raise ValueError(
                f"the exported program differs from the model by {worst:.1e} of the largest output, and {TOLERANCE:g} "
                "is allowed; nothing was written"
            )
        return worst


def _traced(shapes: _Shapes) -> tuple[ExportedProgram, Varying, str | None]:
    """The program that varies most, what varies in it, and why nothing more does."""
    reason = None
    for varying in shapes.candidates:
        # Two images: of one a trace would not know whether their number varies.
        images = shapes.images(2 if "batch" in varying else 1, *shapes.example(varying))
        # Sizes are left to torch to find out: they vary in steps, which it has no word for. Whether they do is tried.
        free = {0: Dim("batch", min=1)} if "batch" in varying else {}
        free |= dict.fromkeys((2, 3), Dim.AUTO) if "size" in varying else {}
        try:
            with followed(shapes.module):
                program = torch.export.export(
                    shapes.module, (images,), dynamic_shapes=(free,) if free else None
                )
            shapes.compare(program.module(), varying)
        except Exception as error:  # torch.export has no one kind for what it can't follow
            if not varying:
                raise ValueError(f"torch.export can't follow this model: {_line(error)}") from error
            reason = reason or _line(error)
            continue
        return program, varying, reason
    raise AssertionError("the last candidate returns or raises")


def _outputs(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _line(error: Exception) -> str:
    """What an error says first."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
