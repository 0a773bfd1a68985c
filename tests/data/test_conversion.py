"""Annotations of other tools: read as they are meant, what is left out named, and nothing lost on the way back."""

import json

import numpy as np
import pytest
from PIL import Image

import tool_files
from coco_files import coco_folder
from crosshead.data.coco.rle import decode, encode
from crosshead.data.conversion.annotated import DrawnObject, outlined
from crosshead.data.conversion.convert import convert, told_form
from crosshead.data.conversion.shapes import pixels_of
from crosshead.data.conversion.tiling import Tiling, cut_object, tile_of
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe import default_recipe
from tool_files import BOX, SIZE, TRIANGLE

MAKERS = {
    "yolo": tool_files.yolo,
    "voc": tool_files.voc,
    "labelme": tool_files.labelme,
    "cvat": tool_files.cvat,
    "csv": tool_files.table,
    "masks": tool_files.masks,
}


def read(root, dest, **options):
    """(the report, the entries of all COCO files by picture's name)."""
    report = convert(root, dest, **options)
    found = {}
    for file in report.written.files.values():
        said = json.loads(file.read_text())
        names = {entry["id"]: entry["name"] for entry in said["categories"]}
        for image in said["images"]:
            own = [entry for entry in said["annotations"] if entry["image_id"] == image["id"]]
            found[image["file_name"]] = [entry | {"label": names[entry["category_id"]]} for entry in own]
    return report, found


def corners(entry):
    x, y, wide, high = entry["bbox"]
    return pytest.approx((x, y, x + wide, y + high), abs=1e-6)


@pytest.mark.parametrize("form", MAKERS)
def test_each_form_is_told_from_its_files(tmp_path, form):
    assert told_form(MAKERS[form](tmp_path)) == form


def test_yolo(tmp_path):
    report, found = read(tool_files.yolo(tmp_path / "in"), tmp_path / "out")
    red, green = found["train/images/p0.jpg"]
    assert (red["label"], green["label"]) == ("red", "green") and corners(red) == BOX
    assert np.reshape(green["segmentation"][0], (-1, 2)) == pytest.approx(np.array(TRIANGLE), abs=1e-6)
    assert "segmentation" not in red and green["area"] == pytest.approx(25 * 25 / 2)
    assert found["train/images/p1.jpg"] == found["valid/images/p2.jpg"] == []
    assert report.written.pictures == {"train": 2, "val": 1}
    assert report.annotations.class_names == ("green", "red") and "no text" in report.annotations.notes[0]


def test_voc_counts_from_one_and_calls_difficult_what_is_judged_by_nobody(tmp_path):
    report, found = read(tool_files.voc(tmp_path / "in"), tmp_path / "out")
    red, green = found["000000.jpg"]
    assert corners(red) == BOX and not red["iscrowd"]
    assert (0, 0, *SIZE) == corners(green) and green["iscrowd"]
    assert report.written.pictures == {"train": 1, "val": 1}  # of val although trainval has it too
    left = report.annotations.left_out.counts
    assert left["pictures without annotations"] == 1 and left["parts of objects"] == 2
    assert left["remarks on objects: truncated"] == left["remarks on objects: pose"] == 2


def test_voc_of_tools_that_count_from_zero(tmp_path):
    root = tool_files.voc(tmp_path / "in")
    file = root / "VOCdevkit/VOC2007/Annotations/000000.xml"
    file.write_text(file.read_text().replace("<xmin>9<", "<xmin>0<"))
    report, found = read(root, tmp_path / "out")
    assert found["000000.jpg"][0]["bbox"][:2] == [0, 11] and "from 0" in report.annotations.notes[0]


def test_labelme(tmp_path):
    report, found = read(tool_files.labelme(tmp_path / "in"), tmp_path / "out")
    red, green, group, disc, mask = found["p0.jpg"]
    assert corners(red) == BOX and "segmentation" not in red
    assert green["segmentation"] == [np.ravel(TRIANGLE).tolist()]
    assert len(group["segmentation"]) == 2 and group["area"] == pytest.approx(16 + 8)
    assert disc["area"] == pytest.approx(np.pi * 25, rel=2e-3) and corners(disc) == (35, 25, 45, 35)
    assert mask["area"] == 15 and corners(mask) == (22, 41, 27, 44)
    assert report.annotations.left_out.counts == {"shapes of type line": 1, "shapes of type point": 1}
    with Image.open(tmp_path / "out/images/p1.jpg") as inside:
        assert inside.size == SIZE and found["p1.jpg"] == []


def test_cvat(tmp_path):
    report, found = read(tool_files.cvat(tmp_path / "in"), tmp_path / "out")
    red, mask, ellipse, turned, green = found["sub/p0.jpg"]  # the later z_order is last
    assert corners(red) == BOX and green["segmentation"] == [np.ravel(TRIANGLE).tolist()]
    assert mask["area"] == 7 and corners(mask) == (41, 2, 45, 4)
    assert ellipse["area"] == pytest.approx(np.pi * 24, rel=2e-3)
    assert corners(turned) == (43, 25, 47, 35) and turned["area"] == pytest.approx(40)
    assert report.written.pictures == {"train": 1, "val": 1}
    assert report.annotations.class_names == ("red", "green")
    assert report.annotations.left_out.counts == {
        "attributes of objects": 1,
        "remarks on objects: occluded": 1,
        "shapes of type polyline": 1,
        "shapes of type tag": 1,
    }


@pytest.mark.parametrize("kind", tool_files.TABLES)
def test_tables(tmp_path, kind):
    report, found = read(tool_files.table(tmp_path / "in", kind), tmp_path / "out")
    assert [entry["label"] for entry in found["p0.jpg"]] == ["red"] and corners(found["p0.jpg"][0]) == BOX
    assert corners(found["p1.jpg"][0]) == (1, 2, 3, 4)
    if kind == "keras":
        assert found["p2.jpg"] == []  # a row without a box
    else:
        assert report.annotations.left_out.counts == {"pictures without a row": 1}


def test_binary_masks_become_maps(tmp_path):
    report = convert(tool_files.masks(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out/classes.txt").read_text() == "background\nobject\n"
    for k in range(3):
        numbers = np.asarray(Image.open(tmp_path / f"out/maps/p{k}.png"))
        expected = np.zeros_like(numbers)
        expected[9 * k : 9 * k + 16, 17:41] = 1
        assert np.mean(numbers != expected) == (0 if k < 2 else pytest.approx(0, abs=0.01))
    assert any("grey pixels" in reason for reason in report.annotations.left_out.counts)
    splits = open_splits(default_recipe(["data.name=map-folder", f"data.root={tmp_path / 'out'}"]))
    assert splits.train.sample(0)[1].max() == 1


def test_objects_become_maps(tmp_path):
    convert(tool_files.cvat(tmp_path / "in"), tmp_path / "out", layout="maps")
    numbers = np.asarray(Image.open(tmp_path / "out/maps/train/sub/p0.png"))
    assert (tmp_path / "out/classes.txt").read_text().split() == ["background", "red", "green"]
    assert numbers[20, 55] == 2 and numbers[2, 42] == 1 and numbers[20, 20] == 0  # a box alone is not drawn


@pytest.mark.parametrize("form", ["coco", "yolo", "csv"])
def test_what_is_written_is_read_back(tmp_path, form):
    """All of it, where a form has room for it: COCO's own file keeps crowds, areas, polygons and run lengths."""
    _, first = read(coco_folder(tmp_path / "in"), tmp_path / "one")
    report = convert(tmp_path / "one", tmp_path / "two", layout=form)
    if form == "coco":
        assert (tmp_path / "two/annotations.json").read_text() == (
            tmp_path / "one/annotations.json"
        ).read_text()
        return
    _, second = read(tmp_path / "two", tmp_path / "three")
    assert report.annotations.left_out.counts  # crowds, and outlines of several parts
    for name, entries in first.items():
        whole = [entry for entry in entries if not entry["iscrowd"]]
        for entry, again in zip(whole, second[name], strict=True):
            assert again["label"] == entry["label"]
            assert again["bbox"] == pytest.approx(entry["bbox"], abs=1e-4)
            if form == "yolo" and len(entry["segmentation"]) == 1:
                assert again["segmentation"][0] == pytest.approx(entry["segmentation"][0], abs=1e-4)


def test_a_coco_folder_that_is_written_trains(tmp_path):
    convert(tool_files.labelme(tmp_path / "in"), tmp_path / "out")
    splits = open_splits(
        default_recipe(["data.name=coco-folder", f"data.root={tmp_path / 'out'}", "data.validation=0.5"])
    )
    assert splits.info.class_names == ("disc", "green", "red") and not splits.passed_over
    splits.refuse_known_faults(splits.data)


def test_classes_in_an_order_of_ones_own(tmp_path):
    (tmp_path / "names.txt").write_text("red\nblue\n")
    report, found = read(tool_files.yolo(tmp_path / "in"), tmp_path / "out", classes=tmp_path / "names.txt")
    assert report.annotations.class_names == ("red", "blue") and len(found["train/images/p0.jpg"]) == 1
    assert report.annotations.left_out.counts == {"objects of class 'green', not in the list": 1}


def _break_yolo(root):
    (root / "train/labels/p0.txt").write_text("1 20 20 10 10\n")


def _number_yolo(root):
    (root / "train/labels/p0.txt").write_text("7 0.5 0.5 0.1 0.1\n")


def _entity(root):
    for file in (root / "VOCdevkit").rglob("*.xml"):
        file.write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + file.read_text())


def _two_forms(root):
    (root / "boxes.csv").write_text(tool_files.TABLES["deepforest"])


FAULTS = [
    ("yolo", _break_yolo, "shares of the picture"),
    ("yolo", _number_yolo, "class 7, and the list has 2 names"),
    ("yolo", _two_forms, "say which with --from"),
    ("voc", _entity, "declares a document type"),
    (
        "cvat",
        lambda root: (root / "annotations.xml").write_text("<annotations><track/></annotations>"),
        "video",
    ),
    ("csv", lambda root: (root / "annotations.csv").write_text("a,b\n1,2\n"), "no column of pictures"),
    ("csv", lambda root: (root / "annotations.csv").unlink(), "no annotations of a known kind"),
]


@pytest.mark.parametrize(("form", "fault", "said"), FAULTS)
def test_what_can_not_be_meant_is_refused(tmp_path, form, fault, said):
    fault(MAKERS[form](tmp_path / "in"))
    with pytest.raises(ValueError, match=said):
        convert(tmp_path / "in", tmp_path / "out")


def test_broken_objects_and_pictures_cost_themselves(tmp_path):
    root = tool_files.table(tmp_path / "in")
    with open(root / "annotations.csv", "a") as file:
        file.write("p0.jpg,5,5,5,9,red\np0.jpg,x,5,6,9,red\np0.jpg,70,5,80,9,red\nmissing.jpg,1,2,3,4,red\n")
        file.write("p0.jpg,8,10,30,30,red\n")
    (root / "images/p1.jpg").write_bytes(b"no picture")
    report, found = read(root, tmp_path / "out")
    assert list(found) == ["p0.jpg"] and len(found["p0.jpg"]) == 1
    assert report.annotations.left_out.counts == {
        "rows without their picture": 1,
        "rows that say an object twice": 1,
        "objects without width or height": 1,
        "objects with numbers that are not finite": 1,
        "objects outside their picture": 1,
        "pictures that can't be read": 1,
        "pictures without a row": 1,
    }


def drawn(shape):
    """An object on a picture of 90 x 70 pixels, as polygons, a mask or a box."""
    polygon = np.array([[10.0, 8.0], [58.0, 12.0], [50.0, 60.0], [30.0, 20.0], [14.0, 50.0]])
    each = outlined("a", [polygon])
    if shape == "mask":
        return outlined("a", mask=pixels_of(each, (70, 90)))
    return each if shape == "polygon" else DrawnObject("a", each.box)


@pytest.mark.parametrize("shape", ["polygon", "mask"])
def test_the_tiles_of_an_object_are_the_object(shape):
    """Put together at their places, they have its pixels: exactly of masks, but for borders of polygons."""
    each, tiling = drawn(shape), Tiling(32, 0.25, 0.0)
    whole = decode(pixels_of(each, (70, 90)))
    again = np.zeros_like(whole)
    for place in tiling.places((70, 90)):
        top, left, height, width = place
        assert (height, width) == (32, 32)
        if (cut := cut_object(each, place, tiling)) is not None:
            piece = decode(pixels_of(cut, (height, width)))
            again[top : top + height, left : left + width] |= piece
            rows, columns = np.nonzero(piece)
            if shape == "mask":
                assert cut.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.mean(again != whole) <= (0 if shape == "mask" else 0.02)


def test_less_of_an_object_than_is_wanted_is_a_crowd():
    each, tiling = DrawnObject("a", (20.0, 10.0, 40.0, 30.0)), Tiling(32, 0.0, 0.5)
    assert cut_object(each, (0, 0, 32, 32), tiling) == DrawnObject("a", (20, 10, 32, 30))
    right = cut_object(each, (0, 32, 32, 32), tiling)
    assert right == DrawnObject("a", (0, 10, 8, 30), crowd=True)
    assert cut_object(each, (0, 64, 32, 32), tiling) is None
    wide = DrawnObject("a", (-10.0, 0.0, 100.0, 10.0))  # a tile can show no more of it
    assert not cut_object(wide, (0, 32, 32, 32), tiling).crowd


def test_large_pictures_are_tiled_and_the_others_left_whole_for_windows(tmp_path):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "in/images").mkdir(parents=True)
    wide = np.arange(200 * 150, dtype=np.uint16).reshape(150, 200) * 2
    for k in range(5):
        Image.fromarray(wide).save(tmp_path / f"in/images/{k}.png")  # 16 bits stay 16 bits
        content["images"].append({"id": k + 1, "file_name": f"{k}.png", "width": 200, "height": 150})
        content["annotations"].append(
            {
                "id": k + 1,
                "image_id": k + 1,
                "category_id": 1,
                "bbox": [5, 5, 20, 20],
                "area": 400,
                "iscrowd": 0,
            }
        )
    (tmp_path / "in/annotations.json").write_text(json.dumps(content))
    report, found = read(tmp_path / "in", tmp_path / "out", tiling=Tiling(64, empty=0.3))
    assert report.written.pictures["val"] == 1  # a fifth of the pictures, none of whose tiles is trained on
    (whole,) = json.loads((tmp_path / "out/val.json").read_text())["images"]
    assert whole["width"] == 200 and whole["file_name"] in {f"{k}.png" for k in range(5)}
    tiles = [name for name in found if name != whole["file_name"]]
    assert not any(name.startswith(whole["file_name"][:1] + "_png") for name in tiles)
    possible = 4 * len(list(Tiling(64).places((150, 200))))
    empty = [name for name in tiles if not found[name]]
    assert 0.1 < len(empty) / (possible - 4) < 0.5 and len(tiles) - len(empty) == 4
    name = next(name for name in tiles if not found[name])
    top, left = (int(part[1:]) for part in name[:-4].split("_")[-2:])
    pixels = np.asarray(Image.open(tmp_path / "out/images" / name))
    assert pixels.dtype == np.uint16 and (pixels == wide[top : top + 64, left : left + 64]).all()


def test_maps_are_tiled_with_their_pictures(tmp_path):
    report = convert(
        tool_files.masks(tmp_path / "in"), tmp_path / "out", tiling=Tiling(32, empty=1), validation=0.34
    )
    for file in (tmp_path / "out/maps/train").iterdir():
        k = int(file.name[1])
        top, left = (int(part[1:]) for part in file.stem.split("_")[-2:])
        whole = np.asarray(Image.open(tmp_path / "in/images" / f"p{k}.jpg"))
        tile = np.asarray(Image.open(tmp_path / "out/images/train" / file.name))
        assert (tile == whole[top : top + 32, left : left + 32]).all()
        if k < 2:
            drawn = np.asarray(Image.open(tmp_path / "in/masks" / f"p{k}_mask.png")) > 0
            assert (np.asarray(Image.open(file)) == drawn[top : top + 32, left : left + 32]).all()
    assert report.written.pictures["val"] == 1


def test_exif_turns_a_tile_as_it_turns_the_picture(tmp_path):
    root = tool_files.table(tmp_path / "in")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "images/p0.jpg").unlink()
    Image.fromarray(pixels).save(root / "images/p0.png", exif=exif)  # upright it is 48 x 64
    report = convert(
        root, tmp_path / "out", tiling=Tiling(32, empty=1), validation=0.5, tile_also=("validation",)
    )
    assert next(p for p in report.annotations.pictures if p.name == "p0.png").size == (64, 48)
    upright = np.rot90(pixels, -1)
    for file in (tmp_path / "out/images").glob("p0_png*"):
        top, left = (int(part[1:]) for part in file.stem.split("_")[-2:])
        assert (np.asarray(Image.open(file)) == upright[top : top + 32, left : left + 32]).all()


def test_a_tile_as_large_as_the_picture_is_the_picture():
    from crosshead.data.conversion.annotated import AnnotatedPicture

    each = AnnotatedPicture(None, "a/b.jpg", (30, 20), (drawn("box"),))
    tiling = Tiling(32)
    (place,) = tiling.places(each.size)
    assert tile_of(each, place, tiling) == each


def test_run_lengths_of_a_cut_mask():
    mask = np.zeros((70, 90), bool)
    mask[60:, 80:] = True
    cut = cut_object(outlined("a", mask=encode(mask)), (40, 60, 30, 30), Tiling(32))
    assert (decode(cut.mask) == mask[40:, 60:]).all() and not cut.crowd


def test_a_write_that_fails_leaves_nothing_that_would_pass_for_whole(tmp_path, monkeypatch):
    from crosshead.data.conversion import layouts

    root, out = tool_files.voc(tmp_path / "in"), tmp_path / "out"

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:  # the annotations, the last that is written
        patch.setattr(layouts.json, "dumps", full)
        with pytest.raises(OSError, match="No space left"):
            convert(root, out)
    assert not list(out.iterdir())
    assert convert(root, out).written  # and the same command works again
