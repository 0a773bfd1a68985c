"""Data as people bring it, through ``data check`` and ``train``: what goes, what is told, and what is refused."""

import io
import json
import struct
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from PIL import Image

from crosshead.cli import main

MODEL = {
    "name": "ivit_tiny",
    "args": {
        "depths": [1, 1],
        "dims": [8, 16],
        "num_heads": [1, 2],
        "attention_stages": [1],
        "landmarks": 2,
    },
}
SEGMENT = {
    "base": "shared/segment",
    "model": MODEL | {"segmenter": {"name": "linear"}},
    "data": {"name": "map-folder", "image_size": 32, "eval_resize": 32},
}
DETECT = {
    "base": "shared/detect",
    "model": MODEL
    | {
        "detector": {
            "name": "retinanet",
            "anchor_size": 3.0,
            "norm": True,
            "pyramid": {"width": 8, "extra": "none"},
        }
    },
    "data": {"name": "coco-folder", "image_size": 64, "eval_resize": None},
}
CLASSIFY = {
    "task": {"name": "classify"},
    "model": MODEL,
    "data": {"name": "folder", "image_size": 24, "eval_resize": 24},
}
SHORT = ["train.steps=1", "data.batch_size=2", "data.num_workers=0", "schedule.warmup_epochs=0"]
SHORT += ["log.tensorboard=false", "train.device=cpu"]


def save(file, pixels, orientation=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, exif=exif)


def maps(root, change=lambda classes, i: classes, names=("background", "a", "b"), orientation=None):
    draw = np.random.default_rng(1)
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            pixels, classes = np.full((32, 32, 3), 30, np.uint8), np.zeros((32, 32), np.uint8)
            for number, colour in ((1, (220, 40, 40)), (2, (40, 40, 220))):
                y, x = draw.integers(0, 20, 2)
                pixels[y : y + 12, x : x + 12], classes[y : y + 12, x : x + 12] = colour, number
            suffix = "png" if orientation is None else "jpg"
            save(root / "images" / split / f"{i}.{suffix}", pixels, orientation)
            save(root / "maps" / split / f"{i}.png", change(classes, i))
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    return SEGMENT


def objects(root, change=lambda content: None, splits=("train", "val"), orientation=None, size=(64, 64)):
    """A square and a bar on each picture; ``change`` is made to each file."""
    draw, (wide, high) = np.random.default_rng(1), size
    for split, count in zip(splits, (4, 2), strict=False):
        images, annotations = [], []
        for i in range(count):
            pixels = np.full((high, wide, 3), 20, np.uint8)
            for category, (w, h) in ((3, (16, 16)), (7, (28, 8))):
                x, y = int(draw.integers(0, wide - w)), int(draw.integers(0, high - h))
                pixels[y : y + h, x : x + w] = (220, 40, 40) if category == 3 else (40, 220, 40)
                each = {"id": len(annotations) + 1, "image_id": i + 1, "category_id": category}
                each |= {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                annotations.append(each | {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]})
            images.append({"id": i + 1, "file_name": f"{i}.jpg", "width": wide, "height": high})
            shown = pixels if orientation is None or orientation < 5 else pixels.transpose(1, 0, 2)
            save(root / split / f"{i}.jpg", shown, orientation)
        categories = [{"id": 3, "name": "square"}, {"id": 7, "name": "bar"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        change(content)
        (root / f"{split}.json").write_text(json.dumps(content))
    return DETECT


def each_object(change):
    return lambda content: [change(each) for each in content["annotations"]]


def corners(each):
    x, y, w, h = each["bbox"]
    each["bbox"] = [x, y, x + w, y + h]


def shares(each):
    each["bbox"] = [number / 64 for number in each["bbox"]]
    each["segmentation"] = [[number / 64 for number in outline] for outline in each["segmentation"]]


def only_in_training(root):
    objects(root)
    content = json.loads((root / "val.json").read_text())
    (root / "val.json").write_text(json.dumps(content | {"annotations": []}))
    return DETECT


def one_category(content):
    content["categories"] = content["categories"][:1]
    each_object(lambda each: each.update(category_id=3))(content)


def unused_category(content):
    content["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})


def floats(content):
    for each in content["images"]:
        each["width"] = float(each["width"])


def backslashes(root):
    objects(root)
    for split in ("train", "val"):
        content = json.loads((root / f"{split}.json").read_text())
        for each in content["images"]:
            each["file_name"] = f"{split}\\{each['file_name']}"
        (root / f"{split}.json").write_text(json.dumps(content))
    return DETECT


def some_outlines(content):
    for each in content["annotations"][::2]:
        del each["segmentation"]


def a_box_of_no_width(content):
    content["annotations"][0]["bbox"][2] = 0


def labelme(root):
    for i in range(3):
        save(root / "images" / f"{i}.png", np.full((32, 32, 3), 30, np.uint8))
        shape = {"label": "cat", "points": [[1, 2], [9, 9]], "shape_type": "rectangle"}
        content = {"version": "5.0", "shapes": [shape], "imagePath": f"images/{i}.png", "imageData": None}
        (root / f"{i}.json").write_text(json.dumps(content))
    return DETECT


def twelve_bits(root):
    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name, level in (("dim", 300), ("bright", 420)):
            for i in range(count):
                pixels = draw.normal(level, 15, (24, 24)).clip(0, 4095).astype(np.uint16)
                save(root / split / name / f"{i}.png", pixels)
    return CLASSIFY


def a_single_picture(root):
    for name, count in (("a", 4), ("b", 4), ("rare", 1)):
        for i in range(count):
            save(root / name / f"{i}.png", np.full((8, 8, 3), 20 * i, np.uint8))
    return CLASSIFY


def fourth_band(root, tag):
    """``tag`` as TIFF numbers what is beside the colours: 2 for transparency, 0 for no word of it."""
    for number, name in enumerate("ab"):
        for i in range(4):
            (root / name).mkdir(parents=True, exist_ok=True)
            bands = np.random.default_rng(4 * number + i).integers(0, 255, (24, 24, 4), np.uint8)
            file = io.BytesIO()
            Image.fromarray(bands, "RGBA").save(file, "TIFF")
            entry = struct.pack("<HHI", 338, 3, 1)
            content = file.getvalue()
            assert content.count(entry) == 1
            (root / name / f"{i}.tif").write_bytes(
                content.replace(entry + struct.pack("<I", 2), entry + struct.pack("<I", tag))
            )
    return CLASSIFY


REFUSED, TOLD = 2, 0
CASES = {
    "maps drawn in 0 and 255": (
        lambda root: maps(root, lambda m, i: np.where(m > 0, 255, 0).astype(np.uint8), ("background", "a")),
        REFUSED,
        "they look like drawn masks. Write 1 where they have 255",
    ),
    "maps without a class": (
        lambda root: maps(root, lambda m, i: np.full_like(m, 255)),
        REFUSED,
        "no pixel of any class: there is nothing to learn",
    ),
    "the background left out of the list": (
        lambda root: maps(root, lambda m, i: m if i % 4 == 0 else m * (m < 2), ("a", "b")),
        REFUSED,
        "where 0 is background, it stands there as a class of its own",
    ),
    "maps beside turned squares": (lambda root: maps(root, orientation=6), TOLD, "data.exif=ignore takes"),
    "boxes beside pictures upside down": (
        lambda root: objects(root, orientation=3),
        TOLD,
        "data.exif=ignore takes",
    ),
    "sizes of pictures not yet turned": (
        lambda root: objects(root, orientation=6, size=(48, 64)),
        TOLD,
        "are turned by EXIF",
    ),
    "boxes in shares": (lambda root: objects(root, each_object(shares)), REFUSED, "shares of the picture"),
    "boxes as corners": (lambda root: objects(root, each_object(corners)), REFUSED, "the boxes are corners"),
    "crowds alone": (
        lambda root: objects(root, each_object(lambda each: each.update(iscrowd=1))),
        REFUSED,
        "no object of any class, crowds left out: there is nothing to learn",
    ),
    "no object at all": (
        lambda root: objects(root, lambda content: content.update(annotations=[])),
        REFUSED,
        "no object of any class",
    ),
    "nothing to judge by": (only_in_training, REFUSED, "box AP is undefined there"),
    "one category": (lambda root: objects(root, one_category), TOLD, ""),
    "a category that no object has": (
        lambda root: objects(root, unused_category),
        TOLD,
        "no object of class shapes: nothing is learned of it",
    ),
    "sizes with a point": (lambda root: objects(root, floats), TOLD, ""),
    "paths of Windows": (backslashes, TOLD, ""),
    "outlines of some objects": (lambda root: objects(root, some_outlines), TOLD, ""),
    "a box of no width": (lambda root: objects(root, a_box_of_no_width), TOLD, "left out"),
    "files of LabelMe": (labelme, REFUSED, "LabelMe"),
    "12 bits in 16": (twelve_bits, TOLD, "white is 1023 (data.white_level)"),
    "a class of one picture": (a_single_picture, REFUSED, "class rare has 1 picture"),
    "a fourth band called transparency": (
        lambda root: fourth_band(root, 2),
        TOLD,
        "data.channels=4 learns from it",
    ),
    "a fourth band without a name": (lambda root: fourth_band(root, 0), REFUSED, "data.channels=4 learns"),
}


def command(*words):
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main([str(word) for word in words])
    return code, said.getvalue()


@pytest.mark.parametrize("name", CASES)
def test_data_as_people_have_it(tmp_path, name):
    write, wanted, words = CASES[name]
    recipe = write(tmp_path / "data") | {"name": "run", "output": str(tmp_path / "runs")}
    (tmp_path / "my.yaml").write_text(json.dumps(recipe))
    given = [tmp_path / "my.yaml", f"data.root={tmp_path / 'data'}", "data.validation=0.4", *SHORT]
    code, said = command("data", "check", *given)
    assert (code == 0) == (wanted == TOLD), said
    assert "Traceback" not in said and "folder above the classes" not in said
    code, told = command("train", *given)
    assert code == wanted and words in told, told
    assert "Traceback" not in told and "nan" not in told
    assert (tmp_path / "runs" / "run").exists() == (wanted == TOLD), "a refused start leaves no run"
    if wanted == REFUSED:
        assert told.count("\n") == 1
        return
    pictures = sorted(
        file for file in (tmp_path / "data").rglob("0.*") if file.suffix in (".jpg", ".png", ".tif")
    )
    code, said = command("predict", tmp_path / "runs" / "run", pictures[0])
    assert code == 0, said
    code, said = command("eval", tmp_path / "runs" / "run", "--split", "validation")
    assert code == 0 and "nan" not in said, said
