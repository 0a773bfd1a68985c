"""Small annotations exactly as their tools write them, of one pair of pictures of 64 x 48 pixels."""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (64, 48)  # width, height
BOX = (8.0, 10.0, 30.0, 30.0)
TRIANGLE = [[35.0, 15.0], [60.0, 15.0], [60.0, 40.0]]


def picture(file: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def yolo(root: Path) -> Path:
    """As Roboflow exports it and Ultralytics reads it: a box, a polygon; a picture of no text, an empty one."""
    for k, part in enumerate(("train", "train", "valid")):
        picture(root / part / "images" / f"p{k}.jpg", k)
    (root / "train" / "labels").mkdir()
    (root / "valid" / "labels").mkdir()
    cx, cy, wide, high = 19 / 64, 20 / 48, 22 / 64, 20 / 48
    polygon = " ".join(f"{value}" for x, y in TRIANGLE for value in (x / 64, y / 48))
    (root / "train/labels/p0.txt").write_text(f"1 {cx} {cy} {wide} {high}\n0 {polygon}\n")
    (root / "valid/labels/p2.txt").write_text("")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['green', 'red']\n"
    )
    (root / "test" / "images").mkdir(parents=True)
    return root


_VOC = """<annotation>
\t<folder>VOC2007</folder>
\t<filename>{name}.jpg</filename>
\t<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation></source>
\t<size><width>64</width><height>48</height><depth>3</depth></size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>red</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
\t\t<bndbox><xmin>9</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>
\t</object>
\t<object>
\t\t<name>green</name><pose>Unspecified</pose><truncated>0</truncated><difficult>1</difficult>
\t\t<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>64</xmax><ymax>48</ymax></bndbox>
\t\t<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>
\t</object>
</annotation>
"""


def voc(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2007"
    for k in range(3):
        picture(base / "JPEGImages" / f"00000{k}.jpg", k)
    for folder in ("Annotations", "ImageSets/Main"):
        (base / folder).mkdir(parents=True)
    for k in range(2):
        (base / "Annotations" / f"00000{k}.xml").write_text(_VOC.format(name=f"00000{k}"))
    (base / "ImageSets/Main/trainval.txt").write_text("000000\n000001\n")
    (base / "ImageSets/Main/val.txt").write_text("000001\n")
    (base / "ImageSets/Main/red_val.txt").write_text("000001  1\n")
    return root


def _png(pixels: np.ndarray) -> str:
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "PNG")
    return base64.b64encode(body.getvalue()).decode()


def labelme(root: Path) -> Path:
    """As LabelMe 5 writes it: one picture beside its file, one inside; two polygons in a group; a mask."""

    def shape(label, points, kind, **more):
        common = {"group_id": None, "description": "", "shape_type": kind, "flags": {}, "mask": None}
        return {"label": label, "points": points} | common | more

    def written(name, shapes, data=None):
        head = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{name}.jpg",
            "imageData": data,
        }
        (root / f"{name}.json").write_text(json.dumps(head | {"imageHeight": 48, "imageWidth": 64}, indent=2))

    picture(root / "p0.jpg")
    square = [[2, 2], [6, 2], [6, 6], [2, 6]]
    piece = np.zeros((5, 7), np.uint8)
    piece[1:4, 2:] = 255
    written(
        "p0",
        [
            shape("red", [[30, 30], [8, 10]], "rectangle"),
            shape("green", TRIANGLE, "polygon"),
            shape("green", square, "polygon", group_id=3),
            shape("green", [[10, 2], [14, 2], [14, 6]], "polygon", group_id=3),
            shape("disc", [[40, 30], [45, 30]], "circle"),
            shape("red", [[20, 40], [26, 44]], "mask", mask=_png(piece)),
            shape("red", [[1, 1], [5, 5]], "line"),
            shape("red", [[1, 1]], "point"),
        ],
    )
    inside = picture(root / "elsewhere.jpg", 1)
    written("p1", [], base64.b64encode(inside.read_bytes()).decode())
    inside.unlink()
    return root


_CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>7</id><name>two</name><size>2</size><mode>annotation</mode>
      <labels>
        <label><name>red</name><color>#ff0000</color><type>any</type><attributes></attributes></label>
        <label><name>green</name><color>#00ff00</color><type>any</type><attributes></attributes></label>
      </labels>
    </task>
    <dumped>2024-01-01 00:00:00+00:00</dumped>
  </meta>
  <image id="0" name="sub/p0.jpg" subset="Train" width="64" height="48">
    <polygon label="green" source="manual" occluded="0" points="35.00,15.00;60.00,15.00;60.00,40.00" z_order="1">
    </polygon>
    <box label="red" source="manual" occluded="1" xtl="8.00" ytl="10.00" xbr="30.00" ybr="30.00" z_order="0">
      <attribute name="quality">good</attribute>
    </box>
    <mask label="red" source="manual" occluded="0" rle="2, 3, 1, 4" left="40" top="2" width="5" height="2" z_order="0">
    </mask>
    <ellipse label="green" source="manual" occluded="0" cx="20.00" cy="38.00" rx="6.00" ry="4.00" z_order="0">
    </ellipse>
    <box label="red" occluded="0" source="manual" xtl="40" ytl="28" xbr="50" ybr="32" rotation="90.0" z_order="0"></box>
    <polyline label="red" source="manual" occluded="0" points="1.00,1.00;5.00,5.00" z_order="0"></polyline>
    <tag label="green" source="manual"></tag>
  </image>
  <image id="1" name="p1.jpg" subset="Validation" width="64" height="48">
  </image>
</annotations>
"""


def cvat(root: Path) -> Path:
    """As "CVAT for images 1.1" with its pictures."""
    picture(root / "images" / "sub" / "p0.jpg")
    picture(root / "images" / "p1.jpg", 1)
    (root / "annotations.xml").write_text(_CVAT)
    return root


TABLES = {
    "deepforest": "image_path,xmin,ymin,xmax,ymax,label\np0.jpg,8,10,30,30,red\np1.jpg,1,2,3,4,green\n",
    "tensorflow": "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    "p0.jpg,64,48,red,8,10,30,30\np1.jpg,64,48,green,1,2,3,4\n",
    "keras": "images/p0.jpg,8,10,30,30,red\nimages/p1.jpg,1,2,3,4,green\nimages/p2.jpg,,,,,\n",
    "open images": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded\n"
    f"p0,xclick,red,1,{8 / 64},{30 / 64},{10 / 48},{30 / 48},0\n"
    f"p1,xclick,green,1,{1 / 64},{3 / 64},{2 / 48},{4 / 48},0\n",
    "sized": "filename;label;x;y;width;height\np0.jpg;red;8;10;22;20\np1.jpg;green;1;2;2;2\n",
}


def table(root: Path, kind: str = "deepforest") -> Path:
    for k in range(3):
        picture(root / "images" / f"p{k}.jpg", k)
    (root / "annotations.csv").write_text(TABLES[kind])
    return root


def masks(root: Path) -> Path:
    """0 and 255; one drawn as JPEG, with the greys that this leaves."""
    for k in range(3):
        picture(root / "images" / f"p{k}.jpg", k)
        drawn = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        drawn[9 * k : 9 * k + 16, 17:41] = 255
        file = root / "masks" / f"p{k}_mask.{'jpg' if k == 2 else 'png'}"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(drawn).save(file)
    return root
