"""Models as ONNX files, compared with the model on ONNX Runtime before they count as written."""

import contextlib
import io
import logging
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim

from crosshead.export.about import About
from crosshead.export.checks import BATCHES, Images, compare, first_line, outputs_of
from crosshead.export.graphs import Pixels, Probabilities, output_names, periods_of, step_of
from crosshead.export.mends import followed
from crosshead.export.precision import Precision, write_in
from crosshead.export.programs import Part, part_of
from crosshead.export.regions import translations
from crosshead.export.runtime import open_session, run_session
from crosshead.export.two_stage import TwoStages
from crosshead.export.two_stage_checks import check_options, compare_found

MOST = 2**31 - 1  # bytes, that one file can hold


@dataclass(frozen=True)
class Written:
    """A file that computes what the model does. ``difference`` is the largest over an output's largest entry, of the
    float32 graph and (``of_precision``) of the file where that has another precision; ``shapes`` are the
    (batch, height, width) that it is over, of ``real`` pictures, or of noise where that is 0. ``objects`` and
    ``ties``: of a two-stage detector, see ``Compared``."""

    file: Path
    about: About
    inputs: tuple[int | str, ...]
    outputs: tuple[tuple[int, ...], ...]
    difference: float
    shapes: tuple[tuple[int, int, int], ...]
    real: int
    of_precision: float | None = None
    objects: int | None = None
    ties: int = 0


def export_onnx(
    model: nn.Module,
    file: Path,
    about: About,
    *,
    part: Part = "whole",
    varying: Sequence[str] = ("batch",),
    precision: Precision = "fp32",
    pictures: Sequence[NDArray[np.uint8]] = (),
) -> Written:
    """Writes a model, or a part of it, for evaluation.

    Args:
        model: a classifier, segmenter or detector, on the CPU.
        file: to write, .onnx; replaced if it is there.
        about: what the file tells of itself; ``input`` and ``outputs`` in it say whether the graph normalises and
            gives probabilities, ``size`` of which images it is traced with.
        part: what of it; see ``export_program``.
        varying: of "batch" and "size".
        precision: "fp32", "fp16" or "int8", see ``write_in``.
        pictures: to compare on, (C, h, w) uint8.

    Raises:
        ValueError: a part or an option that the model has not, or a graph that can't be made, or computes something
            else; then nothing is written.
    """
    if file.suffix != ".onnx":
        raise ValueError(f"{file}: the name of an ONNX file must end in .onnx")
    plain = part_of(model, part)
    plain.train(False)
    if isinstance(plain, TwoStages):
        check_options(about, varying, precision)
    if about.outputs == "probabilities":
        plain = Probabilities(plain, about.answers == "labels")
    tracing = _Tracing(plain, about, tuple(each for each in ("batch", "size") if each in varying))
    about = replace(tracing.about, precision=precision)
    images = Images(about, pictures)
    names = output_names(model, part)
    with torch.no_grad():
        tracing.check_size()
        proto = tracing.proto(names)
        outputs = outputs_of(plain(torch.zeros(1, about.channels, *about.size)))
    aside = file.with_name(f".{file.stem}.tmp.onnx")
    try:
        about, compared, apart = _checked(proto, aside, plain, about, images, tracing, precision)
        os.replace(aside, file)
    except ValueError as error:
        raise ValueError(f"{error}; nothing was written") from error
    finally:
        aside.unlink(missing_ok=True)
    return Written(
        file,
        about,
        tracing.inputs(),
        tuple(tuple(each.shape) for each in outputs),
        compared.difference,
        tuple(compared.shapes),
        len(images.pictures),
        apart,
        compared.objects if isinstance(plain, TwoStages) else None,
        compared.ties,
    )


def _checked(
    proto: Any,
    aside: Path,
    plain: nn.Module,
    about: About,
    images: Images,
    tracing: "_Tracing",
    precision: Precision,
) -> tuple[About, Any, float | None]:
    """Writes the graph in float32, compares it, then writes it as it shall be, and compares that."""
    write_in("fp32", proto, aside)
    run = _run(aside)
    if isinstance(plain, TwoStages):
        compared = compare_found(plain.model, run, images, tracing.shapes())
    else:
        compared = compare(plain, run, images, tracing.shapes())
    if "size" in about.varying:
        about = replace(about, smallest=tracing.smallest(run, images))
    _describe(proto, about)
    write_in(precision, proto, aside)
    if aside.stat().st_size > MOST:
        raise ValueError(f"{aside.stat().st_size:,} bytes, and one ONNX file holds two gigabytes")
    if precision == "fp32":
        return about, compared, None
    apart = compare(plain, _run(aside), images, tracing.shapes()[: len(BATCHES)], precision)
    return about, compared, apart.difference


def _run(file: Path) -> Any:
    session = open_session(file)
    return lambda images, sizes=None: run_session(session, images, sizes)


def _describe(proto: Any, about: About) -> None:
    del proto.metadata_props[:]
    # The exporter notes where in which file of this machine each node came from.
    for graph in (proto.graph, *proto.functions):
        del graph.metadata_props[:]
        for part in (
            *graph.node,
            *graph.value_info,
            *getattr(graph, "input", ()),
            *getattr(graph, "output", ()),
        ):
            if not isinstance(part, str):
                del part.metadata_props[:]
                part.doc_string = ""
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for key, value in about.entries().items():
        proto.metadata_props.add(key=key, value=value)


class _Tracing:
    """The graph of a module, and of which images it is made and tried."""

    def __init__(self, plain: nn.Module, about: About, varying: tuple[str, ...]) -> None:
        self.plain, self.step = plain, math.lcm(step_of(plain), about.multiple)
        multiple = self.step if "size" in varying else about.multiple
        self.about = replace(about, varying=varying, multiple=multiple)

    def inputs(self) -> tuple[int | str, ...]:
        varying, about = self.about.varying, self.about
        sides = ("height", "width") if "size" in varying else about.size
        return ("batch" if "batch" in varying else 1, about.channels, *sides)

    def check_size(self) -> None:
        try:
            self.plain(torch.zeros(1, self.about.channels, *self.about.size))
        except (ValueError, RuntimeError, AssertionError) as error:
            height, width = self.about.size
            raise ValueError(
                f"the model does not take images of {height} x {width}: {first_line(error)}"
            ) from error

    def _example(self) -> tuple[int, int]:
        """(height, width) to trace with. Where sizes vary no square, and large enough for grids that have more tokens a
        side than landmarks: a trace takes the branch of the sizes that it is made with."""
        if "size" not in self.about.varying:
            return self.about.size
        side = max(*self.about.size, (periods_of(self.plain) + 1) * self.step)
        side += -side % self.step
        return side, side + self.step

    def proto(self, names: list[str] | None) -> Any:
        """The graph, as ONNX has it. ValueError where none can be made."""
        about, (height, width) = self.about, self._example()
        module = Pixels(self.plain, about.mean, about.std) if about.input == "pixels" else self.plain
        batch = (
            2 if "batch" in about.varying else 1
        )  # of one a trace would not know whether their number varies
        images = torch.zeros(batch, about.channels, height, width)
        if about.input == "pixels":
            images = images.to(torch.uint8)
        if "size" in about.varying:
            self._check_takes(height, width)
        two_stages = isinstance(self.plain, TwoStages)
        sizes = torch.tensor([[height, width]] * batch, dtype=torch.float32)
        given, names_in = ((images, sizes), ["images", "sizes"]) if two_stages else ((images,), ["images"])
        errors = []
        for free in self._free():
            try:
                with _silence(), followed(module):
                    traced = torch.export.export(
                        module.eval(),
                        given,
                        dynamic_shapes=(free,) * len(given) if free else None,
                        strict=False,
                    )
                    # What it asked of sides; PyTorch traces that anew, in windows for minutes. The file is compared.
                    traced._guards_code = []
                    program = torch.onnx.export(
                        traced,
                        dynamo=True,
                        verbose=False,
                        input_names=names_in,
                        output_names=names,
                        custom_translation_table=translations() if two_stages else None,
                    )
            except Exception as error:  # torch.export has no one kind for what it can't follow
                errors.append(error)
                continue
            break
        else:
            raise ValueError(f"torch.export can't follow this model: {first_line(errors[0])}") from errors[0]
        assert program is not None
        proto = program.model_proto
        _name_axes(proto, self.inputs())
        return proto

    def _free(self) -> list[dict[int, Any]]:
        """What varies, as torch.export is told it. Sides in steps first: then all grids come out even; where it finds
        a bound that this does not name, it is left to find all of them."""
        free: dict[int, Any] = {0: Dim("batch", min=1)} if "batch" in self.about.varying else {}
        if "size" not in self.about.varying:
            return [free]
        rows, columns = (Dim(name, min=periods_of(self.plain) + 1) for name in ("rows", "columns"))
        return [free | {2: self.step * rows, 3: self.step * columns}, free | dict.fromkeys((2, 3), Dim.AUTO)]

    def _check_takes(self, height: int, width: int) -> None:
        try:
            self.plain(torch.zeros(1, self.about.channels, height, width))
        except (ValueError, RuntimeError, AssertionError, IndexError) as error:
            raise ValueError(
                f"the model does not take images of {height} x {width}, and no size varies: {first_line(error)}; "
                "a ViT does with model.args.dynamic_img_size=true, a Swin with model.args.strict_img_size=false"
            ) from error

    def shapes(self) -> list[tuple[int, int, int]]:
        """(batch, height, width) to compare on: several batches first, then sizes of every remainder."""
        varying, size = self.about.varying, self.about.size
        found = [(batch, *size) for batch in (BATCHES if "batch" in varying else BATCHES[:1])]
        if "size" not in varying:
            return found
        height, width = (side + -side % self.step for side in size)
        found = [(batch, height, width) for batch, *_ in found]
        periods = periods_of(self.plain)
        for i in range(1, periods + 1):
            found.append((1, height + i * self.step, width + (3 * i + 1) % (periods + 1) * self.step))
        found.append((1, height, 2 * width))
        return found

    def smallest(self, run: Any, images: Images) -> int:
        """The side from which on all larger square images, up to ``size``, are computed as by the model."""
        side = min(self.about.size)
        side += -side % self.step
        while side > self.step:
            try:
                compare(self.plain, run, images, [(1, side - self.step, side - self.step)])
            except (ValueError, RuntimeError, AssertionError):
                return side
            side -= self.step
        return side


def _name_axes(proto: Any, inputs: tuple[int | str, ...]) -> None:
    """The tracer's own names for the input's axes are numbered; these are told."""
    renamed = {}
    for axis, name in zip(proto.graph.input[0].type.tensor_type.shape.dim, inputs, strict=True):
        if axis.dim_param and isinstance(name, str):
            renamed[axis.dim_param] = name
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = renamed.get(axis.dim_param, axis.dim_param)


@contextlib.contextmanager
def _silence() -> Any:
    """What the exporter says of its own progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
