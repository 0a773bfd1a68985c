"""What an ONNX file tells of itself beside its graph: what preparing a picture and reading the outputs need."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

FORMAT = "1"  # of these entries


@dataclass(frozen=True)
class About:
    """Each field is an entry of the file's ``metadata_props``, in JSON.

    ``task`` is a recipe's ``task.name``, or "outputs"; ``answers`` says what its outputs mean, as a task's class does,
    None where nothing is known of that. ``size``
    (height, width) is what a classifier's pictures are cut to after their shorter side was resized to ``resize``
    (without one: to cover ``size``); of a segmenter's and a detector's, which are taken whole, the shorter side becomes
    ``resize``, the longer one at most ``longest``, if these are set. ``input`` says what the graph takes: "normalized"
    float32, or "pixels", uint8, which it normalises itself. ``outputs`` are "logits" or "probabilities".

    ``varying``: of "batch" and "size"; sizes are multiples of ``multiple`` from ``smallest`` on. ``recipe`` is the
    digest of the run's resolved recipe. ``scale`` is the mean and deviation of a regression's numbers; ``stride`` the
    pixels a step of a segmenter's grid; above ``window`` pixels a side the run cuts pictures into windows, which a file
    does not; ``detector`` is what decoding its outputs needs.
    """

    task: str = "outputs"
    answers: str | None = None
    model: str = ""
    classes: tuple[str, ...] = ()
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, int] = (0, 0)
    resize: int | None = None
    longest: int | None = None
    crop: str = "center"
    interpolation: str = "bilinear"
    max_megapixels: float = 64.0
    white_level: int | str = "auto"
    value_range: tuple[float, float] | None = None
    exif: str = "apply"
    input: str = "normalized"
    outputs: str = "logits"
    precision: str = "fp32"
    varying: tuple[str, ...] = ()
    multiple: int = 1
    smallest: int = 1
    recipe: str | None = None
    step: int | None = None
    scale: tuple[float, float] | None = None
    stride: int | None = None
    window: int | None = None
    window_scale: float = 1.0
    detector: Mapping[str, Any] | None = None

    def entries(self) -> dict[str, str]:
        """As ``metadata_props`` has them."""
        told = {name: json.dumps(value, ensure_ascii=False) for name, value in asdict(self).items()}
        return {"crosshead": FORMAT, **told}

    @classmethod
    def of(cls, entries: Mapping[str, str], name: str) -> "About":
        """Of the ``metadata_props`` of the file ``name``; ValueError where they are not those of this library."""
        if "crosshead" not in entries:
            raise ValueError(
                f"{name} is not a file of `crosshead export`: it does not say how pictures are prepared for it"
            )
        if entries["crosshead"] != FORMAT:
            raise ValueError(
                f"{name} was written by another version of crosshead (its form is {entries['crosshead']!r}, "
                f"{FORMAT!r} is read here): export it again"
            )
        try:
            found = {field.name: json.loads(entries[field.name]) for field in fields(cls)}
        except (KeyError, ValueError) as error:
            raise ValueError(f"{name}: what it tells of itself is damaged ({error})") from None
        tuples = {key for key, hint in get_type_hints(cls).items() if "tuple[" in str(hint)}
        values: dict[str, Any] = {
            k: tuple(v) if k in tuples and v is not None else v for k, v in found.items()
        }
        return cls(**values)
