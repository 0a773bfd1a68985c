"""Runs that detect: processes, shards, bfloat16, a classifier's start; and the embedded recipes."""

import json

import pytest
import torch
from runs import start, wait

import crosshead.data.datasets.scenes as scenes
from crosshead.models.weights import Weights
from crosshead.recipe import load_recipe
from crosshead.recipe.schema import Recipe
from crosshead.train import train
from crosshead.train.inference import evaluate_run, load_run
from detect_files import coco_folder


def mask_recipe(root, **changes):
    """3 epochs of 3 steps of 4 pictures on Mask R-CNN."""
    values = {
        "model": {
            "name": "ivit_tiny",
            "drop_path_rate": 0.1,
            "args": dict(depths=[1, 1, 1], dims=[8, 12, 16], num_heads=[1, 2, 2], attention_stages=[2], landmarks=2),
            "detector": {
                "name": "mask_rcnn", "pyramid": {"width": 8}, "box_width": 16, "mask_layers": [8], "roi_samples": 16,
                "proposals": [40, 20, 40, 20], "anchor_sizes": [8, 16, 24, 32],
            },
        },
        "data": {
            "name": "coco-folder", "root": str(root), "image_size": 40, "eval_resize": 40, "batch_size": 4,
            "validation": 0.25,
        },
        "augment": {
            "short_sides": [36, 44], "photometric": 0.5, "crop_scale": None, "randaugment": None,
            "color_jitter": None, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0,
        },
        "task": {"name": "detect"},
        "schedule": {"name": "step", "milestones": [2.0], "warmup_steps": 2},
        "train": {
            "epochs": 3, "device": "cpu", "ema_decay": 0.9, "deterministic": True, "rank_timeout_s": 60,
        },
        "log": {"every_steps": 1, "tensorboard": False},
        "checkpoint": {"every_steps": 2},
    }  # fmt: skip
    for section, change in changes.items():
        values[section] = {**values[section], **change}
    return Recipe.model_validate_json(json.dumps(values))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """16 pictures with objects, of which 12 are to train with."""
    return coco_folder(tmp_path_factory.mktemp("objects") / "data", count=16)


def test_two_processes_find_what_one_finds(tmp_path, pictures):
    recipe = mask_recipe(pictures, data={"batch_size": 1}, train={"accumulation_steps": 2})
    assert wait(start(recipe, tmp_path / "run", resume=False, processes=2)) == [0, 0]
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())["validation"]
    assert json_form(evaluate_run(tmp_path / "run", split="validation")) == recorded


def json_form(metrics):
    return {name: None if value != value else value for name, value in metrics.items()}


def test_shards_in_two_processes_share_out_an_odd_number_of_pictures(tmp_path):
    root = coco_folder(tmp_path / "data", count=15)
    recipe = mask_recipe(
        root,
        data={"batch_size": 2, "eval_batch_size": 2, "validation": 0.2},
        train={"parallel": "shards", "deterministic": False, "steps": 3},
        schedule={"name": "cosine", "milestones": [], "warmup_steps": 0},
    )
    assert wait(start(recipe, tmp_path / "run", resume=False, processes=2)) == [0, 0]
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())["validation"]
    assert recorded["count"] == 3
    assert json_form(evaluate_run(tmp_path / "run", split="validation")) == recorded


@pytest.mark.parametrize("detector", ["mask_rcnn", "retinanet"])
def test_bfloat16_with_checkpointing_channels_last_and_accumulation(tmp_path, pictures, detector):
    more = {"precision": "bf16", "grad_checkpointing": True, "channels_last": True, "accumulation_steps": 3}
    recipe = mask_recipe(pictures, train={**more, "deterministic": False, "steps": 2})
    if detector == "retinanet":
        head = recipe.model.detector.model_validate({"name": "retinanet", "pyramid": {"width": 8}})
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"detector": head})})
    schedule = recipe.schedule.model_copy(update={"warmup_steps": 0})
    result = train(recipe.model_copy(update={"schedule": schedule}), folder=tmp_path / "run")
    assert result.status == "finished" and result.bad_steps == 0
    assert result.metric == ("mask_ap" if detector == "mask_rcnn" else "box_ap")


def test_a_detector_starts_from_a_classifiers_run(tmp_path, pictures, caplog):
    of_labels = {
        "name": "digits", "root": None, "channels": 3, "image_size": 32, "batch_size": 64, "validation": 0.9,
        "eval_resize": None,
    }  # fmt: skip
    values = mask_recipe(pictures).model_dump(mode="json")
    values |= {"data": values["data"] | of_labels, "task": {"name": "classify"}, "checkpoint": {}}
    values["augment"] |= {"short_sides": None, "photometric": 0.0}
    values["model"]["detector"] = None
    values["train"] |= {"steps": 1}
    values["schedule"] |= {"warmup_steps": 0, "name": "constant", "milestones": []}
    classifier = train(Recipe.model_validate_json(json.dumps(values)), folder=tmp_path / "digits")
    recipe = mask_recipe(pictures, train={"steps": 1})
    model = recipe.model.model_copy(update={"init_from": str(tmp_path / "digits")})
    with caplog.at_level("WARNING"):
        result = train(recipe.model_copy(update={"model": model}), folder=tmp_path / "run")
    assert result.status == "finished"
    assert "tensors not used: head" in caplog.text and "started anew" not in caplog.text
    first = Weights.read(classifier.weights).states[0].tensors
    trained = load_run(tmp_path / "run").task.build_model().state_dict()
    prefix = "pyramid.maps.body.model."
    shared = [name for name in trained if name.removeprefix(prefix) in first]
    assert shared and all(torch.equal(trained[n], first[n.removeprefix(prefix)]) for n in shared)


SMALL = ("train.device=cpu", "train.precision=fp32", "log.tensorboard=false", "data.num_workers=0")


@pytest.mark.parametrize("name", ["scenes_mask_rcnn", "scenes_retinanet"])
def test_recipes_of_scenes_run_from_end_to_end(tmp_path, name, monkeypatch):
    monkeypatch.setattr(scenes, "LENGTHS", {"train": 8, "validation": 3, "test": 5})
    recipe = load_recipe(name, [*SMALL, "train.steps=2", "data.batch_size=4", "schedule.warmup_steps=1"])
    result = train(recipe, folder=tmp_path / "run")
    assert result.status == "finished" and result.test["count"] == 5
    assert 0 <= result.test["box_ap"] <= result.test["box_ap50"] <= 1
