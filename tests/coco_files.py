"""Tiny data sets in COCO's form."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]
SIZE = (40, 30)  # width, height


def instances(first: int = 1, count: int = 3, size: tuple[int, int] = SIZE, head: str = "") -> dict:
    """Pictures ``first`` and on with three objects each, but the last: a polygon, two, and a crowd."""
    width, height = size
    images, annotations = [], []
    for i in range(first, first + count):
        images.append({"id": i, "file_name": f"{head}{i:06d}.png", "width": width, "height": height})
        if i == first + count - 1:
            continue
        outlines = [
            (1, [2.5, 3, 10, 8.25], [[2.5, 3, 12.5, 3, 12.5, 11.25, 2.5, 11.25]], 0),
            (90, [14, 10, 9, 15], [[14, 10, 23, 10, 18, 15], [14, 25, 23, 25, 18.4, 20]], 0),
            (
                13,
                [30, 0, 5, height],
                {"size": [height, width], "counts": [30 * height, 5 * height, (width - 35) * height]},
                1,
            ),
        ]
        for k, (category, box, outline, crowd) in enumerate(outlines):
            annotations.append(
                {"id": 10 * i + k, "image_id": i, "category_id": category, "bbox": box, "iscrowd": crowd}
                | {"area": box[2] * box[3] / 2, "segmentation": outline}
            )
    return {
        "info": {"year": 2017},
        "licenses": [{"id": 1}],
        "images": images,
        "annotations": annotations,
        "categories": CATEGORIES,
    }


def write(file: Path, content: dict, pictures: Path) -> None:
    """The file, and each of its pictures below ``pictures``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for entry in content["images"]:
        path = pictures / entry["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(entry["id"]).integers(0, 256, (entry["height"], entry["width"], 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)


def coco(root: Path, train: int = 4, validation: int = 3, size: tuple[int, int] = SIZE) -> Path:
    """The official layout."""
    for part, first, count in (("train", 1, train), ("val", 101, validation)):
        content = instances(first, count, size)
        write(root / "annotations" / f"instances_{part}2017.json", content, root / f"{part}2017")
    return root


def coco_folder(root: Path, count: int = 5) -> Path:
    write(root / "annotations.json", instances(1, count), root / "images")
    return root
