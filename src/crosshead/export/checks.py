"""Whether a file computes what the model does, on several numbers and sizes of pictures; and how well it does on a
run's validation pictures, by the run's own task, with the file in the model's place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crosshead.data.base import Splits
from crosshead.export.about import About
from crosshead.export.objects import kept
from crosshead.export.prepare import normalised, resized
from crosshead.export.runtime import OnnxModel, for_sizes
from crosshead.tasks import METRICS
from crosshead.train.inference import LoadedRun, evaluate_on

# Of an output's largest entry. That of fp16 is what rounding to 11 bits in a dozen layers comes to; int8 is judged by
# its answers.
TOLERANCE = {"fp32": 1e-4, "fp16": 3e-2, "int8": float("inf")}
BATCHES = (1, 2, 5)
Run = Callable[[NDArray[Any]], Sequence[NDArray[Any]]]


@dataclass
class Compared:
    """The largest ``difference`` over an output's largest entry, and the (batch, height, width) that it is over; of
    the ``objects`` that were found by how many model and file decided another way where both ways are as good."""

    difference: float = 0.0
    shapes: list[tuple[int, int, int]] = field(default_factory=list)
    objects: int = 0
    ties: int = 0


class Images:
    """Images of any number and size to compare on: real pictures (C, h, w) uint8 resized to it, or noise."""

    def __init__(self, about: About, pictures: Sequence[NDArray[np.uint8]] = ()) -> None:
        self.about, self.pictures = about, list(pictures)

    def of(self, batch: int, height: int, width: int) -> tuple[NDArray[Any], Tensor]:
        """As the file takes them, and as the model does."""
        if self.pictures:
            some = [self.pictures[i % len(self.pictures)] for i in range(batch)]
            pixels = np.stack([resized(each, (height, width), "bilinear") for each in some])
        else:
            numbers = np.random.default_rng([batch, height, width])
            pixels = numbers.integers(0, 256, (batch, self.about.channels, height, width), np.uint8)
        seen = np.stack([normalised(each, self.about) for each in pixels])
        return (pixels if self.about.input == "pixels" else seen), torch.from_numpy(seen)


@torch.no_grad()
def compare(
    model: nn.Module,
    run: Run,
    images: Images,
    shapes: Sequence[tuple[int, int, int]],
    precision: str = "fp32",
) -> Compared:
    """Of ``model`` and a file that is run by ``run``; ``model`` takes normalised images.

    Raises:
        ValueError: they differ by more than ``TOLERANCE``, or in their outputs' shapes.
    """
    compared = Compared()
    for shape in shapes:
        given, seen = images.of(*shape)
        wanted = [each.float().numpy() for each in outputs_of(model(seen))]
        try:
            found = run(given)
        except Exception as error:  # ONNX Runtime's exceptions have no class in common
            raise ValueError(
                f"ONNX Runtime fails on images of {_named(shape)}: {first_line(error)}"
            ) from None
        for got, want in zip(found, wanted, strict=True):
            if got.shape != want.shape:
                raise ValueError(
                    f"on images of {_named(shape)} its output is {got.shape}, the model's {want.shape}"
                )
            largest = max(float(np.abs(want).max()), float(np.finfo(np.float32).tiny))
            apart = float(np.abs(got.astype(np.float64) - want).max()) / largest
            if not apart <= TOLERANCE[precision] or not np.isfinite(got).all():
                raise ValueError(
                    f"on images of {_named(shape)} it differs from the model by {apart:.1e} of the largest output, and "
                    f"{TOLERANCE[precision]:g} is allowed"
                )
            compared.difference = max(compared.difference, apart)
        compared.shapes.append(shape)
    return compared


def outputs_of(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def first_line(error: BaseException) -> str:
    """What an error says first; of exporters, whose own errors say how to report them, what the innermost one does."""
    while error.__cause__ is not None and type(error).__module__.startswith("torch.onnx"):
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _named(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


class Ran(nn.Module):
    """An exported file as a model: normalised images (B, C, H, W) -> logits.

    Raises:
        ValueError: images of another size than the file's, which does not vary.
    """

    def __init__(self, file: OnnxModel) -> None:
        super().__init__()
        self.file, self.stride, self.num_classes = file, file.about.stride, len(file.about.classes)
        self.on = nn.Parameter(torch.zeros(()))  # asked for its device

    def outputs(
        self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> tuple[list[NDArray[Any]], tuple[int, int]]:
        """All that the file gives, and the (height, width) that it took."""
        about = self.file.about
        given: Any = images.numpy()
        if "size" in about.varying:
            given = np.pad(
                given, ((0, 0), (0, 0), *((0, -side % about.multiple) for side in given.shape[2:]))
            )
        elif given.shape[2:] != about.size:
            height, width = given.shape[2:]
            raise ValueError(
                f"they are not all {about.size[0]} x {about.size[1]} pixels, as the file takes them: one batch is "
                f"{height} x {width}; export with {for_sizes(about)}"
            )
        if about.input == "pixels":
            mean, std = (np.asarray(each, np.float32)[:, None, None] for each in (about.mean, about.std))
            given = np.rint((given * std + mean) * 255).clip(0, 255).astype(np.uint8)
        at_once = len(given) if "batch" in about.varying else 1
        parts = [slice(i, i + at_once) for i in range(0, len(given), at_once)]
        found = [self.file.run(given[part], None if sizes is None else sizes[part]) for part in parts]
        return [np.concatenate(each) for each in zip(*found, strict=True)], given.shape[2:]

    def forward(self, images: Tensor) -> Tensor:
        about = self.file.about
        out = torch.from_numpy(self.outputs(images)[0][0])
        if about.outputs == "probabilities":
            return out.logit() if about.answers == "labels" else out.log()
        return out


class RanDetector(Ran):
    """A detector's, as ``crosshead.models.Detector`` answers in evaluation."""

    def __init__(self, file: OnnxModel) -> None:
        super().__init__(file)
        assert file.about.detector is not None
        self.nms_threshold, self.max_detections = (
            file.about.detector[name] for name in ("nms_threshold", "max_detections")
        )

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:  # type: ignore[override]
        outputs, given = self.outputs(images, sizes)
        answers = []
        for seen, *of_one in zip(sizes, *outputs, strict=True):
            found = map(torch.from_numpy, kept(of_one, given, seen, self.file.about))
            answers.append(dict(zip(("boxes", "scores", "labels", "masks"), found, strict=False)))
            if "masks" in answers[-1]:
                answers[-1]["masks"] = answers[-1]["masks"][:, None]
        return answers


def judge(trained: LoadedRun, splits: Splits, file: OnnxModel | None = None) -> str:
    """What the task shows first on the validation split ("accuracy 98.33%"): of the run's model, or of a file in its
    place. ValueError where the file can't take the split's pictures."""
    metric = METRICS[trained.task.shown[0]]
    if file is not None:
        ran = RanDetector if file.about.answers == "objects" else Ran
        trained = replace(trained, model=ran(file))
    found = evaluate_on(trained, splits, "validation")
    return f"{metric.label} {metric.text(found.metrics[metric.name])}"
