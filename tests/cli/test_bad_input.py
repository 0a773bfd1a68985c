"""Data, checkpoints and processes that don't fit the recipe: what one is told at the command line."""

import io
import tarfile
import zipfile

import pytest

from cli.conftest import SHORT
from data.odd_files import encoded, picture, write_class_folders

IMAGENET = "train", "vit_tiny_16_224_imagenet", "train.device=cpu"
SMALL_FOLDER = "train", "image_folder", *SHORT, "data.image_size=8", "data.batch_size=2"
JPEG = encoded(picture(), "JPEG")


def class_folders(root):
    for part in ("train", "val"):
        write_class_folders(root / part, {"cat": 3, "dog": 3, "emu": 3})


def another_class_in_val(root):
    class_folders(root)
    write_class_folders(root / "val", {"yak": 1})


def zips(root, *, train=(), line=""):
    for part, members in {"train": ["n01/1.JPEG", *train], "val": ["1.JPEG"]}.items():
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            for name in members:
                archive.writestr(name, JPEG)
        (root / f"{part}_map.txt").write_text(f"{members[0]}\t0\n" + (line if part == "train" else ""))


def zips_without_a_map(root):
    zips(root)
    (root / "val_map.txt").unlink()


def zip_with_a_path_outside(root):
    zips(root, train=["../../outside.JPEG"])


def map_with_a_path_outside(root):
    zips(root, line="train.zip@/../../outside.JPEG\t0\n")


def half_a_zip(root):
    zips(root)
    halve(root / "train.zip")


def half_a_shard(root):
    with tarfile.open(root / "train-000000.tar", "w") as tar:
        for name, body in (("a.cls", b"0"), ("a.jpg", JPEG * 30)):
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    halve(root / "train-000000.tar")


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def nothing(root):
    assert root.is_dir()


@pytest.mark.parametrize(
    ("write", "words", "wanted"),
    [
        (nothing, IMAGENET, ["train and val missing", "ROOT/train/WNID/*.JPEG", "val_map.txt}"]),
        (zips_without_a_map, IMAGENET, ["val_map.txt missing; expected ROOT/"]),
        (
            nothing,
            ("data", "check", "cifar100"),
            ["train, test, meta missing; expected ROOT/cifar-100-python/"],
        ),
        (nothing, ("data", "check", "tiny-imagenet"), ["val missing", "val/val_annotations.txt"]),
        (nothing, ("data", "check", "shards"), ["no shards of train; expected ROOT/train-000000.tar"]),
        (zip_with_a_path_outside, IMAGENET, ["train.zip: the path '../../outside.JPEG' in it leaves"]),
        (map_with_a_path_outside, IMAGENET, ["train_map.txt:2: the path", "leaves train.zip"]),
        (half_a_zip, IMAGENET, ["train.zip: no whole zip file", "copy it again"]),
        (half_a_shard, (*IMAGENET, "data.name=shards"), ["train-000000.tar: no whole tar file", "again"]),
        (another_class_in_val, SMALL_FOLDER, ["val: class folders yak are not among the 3 training classes"]),
        (
            class_folders,
            (*SMALL_FOLDER, "--opts", "MODEL.NUM_CLASSES", "10"),
            ["model.args.num_classes is 10, and the data has 3 classes", "leave the key out"],
        ),
    ],
)
def test_data_that_does_not_fit_is_told_in_one_line(write, words, wanted, fails, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    write(root)
    output = ("--output", tmp_path / "runs") if words[0] == "train" else ()
    message = fails(*words, "--data-path", root, *output)
    assert str(root) in message or "MODEL.NUM_CLASSES" in words
    for part in wanted:
        assert part in message


def test_a_checkpoint_of_another_schedule_is_told_in_one_line(run, fails, tmp_path):
    other = ("train", "digits_mohsa", *SHORT, "model.overlap=constant:2")
    message = fails(*other, "--resume", run)
    assert "another model: model.overlap was 'index', is 'constant:2'" in message
    weights = run / "best" / "model.safetensors"
    message = fails(*other, f"model.init_from={weights}", "--output", tmp_path / "runs")
    assert f"{weights} holds the weights of another model: blocks.0.attn.proj.weight has shape" in message
    assert "overlap schedule of the recipe" in message


def test_processes_that_do_not_fit_are_told_in_one_line(fails, tmp_path, monkeypatch):
    digits = ("train", "digits", *SHORT, "--output", tmp_path / "runs")
    assert "lower data.batch_size to 1295 or less" in fails(*digits, "data.batch_size=2000")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    assert "RANK is None while WORLD_SIZE is '2'; start the processes with torchrun" in fails(*digits)
    monkeypatch.setenv("RANK", "2")
    assert "RANK is 2, which does not fit WORLD_SIZE 2" in fails(*digits)


@pytest.mark.parametrize("word", ["wrong", "²", "9" * 5000, "-1"])
def test_a_checkpoint_that_is_no_checkpoint_is_told_what_there_is(word, run, fails):
    message = fails("eval", run, f"--checkpoint={word}")
    assert "expected best, last, or a step's number out of [" in message


def test_data_with_one_class_is_refused(fails, tmp_path):
    write_class_folders(tmp_path / "data", {"cat": 9})
    message = fails(*SMALL_FOLDER, "--data-path", tmp_path / "data", "--output", tmp_path / "runs")
    assert "the data has 1 class, and there is nothing to tell apart" in message
