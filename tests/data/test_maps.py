"""Pictures with maps: each format's own layout, and what is wrong with a pair, by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosshead.data.datasets.dense import BeyondClasses
from crosshead.data.decode.images import BrokenImage
from crosshead.data.tools.check import check_images
from crosshead.data.tools.pack import pack
from crosshead.recipe.schema import DataConfig
from map_files import ade20k, map_folder, save_map, voc
from opening import open_data, recipe_of


def test_ade20k_counts_from_one_and_zero_is_no_class(tmp_path):
    splits = open_data(DataConfig(name="ade20k", root=str(ade20k(tmp_path))), seed=0)
    assert (len(splits.train), len(splits.validation), splits.test) == (6, 2, None)
    assert splits.info.class_names[:2] == ("wall", "building") and len(splits.info.class_names) == 150
    picture, classes = splits.train.sample(0)
    assert picture.mode == "RGB" and classes.shape == (picture.height, picture.width)
    raw = np.asarray(Image.open(splits.train.targets[0])).astype(int)
    assert np.array_equal(classes, np.where(raw == 0, 255, raw - 1))
    assert {0, 149, 255} <= set(np.unique(classes))


def test_vocs_palette_gives_its_indices(tmp_path):
    splits = open_data(DataConfig(name="voc", root=str(voc(tmp_path))), seed=0)
    assert splits.train.name(0).endswith("2007_000000.jpg") and len(splits.info.class_names) == 21
    _, classes = splits.validation.sample(0)
    assert set(np.unique(classes)) == {0, 20, 255}
    assert open_data(DataConfig(name="voc", root=str(tmp_path / "VOCdevkit" / "VOC2012")), seed=0)


def test_a_folder_without_a_validation_split_holds_some_out(tmp_path):
    splits = open_data(DataConfig(name="map-folder", root=str(map_folder(tmp_path)), validation=0.5), seed=0)
    assert splits.held_out and len(splits.train) == len(splits.validation) == 4
    assert splits.info.class_names == ("ground", "sky", "tree")
    names = {part.name(i) for part in (splits.train, splits.validation) for i in range(4)}
    assert len(names) == 8


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: save_map(file, np.zeros((3, 5), np.uint8)), "5 x 3 pixels, but the picture has"),
        (
            lambda file: save_map(file, np.full((20, 24), 3, np.uint8)),
            "class numbers 3, but there are 0 to 2, and 255 for no class. Is 2 the last number of your maps",
        ),
        (lambda file: Image.new("RGB", (24, 20)).save(file), "mode RGB"),
        (lambda file: file.write_bytes(file.read_bytes()[:50]), "its map"),
        (lambda file: file.unlink(), "no map; expected"),
        (lambda file: Image.new("I;16", (24, 20), 300).save(file), "class numbers from 300 to 300"),
    ],
)
def test_what_is_wrong_with_a_map_is_said_of_its_picture(tmp_path, spoil, reason):
    root = map_folder(tmp_path)
    spoil(root / "maps" / "2.png")
    data = DataConfig(name="map-folder", root=str(root), validation=0.5)
    report = check_images(open_data(data))
    ((name, why),) = report.broken
    assert name.endswith("images/2.png") and reason in why
    assert sum(part.readable for part in report.splits.values()) == 7
    splits = open_data(data, seed=0)
    with pytest.raises((BrokenImage, BeyondClasses), match=r"2\.png"):
        for part in (splits.train, splits.validation):
            [part.sample(i) for i in range(4)]


def test_numbers_beyond_the_list_are_refused_whatever_the_policy(tmp_path):
    """A list without its background: its names are one off, and pictures of the last class alone would be left out."""
    root = map_folder(tmp_path)
    (root / "classes.txt").write_text("sky\ntree\n")
    save_map(root / "maps" / "2.png", np.full((20, 24), 2, np.uint8))
    data = DataConfig(name="map-folder", root=str(root), validation=0.5, on_broken_eval="skip")
    with pytest.raises(BeyondClasses, match=r"where 0 is background, it stands there as a class of its own"):
        open_data(data, seed=0).refuse_known_faults(data)


def test_a_validation_map_that_is_missing_is_refused_before_training(tmp_path):
    root = ade20k(tmp_path)
    (missing,) = (root / "annotations" / "validation").glob("*_00000002.png")
    missing.unlink()
    data = DataConfig(name="ade20k", root=str(root))
    with pytest.raises(BrokenImage, match=r"_00000002\.jpg.*no map; expected"):
        open_data(data, seed=0).refuse_known_faults(data)
    passing = data.model_copy(update={"on_broken_eval": "skip"})
    open_data(passing, seed=0).refuse_known_faults(passing)


def test_the_check_counts_pixels(tmp_path):
    report = check_images(
        open_data(DataConfig(name="map-folder", root=str(map_folder(tmp_path)), validation=0.5))
    )
    train = report.splits["train"]
    assert train.counted == "pixels" and train.total == train.readable == 4
    assert sum(train.counts) == 4 * (20 * 24 - 24), "a row of each map has no class"


def test_layouts_that_are_none_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="images/training, images/validation, annotations"):
        open_data(DataConfig(name="ade20k", root=str(tmp_path)), seed=0)
    with pytest.raises(ValueError, match="SegmentationClass"):
        open_data(DataConfig(name="voc", root=str(tmp_path)), seed=0)
    root = map_folder(tmp_path)
    data = DataConfig(name="map-folder", root=str(root), validation=0.5)
    (root / "classes.txt").write_text("ground\nground\n")
    with pytest.raises(ValueError, match="2 lines, 1 different"):
        open_data(data, seed=0)
    (root / "classes.txt").write_text("ground\nsky\n")
    Image.new("RGB", (24, 20)).save(root / "images" / "2.jpg")
    with pytest.raises(ValueError, match="have one name"):
        open_data(data, seed=0)
    (root / "images" / "2.jpg").unlink()
    for file in (root / "maps").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="8 of 8 pictures have no map"):
        open_data(data, seed=0)


def test_maps_without_a_picture_are_told(tmp_path):
    root = map_folder(tmp_path)
    save_map(root / "maps" / "extra.png", np.zeros((20, 24), np.uint8))
    splits = open_data(DataConfig(name="map-folder", root=str(root), validation=0.5), seed=0)
    ((file, why),) = splits.passed_over
    assert file.endswith("extra.png") and why == "a map without a picture"


@pytest.mark.parametrize("make", [ade20k, map_folder])
def test_packed_maps_are_those_of_the_files(tmp_path, make):
    name = {ade20k: "ade20k", map_folder: "map-folder"}[make]
    root, out = make(tmp_path / "data"), tmp_path / "out"
    (lost := sorted(root.glob("[am]*s/**/*.png"))[-1]).unlink()
    data = DataConfig(name=name, root=str(root), validation=0.25)
    report = pack(recipe_of(data), out, shard_megabytes=0.003)
    assert report.dataset == "map-shards" and sum(report.samples.values()) == 7 and report.shards["train"] > 2
    assert [lost.stem == Path(name).stem for name, _ in report.broken] == [True]
    before, after = (
        open_data(data, seed=0),
        open_data(DataConfig(name="map-shards", root=str(out)), seed=0),
    )
    assert after.info.class_names == before.info.class_names
    for part, images in before.parts().items():
        mine = {_digest(images, i) for i in range(len(images)) if lost.stem != Path(images.name(i)).stem}
        packed = getattr(after, part)
        assert mine == {_digest(packed, i) for i in range(len(packed))}
        assert "@" in packed.subset(np.array([0])).name(0)
    for shard in (out / "maps").glob("val*"):
        shard.unlink()
    with pytest.raises(ValueError, match=r"of val in images and in maps|of val's shards missing"):
        open_data(DataConfig(name="map-shards", root=str(out)), seed=0)


def _digest(images, i):
    picture, classes = images.sample(i)
    return picture.tobytes(), classes.tobytes()
