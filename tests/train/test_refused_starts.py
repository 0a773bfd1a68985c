"""A start that is refused leaves nothing behind."""

import pytest
import torch
from PIL import Image

from coco_files import coco_folder
from crosshead.cli import main
from crosshead.recipe import load_recipe
from crosshead.recipe.schema import ScheduleConfig
from crosshead.train import train
from crosshead.train.loop.optim import build_schedule


@pytest.mark.parametrize(
    "words",
    [
        ["data.name=csv", "data.root=MISSING"],
        ["model.init_from=missing.safetensors"],
        ["model.args.no_such_argument=1"],
        ["data.batch_size=100000"],
    ],
)
def test_a_refused_start_leaves_no_folder(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("digits", [*words, f"output={tmp_path}"])
    with pytest.raises(ValueError):
        train(recipe)
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError):
        train(recipe, folder=tmp_path / "mine")
    assert (tmp_path / "mine").is_dir(), "a folder that was there already stays"


def test_a_class_of_one_picture_and_missing_weights_are_named_before_anything_is_timed(tmp_path, capsys):
    for name, count in (("a", 3), ("rare", 1)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "data" / name / f"{i}.png")
    words = ["train", "image_folder", "--data-path", str(tmp_path / "data"), "--output", str(tmp_path)]
    assert main(words) == 2
    assert "class rare has 1 picture" in capsys.readouterr().err
    assert main(["train", "digits", "model.init_from=none.safetensors", "--output", str(tmp_path)]) == 2
    assert "none.safetensors: no such file or folder" in capsys.readouterr().err


def test_data_check_says_what_training_refuses(tmp_path, capsys):
    root = coco_folder(tmp_path)
    (tmp_path / "my.yaml").write_text("base: shared/detect\n")
    words = [str(tmp_path / "my.yaml"), "data.name=coco-folder", f"data.root={root}", "data.validation=0.4"]
    words += ["model.name=ivit_micro_stride2_32"]
    assert main(["data", "check", *words, "model.detector.name=retinanet"]) == 0
    assert "refuse" not in capsys.readouterr().err
    assert main(["data", "check", *words, "model.detector.name=retinanet", "data.image_size=512"]) == 1
    assert "crosshead train would refuse this: data.image_size is 512" in capsys.readouterr().err


def test_a_fall_over_one_step_is_no_warning(caplog):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    for name in ("cosine", "poly"):
        config = ScheduleConfig(name=name, warmup_steps=0, warmup_epochs=0)
        rate = build_schedule(optimizer, config, total_steps=1, steps_per_epoch=1, scale=1.0)
        assert rate(0) == 0.5
    assert not caplog.records
