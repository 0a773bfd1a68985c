"""``crosshead demo``: both models are trained, and what is printed is what the runs hold."""

import json
import re

import pytest
from PIL import Image

import crosshead.data.datasets.scenes as scenes
from crosshead.cli import main
from crosshead.cli.commands.demo import free_folder, interval
from crosshead.probes.tasks.pairs import Pairs

RENDERED = True  # pictures are looked at

QUICK = ["train.epochs=1", "schedule.warmup_epochs=0", "data.batch_size=256", "log.tensorboard=false"]


def test_the_demo_compares_what_it_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Pairs, "steps", 3)
    monkeypatch.setattr("crosshead.cli.commands.probe.cores", lambda: 1)
    assert main(["demo", *QUICK, "--device", "cpu", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    demo = tmp_path / "demo-1"
    results = {}
    for heads, name in (("plain heads", "digits"), ("overlapped heads", "digits_mohsa")):
        results[heads] = json.loads((demo / name / "result.json").read_text())
        row = next(line for line in said.splitlines() if line.startswith(heads) and "%" in line)
        parameters, _, _, validation, test = row.removeprefix(heads).split()
        assert int(parameters.replace(",", "")) == results[heads]["parameters"]
        assert validation == f"{results[heads]['validation']['accuracy']:.2%}"
        assert test == f"{results[heads]['test']['accuracy']:.2%}"
        assert str(demo / name / "checkpoints") in said
    difference = results["overlapped heads"]["parameters"] - results["plain heads"]["parameters"]
    assert "One run of each on 359 test pictures" in said and "--seeds 0,1,2" in said
    assert re.search(rf"adds {difference:,} parameters \(\+\d+\.\d%\)", said)
    for kind in ("plain, 8 heads", "plain, 4 heads", "plain, 2 heads", "talking, 8 heads"):
        assert kind in said
    assert "It says nothing of photographs" in said and (demo / "probe.png").is_file()
    assert (demo / "curves.png").read_bytes().startswith(b"\x89PNG") and str(demo / "curves.png") in said


@pytest.mark.parametrize(
    ("words", "length"), [([], (35, None)), (["train.epochs=3"], (3, None)), (["train.steps=9"], (35, 9))]
)
def test_it_is_shorter_than_the_recipes_unless_a_length_is_given(words, length, tmp_path, monkeypatch):
    asked = []

    def train(recipe, **options):
        asked.append((recipe.train.epochs, recipe.train.steps))
        raise ValueError("enough is known")

    monkeypatch.setattr("crosshead.train.train", train)
    assert main(["demo", *words, "--output", str(tmp_path)]) == 2
    assert asked == [length]


def test_what_one_run_shows_is_wilsons_interval():
    from scipy.stats import binomtest

    for hits in (0, 200, 355, 359):
        wanted = binomtest(hits, 359).proportion_ci(method="wilson")
        assert interval(hits / 359, 359) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_a_second_demo_finds_a_folder_of_its_own(tmp_path):
    (tmp_path / "demo-1").mkdir()
    assert free_folder(tmp_path) == tmp_path / "demo-2"


def test_the_dense_demo_draws_test_scenes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scenes, "LENGTHS", {"train": 8, "validation": 2, "test": 3})
    tiny = ["train.steps=2", "schedule.warmup_steps=1", "data.batch_size=4", "model.args.dims=[8,12,16]"]
    words = [*tiny, "model.args.num_heads=[1,2,2]", "--device", "cpu", "--output", str(tmp_path)]
    assert main(["demo", "dense", *words]) == 0
    said = capsys.readouterr().out
    for name, shown in (("scenes_semantic_fpn", "mIoU"), ("scenes_mask_rcnn", "mask AP50")):
        run = tmp_path / "demo-1" / name
        assert json.loads((run / "result.json").read_text())["test"]["count"] == 3
        assert shown in said
        pictures = sorted((run / "pictures").iterdir())
        assert len(pictures) == 3 and all(str(picture) in said for picture in pictures)
        with Image.open(pictures[0]) as picture:
            assert picture.width > 2 * picture.height and picture.height >= 448


def test_a_mistake_is_one_clean_line(fails, tmp_path):
    assert "the nearest one is 'optimizer.lr'" in fails("demo", "optimizer.lrr=1", "--output", tmp_path)
    assert "there is no demo 'dence'" in fails("demo", "dence", "--output", tmp_path)
