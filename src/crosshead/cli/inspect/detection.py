"""An object that a detector finds in a picture, as what is looked at."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from crosshead.cli.inspect.inspected import InspectedRun, found_in


@dataclass(frozen=True)
class Detection:
    """``box`` left, top, right, bottom in pixels of the model's input; ``label`` which one it is, of what, how sure."""

    box: tuple[float, float, float, float]
    label: str


def check_detects(inspected: InspectedRun, class_name: str | None) -> None:
    """Raises ValueError for a model that finds no objects, or a class that it doesn't know."""
    trained = inspected.trained
    if trained is None or trained.task.targets != "objects":
        what = f"{inspected.name}, a model without a run,"
        if trained is not None:
            what = f"a run of task.name={trained.recipe.task.name}"
        raise ValueError(f"--detection: {what} finds no objects; ask for a box with --query X,Y,X,Y")
    names = list(inspected.classes or ())
    if class_name is not None and class_name not in names:
        near = get_close_matches(class_name, names, n=1, cutoff=0.0)
        raise ValueError(f"--of-class: there is no class {class_name!r}; the nearest is {near[0]!r}")


def find_detection(inspected: InspectedRun, file: Path, number: int, class_name: str | None) -> Detection:
    """The ``number``-th best object in a picture, of all or of one class, counted from 1.

    Raises:
        ValueError: the detector finds fewer.
    """
    from crosshead.tasks.detect.matching import words  # here: it brings torch

    assert inspected.trained is not None
    settings: Any = inspected.trained.recipe.task
    answer, size = found_in(inspected, file)
    found = [each for each in answer["objects"] if class_name in (None, each["class"])]
    of = "" if class_name is None else f" of class {class_name}"
    if len(found) < number:
        raise ValueError(
            f"--detection: there is no detection {number}{of} in {file.name}; of what scores "
            f"{words(settings.score_threshold)} (task.score_threshold) or more the detector found {len(found)}"
        )
    chosen = found[number - 1]
    label = f"detection {number}{of}: {chosen['class']}, score {chosen['score']:.2f}"
    return Detection(_in_input(chosen["bbox"], answer["size"], size), label)


def _in_input(bbox: list[float], own: list[int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """COCO's x, y, width, height in a picture of ``own`` (height, width) -> corners where it has ``size``."""
    across, down = size[1] / own[1], size[0] / own[0]
    left, top, wide, high = bbox
    # A corner on the edge lies in the last pixel.
    right, bottom = min((left + wide) * across, size[1] - 1e-3), min((top + high) * down, size[0] - 1e-3)
    return min(left * across, right), min(top * down, bottom), right, bottom
