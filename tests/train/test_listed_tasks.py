"""Several labels a picture, and a number a picture, from a table to a prediction."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from runs import tiny_recipe
from sklearn.metrics import average_precision_score, r2_score

from crosshead.cli import main
from crosshead.data.base import Batch, DatasetInfo
from crosshead.recipe.schema import AugmentConfig, DataConfig, Recipe, TaskConfig
from crosshead.tasks import open_task
from crosshead.train import evaluate_run, train
from opening import open_data
from tolerances import OUTPUT, assert_close

PLAIN = {
    "mixup": 0.0,
    "cutmix": 0.0,
    "randaugment": None,
    "color_jitter": None,
    "erasing": 0.0,
    "crop_scale": None,
}


def table(root, rows):
    with open(root / "labels.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def pictures(root, count):
    """Red in 2 of 3 pictures, bright in every second; how bright is a number."""
    root.mkdir()
    noise = np.random.default_rng(0)
    rows = []
    for i in range(count):
        red, bright = i % 3 > 0, i % 2 == 0
        pixels = noise.integers(0, 40, (8, 8, 3)) + (100 if bright else 0)
        pixels[..., 0] += 100 * red
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{i}.png")
        names = ";".join(["red"] * red + ["bright"] * bright)
        rows.append({"path": f"{i}.png", "labels": names, "value": str(10 * red + 3 * bright)})
    return rows


def judged(task, predictions, targets):
    judge = task.evaluation(predictions=True)
    judge.update(predictions, Batch(None, targets, torch.arange(len(targets)).flip(0)))
    return judge.compute(judge.sums(), [judge.rows()])


def made(name, classes=(), scale=None, **augment):
    info = DatasetInfo("toy", classes, 3, (0.5,) * 3, (0.5,) * 3, scale)
    recipe = Recipe(task=TaskConfig(name=name, label_smoothing=0.0), augment=AugmentConfig(**augment))
    return open_task(recipe, info)


def test_multilabel_losses_and_metrics_are_their_formulas():
    torch.manual_seed(0)
    task, logits = made("multilabel", ("a", "b", "c")), torch.randn(9, 3)
    targets = torch.tensor(np.random.default_rng(1).integers(0, 2, (9, 3))).float()
    targets[:, 2] = 0  # a label that no image has
    p = logits.sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean(-1)
    batch = Batch(torch.zeros(9, 3, 8, 8), targets, torch.arange(9))
    step = task.step(lambda images: logits, batch)
    assert_close(step.losses["loss"], expected.sum(), OUTPUT[torch.float32])
    assert step.counts["label_accuracy"].item() == pytest.approx(
        ((p > 0.5) == targets).float().mean(1).sum().item()
    )
    found = judged(task, logits, targets)
    each = [average_precision_score(targets[:, i], p[:, i]) for i in (0, 1)]
    assert found.metrics["mean_average_precision"] == pytest.approx(np.mean(each), abs=1e-6)
    assert found.details["classes"][2]["average precision"] is None
    assert [row["index"] for row in found.predictions] == [*range(9)]


def test_regression_learns_in_standard_deviations_and_judges_in_the_numbers_unit():
    task = made("regress", scale=(10.0, 2.0), mixup=0.0, cutmix=0.0)
    predictions, targets = torch.tensor([[0.0], [1.0], [-1.0]]), (torch.tensor([10.0, 12.0, 9.0]) - 10) / 2
    batch = Batch(torch.zeros(3, 3, 8, 8), targets, torch.arange(3))
    assert task.step(lambda images: predictions, batch).losses["loss"].item() == pytest.approx(0.25)
    metrics = judged(task, predictions, targets).metrics
    assert metrics["mae"] == pytest.approx(1 / 3) and metrics["rmse"] == pytest.approx((1 / 3) ** 0.5)
    assert metrics["r2"] == pytest.approx(r2_score([10, 12, 9], [10, 12, 8]))
    assert task.primary.name == "mae" and not task.primary.higher_is_better
    with pytest.raises(ValueError, match="mixing needs classes"):
        made("regress", scale=(0.0, 1.0))


@pytest.mark.parametrize("start", [1e8, 1.7e9], ids=["large", "times of Unix"])
def test_numbers_far_from_zero_are_judged_as_exactly_as_others(tmp_path, start):
    rows = pictures(tmp_path / "data", 20)
    listed = [
        {"path": row["path"], "split": "train" if i < 10 else "val", "value": str(start + i % 10)}
        for i, row in enumerate(rows)
    ]
    table(tmp_path / "data", listed)
    data = {"name": "csv", "root": str(tmp_path / "data"), "image_size": 8}
    recipe = tiny_recipe(data=data, augment=PLAIN | {"crop_scale": None}, task={"name": "regress"})
    splits = open_data(recipe.data)
    task = open_task(recipe, splits.info)
    learned = task.training_batches(splits.train, seed=0, epoch=0)[(0, np.arange(10))].targets
    assert learned.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    batch = task.evaluation_batches(splits.validation)[(0, np.arange(10))]
    exact = (torch.arange(10) - 4.5) / np.arange(10).std()
    judge = task.evaluation()
    judge.update(exact[:, None].float(), batch)
    metrics = judge.compute(judge.sums(), [judge.rows()]).metrics
    assert metrics["mae"] < 1e-6 and metrics["r2"] == pytest.approx(1, abs=1e-9)


def test_a_label_that_no_image_has_is_left_out_of_the_mean_f1():
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
    found = judged(made("multilabel", ("a", "b", "c")), targets * 8 - 4, targets)
    assert found.metrics["macro_f1"] == 1 and found.metrics["mean_average_precision"] == 1
    assert found.details["classes"][2] == {
        "class": "c", "images": 0, "average precision": None, "recall": None, "precision": None, "f1": None
    }  # fmt: skip


@pytest.mark.parametrize(("name", "column"), [("multilabel", "labels"), ("regress", "value")])
def test_from_a_table_to_a_prediction(tmp_path, capsys, name, column):
    root = tmp_path / "data"
    rows = pictures(root, 72)
    splits = ["train"] * 48 + ["val"] * 12 + ["test"] * 12
    table(
        root, [{"path": r["path"], "split": s, column: r[column]} for r, s in zip(rows, splits, strict=True)]
    )
    mixing = {"mixup": 0.2, "cutmix": 0.2} if name == "multilabel" else {}
    data = {"name": "csv", "root": str(root), "image_size": 8, "batch_size": 8}
    recipe = tiny_recipe(
        data=data,
        augment={**PLAIN, **mixing},
        task={"name": name},
        train={"epochs": 12, "ema_decay": None},
        optimizer={"lr": 1e-2},
    )
    result = train(recipe, folder=tmp_path / "run")
    assert result.status == "finished" and result.test["count"] == 12
    assert result.test["mae"] < 2.0 if name == "regress" else result.test["mean_average_precision"] > 0.9
    assert evaluate_run(tmp_path / "run") == result.test
    assert main(["data", "check", "csv", "--data-path", str(root), "--json"]) == 0
    json.loads(capsys.readouterr().out)
    assert main(["data", "pack", "csv", "--data-path", str(root), "--out", str(tmp_path / "shards")]) == 2
    assert "one class a picture" in capsys.readouterr().err
    picture = str(root / "4.png")
    assert main(["predict", str(tmp_path / "run"), picture, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert "value" in answer or {each["class"] for each in answer["predictions"]} == {"red", "bright"}
    out = tmp_path / "predictions.csv"
    assert main(["eval", str(tmp_path / "run"), "--predictions", str(out)]) == 0
    written = list(csv.DictReader(out.open()))
    assert [row["path"].rpartition("/")[2] for row in written] == [f"{i}.png" for i in range(60, 72)]
    wrong = recipe.model_copy(update={"task": TaskConfig()})
    with pytest.raises(ValueError, match=r"labels of another kind|nothing to tell apart"):
        train(wrong, folder=tmp_path / "wrong")


BAD = {
    "path,kind\n0.png,a": "the columns are path, kind",
    "path,label\n": "no pictures in it",
    "path,label\n0.png,a;b": "labels.csv:2: label 'a;b'",
    "path,value\n0.png,many": "labels.csv:2: value 'many'",
    "path,value\n0.png,nan": "labels.csv:2: value 'nan'",
    "path,label\n../0.png,a": "leads out of",
    "path,label\n0.png,a\n./0.png,b": "stands in line 2 too",
    "path,split,label\n0.png,dev,a": "split 'dev'",
    "path,label\n0.png": "expected 2 fields",
}


@pytest.mark.parametrize("text", BAD, ids=BAD.values())
def test_a_table_that_is_none_is_refused_with_its_line(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError) as caught:
        open_data(DataConfig(name="csv", root=str(tmp_path)), seed=0)
    assert BAD[text] in str(caught.value)
