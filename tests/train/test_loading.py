"""A run's model comes back as it was evaluated, and what cannot be loaded is explained."""

import shutil
from pathlib import Path

import pytest
import safetensors.torch
from PIL import Image
from runs import ending, tiny_recipe

from crosshead.train import Result, evaluate_run, find_weights, load_run, train
from crosshead.train.checkpoint.resume import find_start, resolve_start
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.inference import evaluate_loaded
from crosshead.train.tools.doctor import examine


def test_the_selected_weights_give_the_metrics_of_the_result(unstopped):
    result = Result.load(unstopped)
    assert find_weights(unstopped).resolve() == result.weights.resolve()
    assert result.weights.name == "ema.safetensors"
    assert evaluate_run(unstopped, split="test") == result.test
    assert evaluate_run(unstopped, split="validation") == result.validation


def test_without_a_test_split_the_validation_split_is_evaluated(tmp_path):
    for number, name in enumerate(["cat", "dog"]):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (12, 12), (100 * number, 20 * i, 0)).save(tmp_path / "pets" / name / f"{i}.png")
    data = {
        "name": "folder",
        "root": str(tmp_path / "pets"),
        "image_size": 8,
        "batch_size": 2,
        "validation": 0.4,
    }
    train(tiny_recipe(data=data), folder=tmp_path / "run")
    trained = load_run(tmp_path / "run")
    found = evaluate_loaded(trained)
    assert found.split == "validation" and found.metrics == evaluate_run(tmp_path / "run", split="validation")
    assert evaluate_run(tmp_path / "run") == found.metrics


def test_a_model_is_loaded_with_its_classes_in_evaluation_mode(unstopped):
    trained = load_run(unstopped, checkpoint="last")
    assert not trained.model.training
    assert trained.info.class_names == tuple("0123456789")
    assert trained.weights.parent == CheckpointStore(unstopped).path(18)
    assert trained.recipe == tiny_recipe()


def test_a_moved_run_is_still_read(unstopped, tmp_path):
    moved = shutil.copytree(unstopped, tmp_path / "moved", symlinks=True)
    assert evaluate_run(moved)["accuracy"] == ending(unstopped)["test"]["accuracy"]


def test_a_step_can_be_named(unstopped):
    step = CheckpointStore(unstopped).steps()[-1]
    assert find_weights(unstopped, str(step)).parent == CheckpointStore(unstopped).path(step)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [("newest", "expected best, last, or a step's number"), ("7", "no checkpoint '7'; there are the steps")],
)
def test_a_checkpoint_that_is_not_there_is_explained(unstopped, checkpoint, message):
    with pytest.raises(ValueError) as caught:
        find_weights(unstopped, checkpoint)
    assert message in str(caught.value)


def test_what_is_wrong_is_explained(unstopped, tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="has no split 'training'"):
        evaluate_run(unstopped, split="training")
    copy = shutil.copytree(unstopped, tmp_path / "copy", symlinks=True)
    weights = find_weights(copy)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        load_run(copy)


def test_weights_of_another_shape_are_named(unstopped):
    trained = load_run(unstopped)
    from crosshead.train.checkpoint.state import load_weights

    weights = safetensors.torch.load_file(trained.weights)
    weights["blocks.0.attn.proj.weight"] = weights["blocks.0.attn.proj.weight"][:, :8]
    del weights["head.bias"]
    with pytest.raises(ValueError) as caught:
        load_weights(trained.model, weights, "the file")
    assert "1 missing (head.bias)" in str(caught.value)
    assert "blocks.0.attn.proj.weight is (16, 8) there and (16, 16) in the model" in str(caught.value)


@pytest.fixture
def hashed(monkeypatch):
    """The files that were compared with their SHA-256."""
    from crosshead.train import files

    read, real = [], files.digest_of
    monkeypatch.setattr(files, "digest_of", lambda file: read.append(Path(file.name)) or real(file))
    return read


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_what_is_read_is_compared_once_and_nothing_else(checkpoint, unstopped, hashed):
    trained = load_run(unstopped, checkpoint=checkpoint)
    tensors = [path for path in hashed if path.suffix == ".safetensors"]
    assert [path.name for path in tensors] == ["ema.safetensors"] and tensors[0].samefile(trained.weights)


def test_an_optimizer_that_is_damaged_costs_no_prediction(unstopped, tmp_path, hashed):
    copy = shutil.copytree(unstopped, tmp_path / "copy", symlinks=True)
    for path in copy.glob("checkpoints/*/optimizer.safetensors"):
        path.write_bytes(b"cut")
    assert load_run(copy).weights.name == "ema.safetensors"
    assert CheckpointStore(copy).newest_good()[0] is None


def test_a_listed_file_that_has_gone_is_missed(unstopped, tmp_path):
    copy = shutil.copytree(unstopped, tmp_path / "copy", symlinks=True)
    for path in copy.glob("checkpoints/*/ema.safetensors"):
        path.unlink()
    with pytest.raises(ValueError, match=r"is damaged: ema.safetensors is missing"):
        load_run(copy)


def test_resuming_and_examining_compare_each_file_once(unstopped, tmp_path, hashed):
    copy = shutil.copytree(unstopped, tmp_path / "copy", symlinks=True)
    store = CheckpointStore(copy)
    start = find_start(store, resume=True)
    resolve_start(store, start)
    assert len(hashed) == len({path.resolve() for path in hashed}) > 0
    hashed.clear()
    examine(copy)
    optimizers = [path.resolve() for path in hashed if path.name == "optimizer.safetensors"]
    assert len(optimizers) == len(set(optimizers)) > 0
