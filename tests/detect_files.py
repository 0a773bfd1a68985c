"""Tiny data sets in COCO's form: coloured squares and bars, with polygons, run lengths and a crowd."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from crosshead.data.coco.instances import Objects

NAMES = ("square", "bar")
_COLOURS = ((230, 60, 40), (40, 90, 230))


def coco_folder(root: Path, count: int = 16, size: tuple[int, int] = (56, 44)) -> Path:
    """``annotations.json`` beside ``images``; ``size`` is (width, height)."""
    (root / "images").mkdir(parents=True)
    (root / "annotations.json").write_text(json.dumps(_described(root / "images", range(count), size)))
    return root


def _described(folder: Path, numbers: range, size: tuple[int, int]) -> dict:
    images, annotations = [], []
    for number in numbers:
        draw = np.random.default_rng(number)
        pixels = draw.integers(90, 130, (size[1], size[0], 3), dtype=np.uint8)
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": size[0], "height": size[1]})
        for _ in range(number % 4):  # every fourth picture has none
            label = int(draw.integers(2))
            wide, high = (14, 14) if label == 0 else (26, 8)
            x, y = int(draw.integers(size[0] - wide)), int(draw.integers(size[1] - high))
            pixels[y : y + high, x : x + wide] = _COLOURS[label]
            annotations.append(
                _annotation(len(annotations) + 1, 100 + number, label, (x, y, wide, high), size)
            )
        Image.fromarray(pixels).save(folder / f"{number}.png")
    # Categories are numbered with gaps, as COCO's are.
    categories = [{"id": 3 + 4 * k, "name": name} for k, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(
    number: int, image: int, label: int, box: tuple[int, int, int, int], size: tuple[int, int]
) -> dict:
    x, y, wide, high = box
    crowd = number % 7 == 0
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[y : y + high, x : x + wide] = 1
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    counts = runs if not flat[0] else [0, *runs]
    polygon = [[x, y, x + wide, y, x + wide, y + high, x, y + high]]
    return {
        "id": number,
        "image_id": image,
        "category_id": 3 + 4 * label,
        "bbox": [x, y, wide, high],
        "area": wide * high,
        "iscrowd": int(crowd),
        "segmentation": {"size": [size[1], size[0]], "counts": counts} if crowd else polygon,
    }


def no_objects(size: tuple[int, int], *, masks: bool) -> Objects:
    """A picture without any."""
    return Objects(
        size,
        np.zeros((0, 4)),
        np.zeros(0, np.int64),
        np.zeros(0, bool),
        np.zeros(0),
        () if masks else None,
    )
