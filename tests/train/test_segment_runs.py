"""Segmentation keeps the trainer's promises: kills, broken pictures and maps, bad numbers; and its recipes run."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import Watcher, assert_same_ending, start, wait
from test_kills import kill_until_done
from test_numbers import poison_loader

import crosshead.data.datasets.scenes as scenes
from crosshead.models.weights import Weights
from crosshead.recipe import load_recipe
from crosshead.recipe.schema import Recipe
from crosshead.train import train
from crosshead.train.inference import evaluate_run, load_run
from map_files import ade20k, map_folder


def upernet_recipe(root, **changes):
    """3 epochs of 3 steps of 4 pictures on UPerNet, whose norms keep running statistics."""
    values = {
        "model": {
            "name": "ivit_tiny",
            "drop_path_rate": 0.1,
            "args": dict(depths=[1, 1, 1], dims=[8, 12, 16], num_heads=[1, 2, 2], attention_stages=[2], landmarks=2),
            "segmenter": {"name": "upernet", "width": 8, "auxiliary_width": 8, "dropout": 0.1},
        },
        "data": {"name": "map-folder", "root": str(root), "image_size": 32, "batch_size": 4, "validation": 0.25},
        "augment": {
            "scale_range": [0.8, 1.5], "crop_most": 0.75, "photometric": 0.5, "crop_scale": None,
            "randaugment": None, "color_jitter": None, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0,
        },
        "task": {"name": "segment", "label_smoothing": 0.0, "class_weights": {"ground": 0.5}},
        "schedule": {"name": "poly", "warmup_steps": 2},
        "train": {
            "steps": 9, "epochs": 3, "accumulation_steps": 1, "device": "cpu", "ema_decay": 0.9,
            "deterministic": True, "rank_timeout_s": 60,
        },
        "log": {"every_steps": 1, "tensorboard": False},
        "checkpoint": {"every_steps": 2},
    }  # fmt: skip
    for section, change in changes.items():
        values[section] = {**values[section], **change}
    return Recipe.model_validate_json(json.dumps(values))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """16 pictures with maps, of which 12 are to train with."""
    return map_folder(tmp_path_factory.mktemp("maps") / "data", count=16)


@pytest.mark.soak
def test_a_killed_run_resumes_and_ends_the_same(tmp_path, pictures):
    recipe = upernet_recipe(pictures)
    assert train(recipe, folder=tmp_path / "whole").status == "finished"
    kill_until_done(recipe, tmp_path / "run", kills=3)
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


@pytest.mark.soak
def test_killing_one_of_two_processes_resumes_and_ends_the_same(tmp_path, pictures):
    recipe = upernet_recipe(pictures, data={"batch_size": 2})
    assert wait(start(recipe, tmp_path / "whole", resume=False, processes=2)) == [0, 0]
    kill_until_done(recipe, tmp_path / "run", kills=1, processes=2, longest=3.0)
    assert_same_ending(tmp_path / "run", tmp_path / "whole")
    # Two processes shared out the evaluation; one finds the same to the last digit.
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())["validation"]
    assert evaluate_run(tmp_path / "run", split="validation") == recorded


@pytest.mark.soak
def test_shards_in_two_processes_share_out_an_odd_number_of_pictures(tmp_path):
    root = map_folder(tmp_path / "data", count=15)
    recipe = upernet_recipe(
        root,
        data={"batch_size": 2, "eval_batch_size": 2, "validation": 0.2},
        train={"parallel": "shards", "deterministic": False, "steps": 3},
        schedule={"warmup_steps": 0},
    )
    assert wait(start(recipe, tmp_path / "run", resume=False, processes=2)) == [0, 0]
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())["validation"]
    assert recorded["count"] == 3 and evaluate_run(tmp_path / "run", split="validation") == recorded


def test_bfloat16_with_checkpointing_channels_last_and_accumulation(tmp_path, pictures):
    more = {"precision": "bf16", "grad_checkpointing": True, "channels_last": True, "accumulation_steps": 3}
    recipe = upernet_recipe(pictures, train={**more, "deterministic": False, "steps": 2})
    result = train(
        recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"warmup_steps": 0})}),
        folder=tmp_path / "run",
    )
    assert result.status == "finished" and result.bad_steps == 0


def test_broken_pictures_and_maps_are_left_out_and_named(tmp_path):
    root = map_folder(tmp_path / "data", count=16)
    recipe = upernet_recipe(root, data={"batch_size": 2}, train={"steps": 6})
    (root / "images" / "3.png").write_bytes(b"no picture")
    (root / "maps" / "7.png").unlink()
    Image.new("RGB", (24, 20)).save(root / "maps" / "8.png")
    watcher = Watcher()
    result = train(recipe, folder=tmp_path / "run", callback=watcher)
    assert result.status == "finished"
    told = {
        Path(e.details["image"]).name: e.details["reason"] for e in watcher.events if e.kind == "broken_image"
    }
    assert told.keys() == {"3.png", "7.png", "8.png"}
    assert "no map" in told["7.png"] and "mode RGB" in told["8.png"]


def test_a_loss_that_is_not_finite_skips_the_step(tmp_path, pictures, monkeypatch):
    poison_loader(monkeypatch, epoch=1, places={1})
    watcher = Watcher()
    result = train(upernet_recipe(pictures), folder=tmp_path / "run", callback=watcher)
    (bad,) = (event for event in watcher.events if event.kind == "bad_step")
    assert bad.step == 5 and result.bad_steps == 1 and "images/" in bad.details["images"][0]


def test_a_segmenter_starts_from_a_classifiers_run(tmp_path, pictures, caplog):
    of_labels = {
        "name": "digits",
        "root": None,
        "channels": 3,
        "image_size": 32,
        "batch_size": 64,
        "validation": 0.9,
    }
    values = upernet_recipe(pictures).model_dump(mode="json")
    values |= {"data": values["data"] | of_labels, "task": {"name": "classify"}, "checkpoint": {}}
    values["model"]["segmenter"] = None
    values["train"] |= {"steps": 1}
    values["schedule"] |= {"warmup_steps": 0}
    classifier = train(Recipe.model_validate_json(json.dumps(values)), folder=tmp_path / "digits")
    recipe = upernet_recipe(pictures, train={"steps": 1}, schedule={"warmup_steps": 0})
    model = recipe.model.model_copy(update={"init_from": str(tmp_path / "digits")})
    with caplog.at_level("WARNING"):
        result = train(recipe.model_copy(update={"model": model}), folder=tmp_path / "run")
    assert result.status == "finished"
    assert "tensors not used: head" in caplog.text and "started anew" not in caplog.text
    recorded = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert recorded.data.image_size == 32 and recorded.data.eval_resize is None
    first = Weights.read(classifier.weights).states[0].tensors
    trained = load_run(tmp_path / "run").task.build_model().state_dict()
    shared = [name for name in trained if name.removeprefix("maps.body.model.") in first]
    assert shared and all(torch.equal(trained[n], first[n.removeprefix("maps.body.model.")]) for n in shared)


SMALL = ("train.device=cpu", "train.precision=fp32", "log.tensorboard=false", "data.num_workers=0")


@pytest.mark.parametrize("size", ["tiny", pytest.param("small", marks=pytest.mark.soak)])
@pytest.mark.parametrize("head", ["semantic_fpn_80k", pytest.param("upernet_160k", marks=pytest.mark.soak)])
def test_recipes_of_ade20k_run_from_end_to_end(tmp_path, head, size):
    root = ade20k(tmp_path / "data", train=4, size=(40, 36))
    name = f"ade20k_{head}_ivit_{size}"
    recipe = load_recipe(
        name, [*SMALL, "train.steps=2", "data.image_size=32", "data.eval_resize=40"], {"data.root": str(root)}
    )
    schedule = recipe.schedule.model_copy(update={"warmup_steps": 0})
    result = train(recipe.model_copy(update={"schedule": schedule}), folder=tmp_path / "run")
    assert result.status == "finished" and result.metric == "miou" and result.validation["count"] == 2
    whole = load_recipe(name)
    assert whole.train.steps == (80_000 if "80k" in head else 160_000) and whole.schedule.name == "poly"
    assert whole.optimizer.lr == (1e-4 if "80k" in head else 6e-5)


@pytest.mark.parametrize("name", ["scenes_semantic_fpn", "scenes_upernet"])
def test_recipes_of_scenes_run_from_end_to_end(tmp_path, name, monkeypatch):
    monkeypatch.setattr(scenes, "LENGTHS", {"train": 8, "validation": 3, "test": 5})
    recipe = load_recipe(name, [*SMALL, "train.steps=2", "data.batch_size=4", "schedule.warmup_steps=1"])
    result = train(recipe, folder=tmp_path / "run")
    assert result.status == "finished" and result.test["count"] == 5
    assert 0 <= result.test["miou"] <= result.test["pixel_accuracy"] <= 1
