"""COCO's files: their layouts, what is read of them, and what is wrong with them, by name."""

import io
import json
import math
import os
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import crosshead.data.datasets.scenes as scenes
from coco_files import SIZE, coco, coco_folder, instances, write
from crosshead.cli import main
from crosshead.data.coco import sections
from crosshead.data.coco.reader import read_instances
from crosshead.data.datasets.fingerprint import describe_changes, fingerprint
from crosshead.data.decode.images import BrokenImage
from crosshead.data.tools.check import check_images
from crosshead.data.tools.pack import pack
from crosshead.recipe.schema import DataConfig
from opening import open_data, recipe_of


def config(root, name="coco-folder", **more):
    return DataConfig(name=name, root=str(root), **({"validation": 0.4} | more))


def read(content, **more):
    return read_instances(io.StringIO(json.dumps(content)), max_megapixels=1, **more)


def test_the_official_layout(tmp_path):
    splits = open_data(config(coco(tmp_path), "coco"), seed=0)
    assert (len(splits.train), len(splits.validation), splits.test) == (4, 3, None)
    assert splits.info.class_names == ("person", "stop sign", "toothbrush")
    assert splits.info.class_ids == (1, 13, 90) and not splits.notes and not splits.passed_over
    assert (splits.train.counted, splits.train.masked) == ("objects", True)
    picture, objects = splits.validation.sample(1)
    assert picture.size == SIZE and objects.size == SIZE[::-1] and splits.validation.picture_id(1) == 102
    assert objects.boxes.tolist() == [[2.5, 3, 12.5, 11.25], [14, 10, 23, 25], [30, 0, 35, 30]]
    assert objects.labels.tolist() == [0, 2, 1] and objects.crowd.tolist() == [False, False, True]
    assert objects.areas.tolist() == [41.25, 67.5, 75]
    empty = splits.validation.sample(2)[1]
    assert len(empty) == 0 and empty.boxes.shape == (0, 4) and empty.masks == ()
    one = splits.train.subset(np.array([3, 1]))
    assert one.name(1).endswith("train2017/000002.png") and one.picture_id(0) == 4
    (tmp_path / "train2017").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"train2017 missing; expected ROOT/annotations/instances"):
        open_data(config(tmp_path, "coco"), seed=0)


def test_masks_are_pycocotools(tmp_path, capsys):
    """Polygons that leave the picture, cross themselves or are tiny, and run lengths in both forms."""
    content, draw = instances(count=2), np.random.default_rng(0)
    first = content["annotations"][0]
    for k in range(40):
        outline = [
            (draw.random(2 * draw.integers(3, 9)) * 60 - 10).round(2).tolist() for _ in range(k % 3 + 1)
        ]
        content["annotations"].append(first | {"id": 500 + k, "segmentation": outline})
    text = {"size": [30, 40], "counts": "e0191O1`1"}  # of another size: replaced below
    content["annotations"].append(first | {"id": 900, "segmentation": text})
    peer = COCO()
    peer.dataset = content
    mask = np.zeros((30, 40), np.uint8, order="F")
    mask[3:17, 5:9] = 1
    from pycocotools import mask as pycoco

    coded = pycoco.encode(mask)
    text["counts"] = coded["counts"].decode()
    peer.createIndex()
    objects = read(content).instances.objects(0)
    want = [peer.annToMask(annotation) for annotation in peer.loadAnns(peer.getAnnIds(1))]
    assert len(want) == 44 and np.array_equal(objects.whole_masks(), np.stack(want).astype(bool))


@pytest.mark.parametrize("width", [1, 7, 10_000])
def test_a_file_is_read_through_a_window_of_any_width(monkeypatch, width):
    monkeypatch.setattr(sections, "_CHUNK", width)
    content = {"note": '[}, \\" \u00e9', "number": 12345, **instances()}
    got = read_instances(io.StringIO(json.dumps(content, indent=1)), max_megapixels=1)
    assert got.instances.ids.tolist() == [entry["id"] for entry in content["annotations"]]
    assert got.faults == {} and got.stray == () and got.beyond == 0
    assert got.instances.as_coco(0)["annotations"][1] == content["annotations"][1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected { at character 0, got the end"),
        ("[1]", "expected {"),
        ('{"categories": [{"id": 1, "name": "a"}, ', "damaged at character 40"),
        (
            '{"categories": [{"id": 1, "name": "a"} {}',
            "expected , or ] behind an entry of 'categories', at char",
        ),
        ('{"images": 3}', "'images' is no list"),
        ('{"images": []} x', "something follows the end of the data, at character 15"),
        ('{"info": 1 "images": []}', "expected , at character 11"),
        ('{"images": [], "images": []}', "'images' is there twice"),
        ('{"info": ' + "[" * 200_000, "nested too deeply|damaged"),
        ('{"images": []}', "no list of annotations and of categories"),
        ('{"images": [], "annotations": [], "categories": []}', "no picture in it|categories is empty"),
        ('{"images": [{"id": 1.5}]}', r"images\[0\]: id is 1.5, expected a whole number"),
        ('{"images": [{"id": 1, "height": 2, "width": 2}]}', r"images\[0\] \(id 1\): file_name is None"),
        ('{"images": [7]}', r"images\[0\]: id is None"),
        ('{"annotations": [{"id": 1, "image_id": "a"}]}', r"annotations\[0\]: image_id is 'a'"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "id 1 is 'a' already"),
    ],
)
def test_damaged_files_are_named_with_the_place(tmp_path, text, reason):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(ValueError, match=reason) as caught:
        open_data(config(tmp_path), seed=0)
    assert "train.json: " in str(caught.value) and "\n" not in str(caught.value)


NAN, INF = math.nan, math.inf
WRONG = [
    ({"bbox": [1, 2, NAN, 4]}, r"box \[1, 2, nan, 4\] is not finite"),
    ({"bbox": [1, 2, 0, 4]}, r"box \[1, 2, 0, 4\] is empty"),
    ({"bbox": [41, 2, 5, 4]}, r"box \[41, 2, 5, 4\] lies outside the picture of 40 x 30"),
    ({"bbox": [1, -9, 5, 4]}, "lies outside"),
    ({"bbox": [1, 2, 5, 1e300]}, "reaches far outside the picture of 40 x 30"),
    ({"bbox": [1, 2, 3]}, r"bbox is \[1, 2, 3\], expected x, y, width, height"),
    ({"bbox": [1, 2, 3, "4"]}, "expected x, y, width, height"),
    ({"area": INF}, "area is inf"),
    ({"area": -1}, "area is -1"),
    ({"area": "7"}, "area is '7', expected a number of pixels"),
    ({"iscrowd": 2}, "iscrowd is 2, expected 0 or 1"),
    ({"category_id": 2}, "category 2 is not in the file's list"),
    ({"segmentation": [[1, 2, 3, 4]]}, "a polygon of 4 numbers; expected x and y of three points or more"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6], []]}, "a polygon of 0 numbers"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "a polygon of 7 numbers"),
    ({"segmentation": [[1, 2, 3, 4, 5, NAN]]}, "a polygon has a number that is not finite"),
    ({"segmentation": [[1, 2, 3, 4, 5, 1e9]]}, "a polygon lies far outside the picture of 40 x 30"),
    ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "holds something that is no number"),
    ({"segmentation": [1, 2, 3, 4, 5, 6]}, "one list of numbers, expected a list of polygons"),
    ({"segmentation": "none"}, "segmentation is 'none'"),
    ({"segmentation": {"size": [10**6, 10**6], "counts": [10**12]}}, "run lengths of 1000000 x 1000000 pixels, but"),
    ({"segmentation": {"size": [40, 30], "counts": [1200]}}, "run lengths of 30 x 40 pixels, but the picture has 40"),
    ({"segmentation": {"size": [30, 40], "counts": [10**12]}}, "pixels, but the picture has 1200"),
    ({"segmentation": {"size": [30, 40], "counts": [10**400]}}, "holds something that is no number"),
    ({"segmentation": {"size": [30, 40], "counts": [-5, 1205]}}, "run lengths with a negative count"),
    ({"segmentation": {"size": [30, 40], "counts": "~"}}, "text of run lengths is damaged"),
    ({"segmentation": {"size": [30, 40], "counts": "PPPPPPPPPPPPPP"}}, "text of run lengths is"),
    ({"segmentation": {"size": [30, 10**12], "counts": []}}, "run lengths of size"),
    ({"segmentation": {"size": [30, 40]}}, "neither text nor a list"),
    ({"id": 11}, "this number is there more than once"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_what_is_wrong_with_an_object_is_said_of_its_picture(change, reason):
    content = instances()
    content["annotations"][0] |= change
    found = read(content)
    assert list(found.faults) == [0]
    number = change.get("id", 10)
    assert re.match(f"annotation {number}: .*{reason}", found.faults[0]), found.faults
    assert len(found.instances.objects(1)) == 3, "the next picture's objects are their own"


def test_what_is_wrong_with_a_picture(tmp_path):
    content = instances(count=8)
    content["images"][1]["id"] = 1
    content["images"][2]["height"] = 0
    content["images"][3]["height"] = 10**8
    content["images"][4]["file_name"] = content["images"][5]["file_name"]
    found = read(content).faults
    assert found.keys() == {0, 1, 2, 3, 4, 5}
    assert found[0] == found[1] == "image id 1 is there more than once"
    assert "40 x 0 pixels" in found[2] and "above 1 megapixels" in found[3]
    assert found[5] == "image 6: another entry has this file_name too"


def test_pictures_that_are_missing_or_lead_astray(tmp_path):
    content = instances(count=6)
    content["images"][3]["file_name"] = "../outside.png"
    write(tmp_path / "data" / "train.json", content, tmp_path / "data" / "images")
    images = tmp_path / "data" / "images"
    (images / "000001.png").unlink()
    Image.new("RGB", (9, 9)).save(images / "000002.png")
    (images / "000003.png").unlink()
    os.symlink(tmp_path / "data" / "outside.png", tmp_path / "link.png")
    os.symlink(tmp_path / "away.png", images / "000003.png")
    Image.new("RGB", SIZE).save(images / "more.png")
    splits = open_data(config(tmp_path / "data", validation=0.2), seed=0)
    reasons = {}
    for part in (splits.train, splits.validation):
        for i in range(len(part)):
            try:
                part.sample(i)
            except BrokenImage as broken:
                reasons[part.picture_id(i)] = str(broken)
    assert reasons.keys() == {1, 2, 3, 4}
    assert "000001.png: the picture is missing below" in reasons[1]
    assert "000002.png: 9 x 9 pixels, but its annotations are for 40 x 30" in reasons[2]
    assert "a link that leaves the data folder" in reasons[3] and "leaves the data folder" in reasons[4]
    known = [each for part in (splits.train, splits.validation) for each in part.known_faults]
    assert len(known) == 3, "the size is not known before the picture is read"
    (note,) = splits.notes
    assert "3 of 6 pictures count as broken" in note and "000001.png" in note
    assert [why for _, why in splits.passed_over] == ["no entry in a COCO file"]
    with pytest.raises(
        ValueError, match=r"3 of 6 pictures are broken \(data.max_broken is 2\): .*000001.png"
    ):
        open_data(config(tmp_path / "data", max_broken=2), seed=0)


def test_objects_of_no_picture_are_counted(tmp_path):
    content = instances()
    content["annotations"][0]["image_id"] = 77
    content["annotations"][3]["bbox"] = [-3, 3, 10, 8]
    write(tmp_path / "train.json", content, tmp_path / "images")
    splits = open_data(config(tmp_path), seed=0)
    assert (
        "1 annotations are of no picture in it: annotation 10 of image 77; they are left out"
        in splits.notes[0]
    )
    assert "1 boxes reach beyond their pictures" in splits.notes[1]
    with pytest.raises(ValueError, match=r"annotation 10 of image 77 \(data.max_broken is 0\)"):
        open_data(config(tmp_path, max_broken=0), seed=0)


def test_boxes_alone(tmp_path):
    content = instances()
    for annotation in content["annotations"]:
        del annotation["segmentation"], annotation["area"]
    write(tmp_path / "train.json", content, tmp_path)
    splits = open_data(config(tmp_path), seed=0)
    assert not splits.train.masked
    found = {
        part.picture_id(i): part.sample(i)[1]
        for part in (splits.train, splits.validation)
        for i in range(len(part))
    }
    assert found[1].masks is None and found[1].areas.tolist() == [82.5, 135, 150]


LAYOUTS = {
    "images": ("{}.json", "images"),
    "annotations": ("annotations/instances_{}.json", "images"),
    "beside": ("{}/_annotations.coco.json", "{}"),
    "below": ("annotations/{}.json", "images/{}"),
    "root": ("{}.json", "."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_tools(tmp_path, layout):
    file, pictures = LAYOUTS[layout]
    for first, part in ((1, "train"), (11, "valid"), (21, "test")):
        content = instances(first, head="deep/er/" if layout == "root" else "")
        write(tmp_path / file.format(part), content, tmp_path / pictures.format(part))
    splits = open_data(config(tmp_path), seed=0)
    assert not splits.held_out and not splits.notes and not splits.passed_over
    firsts = [part.picture_id(0) for part in (splits.train, splits.validation, splits.test)]
    assert firsts == [1, 11, 21] and len(splits.test.sample(0)[1]) == 3


def test_one_file_holds_a_share_out(tmp_path):
    splits = open_data(config(coco_folder(tmp_path)), seed=0)
    assert splits.held_out and (len(splits.train), len(splits.validation)) == (3, 2)
    ids = {part.picture_id(i) for part in (splits.train, splits.validation) for i in range(len(part))}
    assert ids == {1, 2, 3, 4, 5}


def test_files_that_do_not_go_together(tmp_path):
    root = coco_folder(tmp_path)
    with pytest.raises(ValueError, match="no COCO file; expected"):
        open_data(config(root / "images"), seed=0)
    write(root / "annotations" / "train.json", instances(), root / "images")
    write(root / "annotations" / "val.json", instances(3), root / "images")
    with pytest.raises(ValueError, match=r"000003.png is in .*train.json and in .*val.json"):
        open_data(config(root), seed=0)
    other = instances(11)
    other["categories"] = [{"id": 1, "name": "cat"}, *other["categories"][::2]]
    write(root / "annotations" / "val.json", other, root / "images")
    with pytest.raises(ValueError, match=r"category 1 is 'cat', and 'person' in .*train.json"):
        open_data(config(root), seed=0)
    write(root / "annotations" / "training.json", instances(), root / "images")
    with pytest.raises(ValueError, match="are both of train"):
        open_data(config(root), seed=0)
    write(root / "annotations" / "spare.json", instances(), root / "images")
    with pytest.raises(ValueError, match=r"spare.json: one of 4 COCO files"):
        open_data(config(root), seed=0)


def test_what_a_policy_does_not_pass_over_is_refused_before_training(tmp_path):
    content = instances(count=6)
    content["annotations"][4]["bbox"] = [1, 2, 0, 4]
    write(tmp_path / "train.json", content, tmp_path / "images")
    write(tmp_path / "val.json", instances(11), tmp_path / "images")
    (tmp_path / "images" / "000001.png").unlink()
    data = config(tmp_path, on_broken_train="fail", on_broken_object="picture")
    splits = open_data(data, seed=0)
    wanted = r"000001\.png: the picture is missing .* \(and 1 more of train\); .*data.on_broken_train=skip"
    with pytest.raises(BrokenImage, match=wanted):
        splits.refuse_known_faults(data)
    splits.refuse_known_faults(config(tmp_path))
    (tmp_path / "images" / "000011.png").unlink()
    with pytest.raises(BrokenImage, match=r"000011\.png.*data.on_broken_eval=skip"):
        open_data(config(tmp_path), seed=0).refuse_known_faults(config(tmp_path))


def test_packed_objects_are_those_of_the_files(tmp_path):
    root, out = coco(tmp_path / "data", train=7), tmp_path / "out"
    (root / "train2017" / "000003.png").write_bytes(b"")
    data = config(root, "coco")
    report = pack(recipe_of(data), out, shard_megabytes=0.01)
    assert report.dataset == "object-shards" and report.samples == {"train": 6, "val": 3}
    assert report.shards["train"] > 2 and [name[-10:] for name, _ in report.broken] == ["000003.png"]
    before, after = open_data(data, seed=0), open_data(config(out, "object-shards"), seed=0)
    assert after.info.class_names == before.info.class_names and after.info.class_ids == (1, 13, 90)
    assert all(images.masked for images in after.parts().values())
    for part, images in before.parts().items():
        mine = {digest(images, i) for i in range(len(images)) if images.picture_id(i) != 3}
        packed = getattr(after, part)
        assert mine == {digest(packed, i) for i in range(len(packed))}
        assert "@" in packed.subset(np.array([0])).name(0)
    for shard in (out / "objects").glob("*.index.json"):
        shard.unlink()
    again = open_data(config(out, "object-shards"), seed=0)
    assert digest(again.train, 4) == digest(after.train, 4)
    assert pack(recipe_of(config(out, "object-shards")), tmp_path / "anew").samples == report.samples
    for shard in (out / "objects").glob("val*"):
        shard.unlink()
    with pytest.raises(ValueError, match="of val in images and in objects"):
        open_data(config(out, "object-shards"), seed=0)
    (out / "objects.json").write_text(
        '{"categories": [{"id": 2, "name": "a"}, {"id": 1, "name": "b"}], "masked": true}'
    )
    with pytest.raises(ValueError, match=r"objects\.json: expected categories with rising ids"):
        open_data(config(out, "object-shards"), seed=0)


def digest(images, i):
    picture, objects = images.sample(i)
    own = [each.tolist() for each in (objects.boxes, objects.labels, objects.crowd, objects.areas)]
    return repr((images.picture_id(i), own)), picture.tobytes(), objects.whole_masks().tobytes()


def test_objects_in_shards_are_checked_as_those_in_files(tmp_path):
    pack(recipe_of(config(coco(tmp_path / "data"), "coco")), tmp_path / "out")
    (shard,) = (tmp_path / "out" / "objects").glob("train*.tar")
    body = shard.read_bytes()
    for old, new, reason in (
        (b'"bbox": [2.5, 3.0, 10.0', b'"bbox": [2.5, 3.0, -9.0', "annotation 10: box .* is empty"),
        (b'"image_id": 1,', b'"image_id": 7,', "annotation 10 of image 7"),
        (b'"category_id": 90, ', b'"category_id": 91, ', "annotation 11: category 91"),
        (b'"annotations"', b'"annotation\xff"', "can't decode"),
    ):
        shard.write_bytes(body.replace(old, new))
        train = open_data(config(tmp_path / "out", "object-shards"), seed=0).train
        whys = []
        for i in range(len(train)):
            try:
                train.sample(i)
            except BrokenImage as broken:
                whys.append(str(broken))
        assert whys and any(
            re.search(f"its objects .*objects/train.*json: .*{reason}", why) for why in whys
        ), whys


def test_the_check_counts_objects(tmp_path, capsys):
    root = coco(tmp_path)
    (root / "val2017" / "000102.png").unlink()
    (root / "train2017" / "more.heic").write_bytes(b"x")
    Image.new("RGB", SIZE).save(root / "train2017" / "more.png")
    train = check_images(open_data(config(root, "coco"))).splits["train"]
    assert train.counted == "objects" and train.counts == (3, 0, 3) and train.readable == 4
    assert train.objects == {"small": 6, "medium": 0, "large": 0, "crowds": 3, "empty pictures": 1}
    assert main(["data", "check", "coco", "--data-path", str(root)]) == 1
    out, err = capsys.readouterr()
    assert "objects of class" in out and "empty pictures" in out and "person are 50.0% of the objects" in out
    assert "000102.png: the picture is missing" in err and "no entry in a COCO file" in err


def test_the_check_counts_objects_of_scenes(monkeypatch):
    monkeypatch.setattr(scenes, "LENGTHS", {"train": 4, "validation": 2, "test": 2})
    train = check_images(open_data(DataConfig(name="scenes", image_size=96))).splits["train"]
    assert sum(train.counts) + train.objects["crowds"] >= 8 and train.objects["large"] == 0


def test_a_run_that_goes_on_is_told_of_other_objects(tmp_path):
    root = coco(tmp_path)
    before = fingerprint(open_data(config(root, "coco"), seed=0), str(root))
    assert describe_changes(before, fingerprint(open_data(config(root, "coco"), seed=0), str(root))) == ""
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][1]["segmentation"][0][2] += 1
    file.write_text(json.dumps(content))
    now = fingerprint(open_data(config(root, "coco"), seed=0), str(root))
    assert describe_changes(before, now) == "4 train pictures, as before, with other objects"
