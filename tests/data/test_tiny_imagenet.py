"""Tiny-ImageNet as distributed and as reorganised."""

from pathlib import Path

import pytest
from odd_files import picture

from crosshead.data.decode.images import BrokenImage
from crosshead.recipe.schema import DataConfig
from opening import open_data

WNIDS = ("n02124075", "n01443537", "n04067472")  # not sorted, as in wnids.txt


def write(root: Path, *, reorganised: bool = False) -> Path:
    """The distribution's tree on a small scale: boxes, words and unlabelled test pictures included."""
    folder = root / "tiny-imagenet-200"
    for n, wnid in enumerate(WNIDS):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for i in range(3):
            picture(n, 64, 64).save(images / f"{wnid}_{i}.JPEG")
        (images.parent / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (folder / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn00000000\tother\n")
    (folder / "test" / "images").mkdir(parents=True)
    picture(0, 64, 64).save(folder / "test" / "images" / "test_0.JPEG")
    lines = []
    for i, wnid in enumerate(WNIDS * 2):
        images = folder / "val" / (wnid if reorganised else "images")
        images.mkdir(parents=True, exist_ok=True)
        picture(i, 64, 64).save(images / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    if not reorganised:
        (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def config(root: Path) -> DataConfig:
    return DataConfig(name="tiny-imagenet", root=str(root), image_size=64)


@pytest.mark.parametrize("reorganised", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_both_forms_give_the_same_labels(tmp_path: Path, reorganised: bool, inside: bool) -> None:
    folder = write(tmp_path, reorganised=reorganised)
    splits = open_data(config(folder if inside else tmp_path), seed=0)
    assert splits.test is None and len(splits.train) == 9 and len(splits.validation) == 6
    assert splits.info.class_names == ("n01443537 goldfish, Carassius auratus", "n02124075", "n04067472")
    for i in range(6):
        number = int(Path(splits.validation.name(i)).stem.removeprefix("val_"))
        assert sorted(WNIDS)[splits.validation.targets[i]] == WNIDS[number % 3]
        assert splits.validation.load(i).size == (64, 64)


def test_annotations_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    annotations = folder / "val" / "val_annotations.txt"
    for line in (
        "../../secret.JPEG\tn02124075\t0",
        "val_0.JPEG\tn99999999\t0",
        "val_0.JPEG",
        "/etc/passwd\tn02124075",
    ):
        annotations.write_text(f"val_1.JPEG\tn01443537\t0\t0\t9\t9\n{line}\n")
        with pytest.raises(ValueError, match=r"val_annotations.txt:2: .*one of the 3 classes"):
            open_data(config(tmp_path), seed=0)
    annotations.write_text("")
    with pytest.raises(ValueError, match="empty"):
        open_data(config(tmp_path), seed=0)


def test_annotated_files_that_are_missing_or_links_out_are_broken(tmp_path: Path) -> None:
    folder = write(tmp_path)
    images = folder / "val" / "images"
    (images / "val_0.JPEG").unlink()
    (images / "val_1.JPEG").rename(tmp_path / "outside.JPEG")
    (images / "val_1.JPEG").symlink_to(tmp_path / "outside.JPEG")
    validation = open_data(config(folder), seed=0).validation
    with pytest.raises(BrokenImage, match="No such file"):
        validation.load(0)
    with pytest.raises(BrokenImage, match="leaves the data folder"):
        validation.load(1)


def test_what_is_missing_is_named_with_the_layout(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"val missing; expected ROOT/tiny-imagenet-200/train"):
        open_data(config(tmp_path), seed=0)
    folder = write(tmp_path)
    (folder / "val" / "val_annotations.txt").unlink()
    with pytest.raises(
        ValueError, match=r"val_annotations.txt missing, .*; expected ROOT/tiny-imagenet-200/train"
    ):
        open_data(config(tmp_path), seed=0)
