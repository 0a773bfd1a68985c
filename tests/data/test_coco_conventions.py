"""COCO files as people have them: other conventions named, and what is broken in them costs itself alone."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from coco_files import instances, write
from crosshead.cli import main
from crosshead.data.coco.reader import read_instances
from crosshead.data.tools.check import check_images
from crosshead.data.tools.pack import pack
from crosshead.recipe.schema import DataConfig
from opening import open_data, recipe_of


def config(root, name="coco-folder", **more):
    return DataConfig(name=name, root=str(root), **({"validation": 0.4} | more))


def boxed(count=6, outlines=True):
    """Two objects on each of ``count`` pictures of 64 x 64."""
    draw, images, annotations = np.random.default_rng(1), [], []
    for i in range(1, count + 1):
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
        for category, (wide, high) in ((3, (16, 16)), (7, (28, 8))):
            x, y = int(draw.integers(0, 64 - wide)), int(draw.integers(0, 64 - high))
            outline = [[x, y, x + wide, y, x + wide, y + high, x, y + high]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": category,
                    "bbox": [x, y, wide, high],
                }
                | ({"segmentation": outline} if outlines else {})
            )
    categories = [{"id": 3, "name": "square"}, {"id": 7, "name": "bar"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def read(content, **more):
    return read_instances(io.StringIO(json.dumps(content)), max_megapixels=1, **more)


def shares(x, y, wide, high):
    return [x / 64, y / 64, wide / 64, high / 64]


def corners(x, y, wide, high):
    return [x, y, x + wide, y + high]


def centre(x, y, wide, high):
    return [x + wide / 2, y + high / 2, wide, high]


@pytest.mark.parametrize(
    ("change", "outlines", "words"),
    [
        (shares, True, "all 12 boxes have numbers from 0 to 1 .*multiply by the picture's width and height"),
        (shares, False, "shares of the picture"),
        (corners, True, r"the boxes are corners .*becomes \[x1, y1, x2 - x1, y2 - y1\]"),
        (corners, False, "the boxes are corners"),
        (centre, True, r"the boxes are centre and size .*becomes \[cx - width / 2"),
    ],
)
def test_boxes_of_another_convention_are_named_with_the_remedy(tmp_path, change, outlines, words):
    content = boxed(outlines=outlines)
    for annotation in content["annotations"]:
        annotation["bbox"] = change(*annotation["bbox"])
    write(tmp_path / "train.json", content, tmp_path / "images")
    with pytest.raises(ValueError, match=rf"train.json: .*{words}"):
        open_data(config(tmp_path, max_broken=1000), seed=0)


def test_sound_files_are_of_no_other_convention():
    for outlines in (True, False):
        assert read(boxed(outlines=outlines)).apart is None
    large = boxed(outlines=False)
    for annotation in large["annotations"]:  # an object each that fills its picture, drawn carelessly
        annotation["bbox"] = [2, 2, 64, 64]
    assert read(large).beyond == 12
    one = boxed(count=1, outlines=False)
    one["annotations"] = one["annotations"][:1]
    one["annotations"][0]["bbox"] = [0, 0, 1, 1]
    read(one)


def test_boxes_apart_from_their_polygons_are_no_masks_to_learn_from(tmp_path):
    content = boxed()
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[side / 2 for side in annotation["segmentation"][0]]]
    write(tmp_path / "train.json", content, tmp_path / "images")
    splits = open_data(config(tmp_path), seed=0)
    assert "objects lie apart from their polygons" in splits.train.mask_fault
    assert splits.train.mask_fault in splits.notes


def test_sizes_with_a_point_and_paths_of_windows(tmp_path):
    content = boxed()
    for image in content["images"]:
        image |= {"width": 64.0, "file_name": "deep\\er\\" + image["file_name"]}
    assert read(content).instances.sizes.tolist() == [[64, 64]] * 6
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("\\", "/")
    write(
        tmp_path / "train.json",
        content | {"images": [i | {"width": 64} for i in content["images"]]},
        tmp_path,
    )
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("/", "\\")
    (tmp_path / "train.json").write_text(json.dumps(content))
    splits = open_data(config(tmp_path), seed=0)
    assert not splits.notes and splits.train.sample(0)[0].size == (64, 64)


def test_a_box_of_no_width_costs_the_box(tmp_path):
    content = boxed(outlines=False)
    content["annotations"][0]["bbox"][2] = 0
    content["annotations"][3]["bbox"][2] = -5
    write(tmp_path / "train.json", content, tmp_path / "images")
    write(tmp_path / "val.json", instances(101), tmp_path / "images")
    other = json.loads((tmp_path / "val.json").read_text()) | {"annotations": []}
    (tmp_path / "val.json").write_text(json.dumps(other | {"categories": content["categories"]}))
    splits = open_data(config(tmp_path), seed=0)
    (note,) = splits.notes
    assert "2 of 12 objects are broken: annotation 1: box" in note and "they are left out" in note
    assert not splits.train.known_faults and [len(splits.train.sample(i)[1]) for i in range(2)] == [1, 1]
    kept = [annotation["id"] for annotation in json.loads(splits.train.encoded(1)[1])["annotations"]]
    assert kept == [3]
    whole = open_data(config(tmp_path, on_broken_object="picture"), seed=0)
    assert len(whole.train.known_faults) == 2
    with pytest.raises(ValueError, match=r"2 of 12 objects are broken: .*data.max_broken is 1"):
        open_data(config(tmp_path, max_broken=1), seed=0)


def test_more_objects_than_a_picture_may_have():
    found = read(boxed(), max_objects=1).faults
    assert len(found) == 6 and "has 2 objects, above the limit of 1 (data.max_objects)" in found[0]
    assert not read(boxed(), max_objects=2).faults


def test_masks_of_some_objects_only(tmp_path):
    """A detector of boxes learns from every object, and packing keeps them."""
    content = boxed(count=5)
    for annotation in content["annotations"][::2]:
        annotation["segmentation"] = []
    write(tmp_path / "train.json", content, tmp_path / "images")
    train = open_data(config(tmp_path), seed=0).train
    assert train.masked and train.partly and train.mask_fault is None
    assert len(train.sample(0)[1]) == len(train.sample(0)[1].masks) == 1
    alone = train.boxes_alone().sample(0)[1]
    assert len(alone) == 2 and alone.masks is None and train.masked
    assert check_images(open_data(config(tmp_path))).splits["train"].objects["small"] == 6
    pack(recipe_of(config(tmp_path)), tmp_path / "out")
    packed = open_data(config(tmp_path / "out", "object-shards"), seed=0).train
    assert packed.partly and len(packed.sample(0)[1]) == 1 and len(packed.boxes_alone().sample(0)[1]) == 2
    few = open_data(config(tmp_path, max_broken=4), seed=0)
    assert "5 of 10 objects have no mask" in few.train.mask_fault


FORMS = {
    "a.json": ('{"version": "5.0", "shapes": [], "imagePath": "a.png"}', "LabelMe"),
    "labels/a.txt": ("0 0.5 0.5 0.25 0.125\n3 0.1 0.2 0.3 0.4\n", "YOLO"),
    "voc/a.xml": ("<annotation><object><name>a</name></object></annotation>", "Pascal VOC"),
    "cvat.xml": ('<?xml version="1.0"?>\n<annotations><image id="0"/></annotations>', "CVAT"),
    "boxes.csv": ("file,x,y\n", "a table"),
}


@pytest.mark.parametrize("name", FORMS)
def test_other_tools_files_are_named_as_what_they_are(tmp_path, name, capsys):
    text, form = FORMS[name]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["data", "check", "coco-folder", "--data-path", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert form in said and "export COCO's JSON" in said and said.count("\n") == 1
