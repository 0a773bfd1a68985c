"""The commands on a run that finds objects: eval, predict, data check, augment, profile, doctor, sweep."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import crosshead.data.datasets.scenes as scenes
from coco_files import coco_folder
from crosshead.cli import main
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe import load_recipe
from crosshead.tasks.coco_numbers import truth_as_coco

WORDS = [
    "data.batch_size=4", "model.args.depths=[1,1,1]", "model.args.dims=[8,12,16]", "model.args.num_heads=[1,2,2]",
    "train.steps=2", "train.device=cpu", "schedule.warmup_steps=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def detected(tmp_path_factory):
    """The folder of a short run of Mask R-CNN, whose objects need no score."""
    folder = tmp_path_factory.mktemp("detected")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "LENGTHS", {"train": 8, "validation": 3, "test": 4})
        words = ["scenes_mask_rcnn", *WORDS, "task.score_threshold=0", "--output", str(folder)]
        assert main(["train", *words]) == 0
    return folder / "scenes_mask_rcnn"


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(scenes, "LENGTHS", {"train": 8, "validation": 3, "test": 4})


def test_eval_tells_cocos_numbers_and_every_class(detected, capsys):
    capsys.readouterr()
    assert main(["eval", str(detected)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "mask AP50" in lines[0] and "(4 images, best" in lines[0] and "nan" not in "".join(lines)
    assert lines[1].split() == ["number", "mask", "box"] and lines[2].split()[0] == "AP"
    assert [line.split()[0] for line in lines[-10:]] == [*"0123456789"]
    assert main(["eval", str(detected), "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told["mask_apl"] is None and told["count"] == 4 and len(told["numbers"]) == 12
    kept = json.loads((detected / "result.json").read_text())
    assert kept["test"]["box_ap"] == pytest.approx(told["box_ap"], abs=1e-12)


def test_eval_writes_all_that_was_found(detected, tmp_path, capsys):
    """The file of COCO's results judged by COCO's own code comes to what eval tells; the others say the same."""
    words = ["eval", str(detected), "--json", "--predictions"]
    assert main([*words, str(tmp_path / "found.json")]) == 0
    told = json.loads(capsys.readouterr().out)
    results = json.loads((tmp_path / "found.json").read_text())
    images = open_splits(load_recipe(detected / "recipe.yaml")).test
    truth = [images.sample(i)[1] for i in range(len(images))]
    reference = COCO()
    reference.dataset = truth_as_coco(truth, tuple("0123456789"), masks=True)
    reference.createIndex()
    for kind, name in (("bbox", "box_ap"), ("segm", "mask_ap")):
        own = [
            {key: value for key, value in each.items() if kind == "bbox" or key != "bbox"} for each in results
        ]
        judged = COCOeval(reference, reference.loadRes(own), kind)
        judged.evaluate(), judged.accumulate(), judged.summarize()
        assert judged.stats[0] == pytest.approx(told[name], abs=1e-9)
    assert main([*words, str(tmp_path / "found.csv")]) == 0
    assert main([*words, str(tmp_path / "found")]) == 0
    rows = (tmp_path / "found.csv").read_text().splitlines()
    assert len(rows) == len(results) + 1 and rows[0].startswith("path,image_id,class,score,xmin")
    lines = [
        line for file in sorted((tmp_path / "found").iterdir()) for line in file.read_text().splitlines()
    ]
    assert len(lines) == len(results) and all(len(line.split()) == 6 for line in lines)
    assert {int(line.split()[0]) for line in lines} == {each["category_id"] - 1 for each in results}


def test_several_views_and_what_is_made_of_overlaps(detected, capsys, fails):
    capsys.readouterr()
    assert main(["eval", str(detected), "--tta", "flip,scales", "task.suppression=soft_nms"]) == 0
    said = capsys.readouterr().out
    assert "6 views a picture, 6.25 times the pixels of one" in said and "box AP" in said
    assert "masks lie in theirs; expected nms or soft_nms" in fails(
        "eval", detected, "task.suppression=weighted"
    )
    assert "task.tta" in fails("eval", detected, "--tta", "rotate")


def test_judge_chooses_thresholds_and_predict_takes_them(detected, tmp_path, capsys, fails):
    capsys.readouterr()
    page = tmp_path / "judged.html"
    assert main(["judge", str(detected), "--pictures", "2", "--page", str(page), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    objects = [int(row["objects"]) for row in told["tables"][0]["rows"]]
    (table,) = [each for each in told["tables"] if each["title"] == "What was taken for what"]
    assert sum(int(n) for row in table["rows"][:-1] for key, n in row.items() if key != "there") == sum(
        objects
    )
    assert len(told["pictures"]) == 2 and page.read_text().count("data:image/jpeg;base64,") == 2
    content = json.loads((detected / "judging.json").read_text())
    assert content["step"] == 2 and set(content) <= {"format", "crosshead", "step", "score_threshold"}
    Image.new("RGB", (96, 96)).save(tmp_path / "a.png")
    one = [f"task.score_threshold.{k}={float(k != 3)}" for k in range(10)]
    for words, labels in (
        (one, {"3"}),
        (["task.score_threshold=0", "task.classes=['3','5']"], {"3", "5"}),
    ):
        assert main(["predict", str(detected), str(tmp_path / "a.png"), "--json", *words]) == 0
        (answer,) = json.loads(capsys.readouterr().out)
        assert {each["class"] for each in answer["objects"]} <= labels
    assert main(["predict", str(detected), str(tmp_path / "a.png"), "--judged"]) == 0
    assert "task.classes: no class 'three'; the nearest is" in fails(
        "predict", detected, tmp_path / "a.png", "task.classes=[three]"
    )
    assert "--pictures: expected 0 or more" in fails("judge", detected, "--pictures", "-1")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "turned", "one pixel wide"])
def test_predict_draws_and_writes_cocos_results(detected, tmp_path, capsys, mode):
    """In the picture's own pixels, as a person sees it."""
    pixels = np.random.default_rng(0).integers(0, 255, (70, 120, 3), np.uint8)
    picture = Image.fromarray(pixels)
    if mode == "one pixel wide":
        picture = picture.crop((0, 0, 1, 70))
    elif mode != "turned":
        picture = picture.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6 if mode == "turned" else 1  # orientation: a quarter turn
    picture.save(tmp_path / "a.png", exif=exif)
    wide, high = (70, 120) if mode == "turned" else picture.size
    capsys.readouterr()
    words = [str(detected), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--json", "--top", "7"]
    assert main(["predict", *words]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["size"] == [high, wide] and len(answer["objects"]) <= 7
    for found in answer["objects"]:
        x, y, w, h = found["bbox"]
        assert 0 <= x <= x + w <= wide + 1e-3 and 0 <= y <= y + h <= high + 1e-3
        assert found["segmentation"]["size"] == [high, wide] and found["class"] in "0123456789"
    with Image.open(answer["drawn"]) as drawn:
        assert drawn.size == (wide, high)
    if mode == "RGB":
        assert answer["objects"]
        assert main(["predict", *words, "--window", "64"]) == 0
        (pieces,) = json.loads(capsys.readouterr().out)
        assert pieces["size"] == answer["size"] and pieces["objects"] != answer["objects"]


def test_keys_change_how_a_run_is_used_and_not_what_it_has_learned(detected, tmp_path, capsys, fails):
    pixels = np.random.default_rng(0).integers(0, 255, (70, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a=b.png")
    capsys.readouterr()
    words = [str(detected), str(tmp_path / "a=b.png"), "--json", "--top", "300"]

    def found(*more):
        assert main(["predict", *words, *more]) == 0
        return json.loads(capsys.readouterr().out)[0]["objects"]

    assert len(found("task.score_threshold=0.02")) > len(found("task.score_threshold=0.9"))
    assert found("task.window=64") == found("--window", "64")
    assert main(["eval", str(detected), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert main(["eval", str(detected), "--json", "task.window=64"]) == 0
    assert json.loads(capsys.readouterr().out)["numbers"] != whole["numbers"]
    for key in (
        "model.detector.name=retinanet",
        "data.channels=1",
        "data.split_seed=3",
        "task.name=classify",
    ):
        assert "has learned" in fails("eval", detected, key)
        assert "has learned" in fails("predict", detected, tmp_path / "a=b.png", key)
    assert "task.score_threshold" in fails("eval", detected, "task.score_treshold=1")


def test_other_commands_serve_it(detected, tmp_path, capsys):
    assert main(["doctor", str(detected)]) == 0
    assert main(["data", "check", "scenes_mask_rcnn"]) == 0
    assert (
        main(["augment", "scenes_mask_rcnn", "data.batch_size=4", "--out", str(tmp_path / "sheet.png")]) == 0
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 96
    assert main(["profile", "scenes_mask_rcnn", *WORDS, "--steps", "1"]) == 0
    capsys.readouterr()
    words = ["scenes_mask_rcnn", *WORDS, "train.steps=1", "--seeds", "0,1", "--output", str(tmp_path)]
    assert main(["sweep", *words]) == 0
    assert "mask AP" in capsys.readouterr().out


def test_a_size_that_a_detector_ignores_is_refused(tmp_path, capsys):
    words = ["data.name=coco-folder", f"data.root={coco_folder(tmp_path / 'data')}", "data.batch_size=2"]
    augment = ["augment", "shared/detect", *words, "model.detector.name=retinanet", "data.validation=0.4"]
    augment += ["--out", str(tmp_path / "drawn.png")]
    assert main([*augment, "data.image_size=512"]) == 2
    assert "data.image_size is 512, and a detector's pictures go by other keys" in capsys.readouterr().err
    for sound in (
        ["data.image_size=64", "data.eval_resize=64"],
        ["data.image_size=64", "data.eval_resize=null"],
    ):
        assert main([*augment, *sound]) == 0, capsys.readouterr().err
