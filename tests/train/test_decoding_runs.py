"""What pictures of 16 bits and of four channels are learned from, judged by and told with: what the run recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import tiny_recipe
from test_segment_runs import upernet_recipe

from crosshead.cli import main
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe import load_recipe
from crosshead.tasks import open_task
from crosshead.train import train
from crosshead.train.inference import evaluate_run, load_run
from crosshead.train.logging.log_files import EVENTS_FILE, read_lines
from detect_files import coco_folder
from map_files import map_folder

PLAIN = {"randaugment": None, "color_jitter": None, "mixup": 0.0, "cutmix": 0.0, "erasing": 0.0}


def twelve_bits(root: Path, factor: int = 1) -> Path:
    """Two classes that differ by a tenth of what twelve bits hold."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 3)):
        for name, level in (("dim", 300), ("bright", 700)):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                values = draw.normal(level, 15, (8, 8)).clip(0, 4095) * factor
                Image.fromarray(values.astype(np.uint16)).save(root / part / name / f"{i}.png")
    return root


def with_infrared(file: Path) -> None:
    """Its picture again with a fourth band, which TIFF calls nothing."""
    with Image.open(file) as image:
        colours = np.array(image.convert("RGB"))
    bands = np.concatenate([colours, 255 - colours[..., :1]], -1)
    file.unlink()
    Image.frombytes("RGBX", image.size, bands.tobytes()).save(file.with_suffix(".tif"))


def small(root: Path, **data):
    return tiny_recipe(
        output=str(root / "runs"),
        data={"name": "folder", "root": str(root / "data"), "image_size": 8, "batch_size": 8} | data,
        augment={**PLAIN, "crop_scale": None},
        task={"label_smoothing": 0.0},
        optimizer={"lr": 1e-2},
        train={"epochs": 12, "accumulation_steps": 1, "device": "cpu", "deterministic": True},
    )


def test_a_run_keeps_the_white_level_that_its_pictures_decided(tmp_path, capsys):
    twelve_bits(tmp_path / "data")
    result = train(small(tmp_path))
    folder = result.folder
    assert load_recipe(folder / "recipe.yaml").data.white_level == 1023
    assert evaluate_run(folder)["accuracy"] == 1.0  # black on black where sixteen bits are presumed
    told = [line.get("message", "") for line in read_lines(folder / EVENTS_FILE)]
    assert any("white is 1023 (data.white_level)" in words for words in told), told

    # Another camera's pictures later: judged, told and gone on with by the scale of then.
    twelve_bits(tmp_path / "data", factor=4)
    assert load_run(folder).recipe.data.white_level == 1023
    longer = small(tmp_path)
    longer = longer.model_copy(update={"train": longer.train.model_copy(update={"epochs": 13})})
    train(longer, folder=folder, resume=True)
    assert load_recipe(folder / "recipe.yaml").data.white_level == 1023
    capsys.readouterr()
    picture = tmp_path / "data" / "val" / "bright" / "0.png"
    assert main(["predict", str(folder), str(picture)]) == 0
    assert "cut off; data.white_level=4095" in capsys.readouterr().err
    assert main(["predict", str(folder), str(picture), "data.white_level=4095"]) == 0
    told = capsys.readouterr()
    assert told.err == "" and "bright" in told.out.splitlines()[1]


def test_four_bands_are_trained_judged_predicted_and_looked_at(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 3)):
        for k, name in enumerate(("a", "b")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(count):
                bands = draw.integers(0, 60, (9, 11, 4), np.uint8)
                bands[..., 3] += np.uint8(150 * k)  # the fourth band alone tells the classes apart
                Image.frombytes("RGBX", (11, 9), bands.tobytes()).save(
                    tmp_path / "data" / part / name / f"{i}.tif"
                )
    result = train(small(tmp_path, channels=4))
    recorded = load_recipe(result.folder / "recipe.yaml").data
    assert len(recorded.mean) == len(recorded.std) == 4
    assert evaluate_run(result.folder)["accuracy"] == 1.0
    capsys.readouterr()
    picture = tmp_path / "data" / "val" / "b" / "0.tif"
    assert main(["predict", str(result.folder), str(picture), "--top", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("b")
    assert main(["look", str(result.folder), str(picture), "--output", str(tmp_path)]) == 0
    recipe = str(result.folder / "recipe.yaml")
    assert main(["augment", recipe, "--out", str(tmp_path / "sheet.png")]) == 0
    assert main(["data", "check", recipe, "--json"]) == 0
    with pytest.raises(ValueError, match=r"augment\.randaugment changes colours.*4 channels"):
        changed = load_recipe(recipe, ["augment.randaugment=rand-m9-mstd0.5-inc1"])
        open_task(changed, open_splits(changed).info)


def test_four_bands_of_maps_and_of_objects(tmp_path, capsys):
    maps, objects = map_folder(tmp_path / "maps", count=12), coco_folder(tmp_path / "objects")
    for file in [*(maps / "images").iterdir(), *(objects / "images").iterdir()]:
        with_infrared(file)
    described = objects / "annotations.json"
    described.write_text(described.read_text().replace(".png", ".tif"))
    recipe = upernet_recipe(maps).model_copy(update={"output": str(tmp_path / "runs")})
    with_four = recipe.model_copy(update={"data": recipe.data.model_copy(update={"channels": 4})})
    with pytest.raises(ValueError, match=r"augment\.photometric changes colours"):
        open_task(with_four, open_splits(with_four).info)
    values = json.loads(recipe.model_dump_json())
    values["augment"]["photometric"] = 0.0
    values["data"]["channels"] = 4
    values["train"] |= {"steps": 3}
    segmented = train(type(recipe).model_validate_json(json.dumps(values)))
    values["data"] |= {"name": "coco-folder", "root": str(objects), "mean": None, "std": None}
    values["augment"]["scale_range"] = None
    values["model"]["segmenter"] = None
    values["model"]["detector"] = {"name": "retinanet", "anchor_size": 3.0, "pyramid": {"width": 8}}
    values["task"] = {"name": "detect", "score_threshold": 0.0}
    values["name"] = "detected"
    detected = train(type(recipe).model_validate_json(json.dumps(values)))
    for run, picture in ((segmented, maps / "images" / "0.tif"), (detected, objects / "images" / "1.tif")):
        capsys.readouterr()
        words = [str(run.folder), str(picture), "--out", str(tmp_path / "drawn"), "--json"]
        assert main(["predict", *words]) == 0
        (answer,) = json.loads(capsys.readouterr().out)
        with Image.open(picture) as own, Image.open(answer["drawn"]) as drawn:
            assert drawn.size == own.size
