"""``model.init_from=RUN``: the run says which model its weights are of and how it saw pictures."""

import shutil

import pytest
from runs import StopAfter, Watcher, tiny_recipe

from crosshead.cli import main
from crosshead.recipe import load_recipe
from crosshead.train import load_run, train
from crosshead.train.resolve import resolve
from data.odd_files import write_class_folders

ARGS = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of a small model, in grey, of 12 pixels."""
    folder = tmp_path_factory.mktemp("first")
    write_class_folders(folder / "pets", {"cat": 12, "dog": 12})
    recipe = tiny_recipe(
        model={"name": "vit_small_patch16_224", "args": ARGS},
        data={"image_size": 12, "channels": 1, "interpolation": "bilinear"},
        train={"epochs": 1, "ema_decay": None},
        schedule={"warmup_epochs": 0.0},
    )
    train(recipe, folder=folder / "run")
    return folder


def following(first, *more):
    words = [f"data.root={first / 'pets'}", f"model.init_from={first / 'run'}", "data.batch_size=4"]
    values = {
        "train.epochs": 2,
        "train.device": "cpu",
        "log.tensorboard": False,
        "schedule.warmup_epochs": 0.0,
    }
    return load_recipe("finetune", [*words, *more], values)


def test_a_shipped_recipe_goes_on_from_any_runs_model(first, tmp_path):
    watcher = Watcher()
    result = train(following(first), folder=tmp_path / "run", callback=watcher)
    assert result.status == "finished"
    trained = load_run(tmp_path / "run")
    model, data = trained.recipe.model, trained.recipe.data
    assert (model.name, model.args, model.interaction) == ("vit_small_patch16_224", ARGS, None)
    assert (data.image_size, data.channels, data.interpolation) == (12, 1, "bilinear")
    assert data.mean == list(load_run(first / "run").info.mean)
    (said,) = (event.message for event in watcher.events if "taken from the run" in event.message)
    assert "model.name=vit_small_patch16_224" in said and "data.channels=1" in said


def test_heads_of_the_same_model_may_be_made_to_interact(first):
    model = resolve(following(first, "model.name=vit_small_patch16_224")).model
    assert model.interaction is not None and model.args == ARGS


@pytest.mark.parametrize("gone", ["damaged", "removed"])
def test_resuming_needs_nothing_of_the_run_that_it_started_from(first, tmp_path, gone):
    place = shutil.copytree(first, tmp_path / "first", symlinks=True)
    train(following(place), folder=tmp_path / "run", callback=StopAfter(3))
    if gone == "removed":
        shutil.rmtree(place / "run")
    else:
        (place / "run" / "recipe.yaml").write_text("model: [")
    watcher = Watcher()
    recorded = load_recipe(tmp_path / "run" / "recipe.yaml")
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=True)
    assert train(recorded, folder=tmp_path / "run", resume=True, callback=watcher).status == "finished"
    assert not {"recipe_changed", "data_changed"} & set(watcher.kinds())
    watcher = Watcher()
    assert train(following(place), folder=copy, resume=True, callback=watcher).status == "finished"
    assert not {"recipe_changed", "data_changed"} & set(watcher.kinds())


def test_another_model_that_is_asked_for_is_refused_before_the_time_is_told(first, capsys, tmp_path):
    words = ["finetune", f"data.root={first / 'pets'}", f"model.init_from={first / 'run'}"]
    assert main(["train", *words, "model.name=vit_base_patch16_224", f"output={tmp_path}"]) == 2
    told = capsys.readouterr()
    assert "is a run of vit_small_patch16_224, whose weights fit no other model" in told.err
    assert "measuring" not in told.out
