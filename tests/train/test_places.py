"""Where a run lies and what it is made from: several at once, other folders, machines and names."""

import shutil

import pytest
import timm
import torch
from runs import StopAfter, tiny_recipe

from crosshead.train import evaluate_run, load_run, train
from crosshead.train.checkpoint.resume import claim_folder
from crosshead.train.logging.curves import compare_curves, draw_curves
from crosshead.train.run_folder.folder import named_folder
from crosshead.train.run_folder.lock import FolderLock
from data.odd_files import write_class_folders


def test_a_folder_that_another_run_has_just_taken_is_passed_over(tmp_path):
    recipe = tiny_recipe(output=str(tmp_path), name="mine")
    first, folder, _ = claim_folder(recipe, None, False)
    second, other, _ = claim_folder(recipe, None, False)
    assert (folder, other) == (tmp_path / "mine", tmp_path / "mine-2")
    first.release()
    second.release()


def test_a_run_that_came_and_went_meanwhile_is_passed_over(tmp_path, monkeypatch):
    recipe, acquire = tiny_recipe(output=str(tmp_path), name="mine"), FolderLock.acquire

    def late(lock):
        if lock.path.parent.name == "mine":
            (lock.path.parent / "recipe.yaml").write_text("")
        acquire(lock)

    monkeypatch.setattr(FolderLock, "acquire", late)
    lock, folder, _ = claim_folder(recipe, None, False)
    assert folder == tmp_path / "mine-2"
    lock.release()


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "a/../../escape", "..", ".", ""])
def test_a_name_that_leads_out_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="leads out of"):
        named_folder(tiny_recipe(output=str(tmp_path), name=name))


def test_a_name_with_dollar_signs_is_no_formula(unstopped, tmp_path, rendered):
    folder = shutil.copytree(unstopped, tmp_path / "a $\\frac$ b", symlinks=True)
    assert draw_curves(folder).stat().st_size > 0
    assert compare_curves({"$_{$": folder}, "$^$", tmp_path / "both.png").exists()


def folder_recipe(root, **changes):
    data = {"name": "folder", "root": root, "validation": 0.25, "batch_size": 3}
    return tiny_recipe(data=data, train={"epochs": 2, **changes.pop("train", {})}, **changes)


def test_a_relative_data_folder_is_found_from_anywhere(tmp_path, monkeypatch):
    write_class_folders(tmp_path / "pets", {"cat": 8, "dog": 8})
    monkeypatch.chdir(tmp_path)
    assert train(folder_recipe("pets"), folder=tmp_path / "run", callback=StopAfter(1)).status == "stopped"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate_run(tmp_path / "run", checkpoint="last")["count"] == 4
    assert load_run(tmp_path / "run", checkpoint="last").recipe.data.root == str(tmp_path / "pets")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device must be one that is not there")
def test_a_run_of_another_device_is_loaded_on_the_best_one_there_is(unstopped, tmp_path):
    run = shutil.copytree(unstopped, tmp_path / "run", symlinks=True)
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("device: cpu", "device: cuda:3"))
    assert next(load_run(run).model.parameters()).device.type in ("cpu", "mps")
    with pytest.raises(ValueError, match="asks for CUDA device"):
        load_run(run, device="cuda")


def test_resuming_and_loading_need_no_first_weights(unstopped, tmp_path, monkeypatch):
    """Neither the file that a run started from, nor a network."""
    weights = shutil.copy(unstopped / "best" / "model.safetensors", tmp_path / "first.safetensors")
    fetched, create = [], timm.create_model

    def without_network(name, pretrained=False, **options):
        fetched.append(pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", without_network)
    recipe = tiny_recipe()
    model = recipe.model
    started = recipe.model_copy(
        update={
            "model": model.model_copy(
                update={"init_from": str(weights), "args": {**model.args, "pretrained": True}}
            )
        }
    )
    folder = tmp_path / "run"
    train(started, folder=folder, callback=StopAfter(8))
    assert fetched == [True]
    (tmp_path / "first.safetensors").unlink()
    assert train(started, folder=folder, resume=True).status == "finished"
    evaluate_run(folder)
    assert fetched == [True, False, False]
