"""An exported ONNX file that answers as the run did, on ONNX Runtime: NumPy and Pillow, no PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.decode.decoding import Decoding
from crosshead.export.about import About
from crosshead.export.answers import NOT_FINITE, labelled, lines, segmented
from crosshead.export.objects import found_objects
from crosshead.export.prepare import decoding_of, padded, prepared


@dataclass(frozen=True)
class Prepared:
    """What the graph takes of a picture (C, H, W), its (height, width) without padding, and the picture's own."""

    image: NDArray[Any]
    seen: tuple[int, int]
    own: tuple[int, int]


class OnnxModel:
    """A file of ``crosshead export``.

    Raises:
        ValueError: no ONNX file, or one that does not say how pictures are prepared for it.
    """

    def __init__(self, file: str | Path) -> None:
        self.name = str(file)
        self.session = open_session(file)
        self.about = About.of(self.session.get_modelmeta().custom_metadata_map, self.name)
        if self.about.answers is None:
            raise ValueError(
                f"{self.name} holds a part of a model, whose outputs are no answers: run it with ONNX Runtime itself"
            )

    @property
    def decoding(self) -> Decoding:
        return decoding_of(self.about)

    def preprocess(self, picture: Image.Image) -> Prepared:
        """A picture as ``predictions_of`` takes it. Raises ``BrokenImage``."""
        image = prepared(picture, self.about)
        seen = (image.shape[1], image.shape[2])
        return Prepared(padded(image, self.about), seen, (picture.height, picture.width))

    def predictions_of(self, pictures: Sequence[Prepared], *, top: int | None = None) -> list[dict[str, Any]]:
        """What the run's task answers of each picture; see ``tasks.Task.predictions_of``."""
        found: list[dict[str, Any]] = []
        for _, group in groupby(pictures, key=lambda each: each.image.shape):
            alike = list(group)
            stacked = np.stack([each.image for each in alike])
            self._check_size(stacked.shape[-2:])
            seen = [each.seen for each in alike]
            if "batch" in self.about.varying:
                outputs = self.run(stacked, seen)
            else:
                parts = [self.run(image[None], [its]) for image, its in zip(stacked, seen, strict=True)]
                outputs = [np.concatenate(each) for each in zip(*parts, strict=True)]
            found += [
                answer if fine else {"predictions": [], "fault": NOT_FINITE}
                for answer, fine in zip(self._read(outputs, alike, top), _finite(outputs), strict=True)
            ]
        return found

    def run(self, images: NDArray[Any], sizes: Sequence[tuple[int, int]] | None = None) -> list[NDArray[Any]]:
        """All outputs for images (B, C, H, W), each a picture of its (height, width) in ``sizes`` and padding."""
        return run_session(self.session, images, sizes)

    def _read(
        self, outputs: list[NDArray[Any]], pictures: list[Prepared], top: int | None
    ) -> list[dict[str, Any]]:
        about = self.about
        if about.answers == "segments":
            return [
                segmented(logits, each.seen, each.own, about)
                for logits, each in zip(outputs[0], pictures, strict=True)
            ]
        if about.answers == "objects":
            return [
                found_objects(
                    of_one, (each.image.shape[1], each.image.shape[2]), each.seen, each.own, about, top
                )
                for each, *of_one in zip(pictures, *outputs, strict=True)
            ]
        return labelled(outputs[0], about, top)

    def _check_size(self, size: tuple[int, ...]) -> None:
        if "size" not in self.about.varying and tuple(size) != self.about.size:
            raise ValueError(
                f"{self.name} takes pictures that are {' x '.join(map(str, self.about.size))} pixels (height x width) "
                f"when prepared, and this one is {' x '.join(map(str, size))}: export with {for_sizes(self.about)}"
            )
        if "size" in self.about.varying and min(size) < self.about.smallest:
            raise ValueError(
                f"{self.name} takes pictures whose sides are {self.about.smallest} pixels or more when prepared, and "
                f"this one is {' x '.join(map(str, size))}"
            )

    def format_lines(self, answer: dict[str, Any]) -> list[str]:
        """An answer as a person reads it."""
        threshold = self.about.detector["shown_threshold"] if self.about.detector else 0.0
        return lines(answer, min(threshold) if isinstance(threshold, list) else threshold)


def for_sizes(about: About) -> str:
    """The option of ``crosshead export`` that pictures of another size than the file's want."""
    two_stages = about.detector is not None and "strides" not in about.detector
    return "--size HxW, a file for each size" if two_stages else "--dynamic batch,size"


def _finite(outputs: list[NDArray[Any]]) -> list[bool]:
    """Of each picture, whether all outputs are numbers."""
    rows = [np.isfinite(each).reshape(len(each), -1).all(1) for each in outputs]
    found: list[bool] = np.logical_and.reduce(rows).tolist()
    return found


def run_session(
    session: Any, images: NDArray[Any], sizes: Sequence[tuple[int, int]] | None = None
) -> list[NDArray[Any]]:
    """All outputs; ``sizes`` (the images' own, unless given) go to a graph that takes them."""
    names = [each.name for each in session.get_inputs()]
    given = {names[0]: images}
    if len(names) > 1:
        given[names[1]] = np.asarray(sizes or [images.shape[2:]] * len(images), np.float32)
    out: list[NDArray[Any]] = session.run(None, given)
    return out


def open_session(file: str | Path) -> Any:
    """ONNX Runtime's session on the CPU; ValueError where the file is none."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # it prints what it also raises
    try:
        return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no class in common that it names
        if not Path(file).is_file():
            raise ValueError(f"{file}: no such file") from None
        raise ValueError(f"{file} can't be opened as an ONNX file: {str(error).splitlines()[0]}") from None
