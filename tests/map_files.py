"""Tiny data sets of pictures with maps, in the layouts of the real ones."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_map(file: Path, classes: np.ndarray, *, palette: bool = False) -> None:
    image = Image.fromarray(classes)
    if palette:
        image.putpalette([value for index in range(256) for value in (index, 255 - index, index * 7 % 256)])
    image.save(file)


def _picture(file: Path, seed: int, size: tuple[int, int] = (24, 20)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def _bands(values: list[int], size: tuple[int, int] = (24, 20)) -> np.ndarray:
    """A column of each of ``values`` after another."""
    return np.repeat(np.array(values, np.uint8), -(-size[0] // len(values)))[None, : size[0]].repeat(
        size[1], 0
    )


def ade20k(root: Path, train: int = 6, validation: int = 2, size: tuple[int, int] = (24, 20)) -> Path:
    number = 0
    for part, count in (("training", train), ("validation", validation)):
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True)
        for i in range(count):
            name = f"ADE_{part[:5]}_{i + 1:08d}"
            _picture(root / "images" / part / f"{name}.jpg", number, size)
            save_map(root / "annotations" / part / f"{name}.png", _bands([0, 1, 150, 3 + i % 3], size))
            number += 1
    names = ["wall", "building, edifice", *(f"thing {i}, other" for i in range(3, 151))]
    lines = [f"{i}\t0.1\t10\t2\t1\t{name}" for i, name in enumerate(names, 1)]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *lines]) + "\n")
    return root


def voc(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    names = [f"2007_{i:06d}" for i in range(4)]
    for i, name in enumerate(names):
        _picture(base / "JPEGImages" / f"{name}.jpg", i)
        save_map(base / "SegmentationClass" / f"{name}.png", _bands([0, 20, 255]), palette=True)
    (base / "ImageSets/Segmentation/train.txt").write_text("\n".join(names[:3]) + "\n")
    (base / "ImageSets/Segmentation/val.txt").write_text(names[3] + "\n")
    return root


def map_folder(root: Path, count: int = 8, size: tuple[int, int] = (24, 20)) -> Path:
    """Three classes that the colours tell apart, and a row without any."""
    colours = np.array([[40, 40, 40], [60, 80, 220], [40, 200, 60]], np.uint8)
    for kind in ("images", "maps"):
        (root / kind).mkdir(parents=True)
    for i in range(count):
        classes = np.roll(_bands([0, 1, 2], size), 3 * i, axis=1)
        noise = np.random.default_rng(i).integers(0, 30, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(colours[classes] + noise).save(root / "images" / f"{i}.png")
        classes[0] = 255
        save_map(root / "maps" / f"{i}.png", classes)
    (root / "classes.txt").write_text("ground\nsky\ntree\n")
    return root
