"""A run that is resumed with something changed: applied, or refused before anything is written, and said."""

import shutil

import pytest
import torch
from runs import StopAfter, Watcher, assert_same_ending, tiny_recipe
from test_broken_images import folder_recipe, image_folder

from crosshead.recipe import load_recipe
from crosshead.train import Result, evaluate_run, train
from crosshead.train.checkpoint.store import CheckpointStore, read_state, read_tensors


@pytest.fixture(scope="module")
def stopped_source(tmp_path_factory):
    """A run of 10 steps."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(9))
    return folder


@pytest.fixture
def stopped(tmp_path, stopped_source):
    return shutil.copytree(stopped_source, tmp_path / "run", symlinks=True)


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def groups_of(folder):
    return read_state(CheckpointStore(folder).newest_good()[0])["optimizer"]["groups"]


@pytest.mark.parametrize(
    ("optimizer", "key", "wanted"),
    [
        ({"weight_decay": 0.3}, "weight_decay", [0.0, 0.3]),
        ({"weight_decay": 0.0}, "weight_decay", [0.0]),
        ({"betas": [0.5, 0.9]}, "betas", [[0.5, 0.9]] * 2),
        ({"eps": 1e-3}, "eps", [1e-3] * 2),
    ],
)
def test_a_changed_setting_of_the_optimizer_is_applied(stopped, unstopped, optimizer, key, wanted):
    watcher = Watcher()
    train(tiny_recipe(optimizer=optimizer), folder=stopped, resume=True, callback=watcher)
    assert [group[key] for group in groups_of(stopped)] == wanted
    assert any(f"optimizer.{key} was" in event.message for event in watcher.events)
    first, second = (read_tensors(CheckpointStore(folder).path(18)) for folder in (stopped, unstopped))
    assert not torch.equal(
        first["model"]["blocks.0.attn.qkv.weight"], second["model"]["blocks.0.attn.qkv.weight"]
    )
    steps = {float(value) for name, value in first["optimizer"].items() if name.endswith("/step")}
    assert steps == {18.0}, "what the optimizer has learned goes on"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optimizer": {"name": "sgd"}}, r"state of adamw, which is none for sgd; .*optimizer\.name=adamw"),
        (
            {"train": {"ema_decay": None}},
            r"keeps an average of its weights; resume with train\.ema_decay=0\.9",
        ),
        ({"data": {"split_seed": 7}}, r"trained on pictures that it is validated on; .*data\.split_seed=0"),
        ({"data": {"validation": 0.5}}, r"resume with data\.validation=0\.9"),
        ({"train": {"seed": 3}}, r"data\.split_seed=0"),
        ({"model": {"drop_path_rate": 0.2}}, "another model"),
    ],
)
@pytest.mark.parametrize("named", [False, True], ids=["newest", "an earlier one"])
def test_what_cannot_be_changed_is_refused_before_anything_is_written(stopped, changes, reason, named):
    before = files_of(stopped)
    resume = CheckpointStore(stopped).path(8) if named else True
    with pytest.raises(ValueError, match=reason):
        train(tiny_recipe(**changes), folder=stopped, resume=resume)
    after = files_of(stopped)
    assert before.keys() == after.keys() - {stopped / ".lock"} | (before.keys() & {stopped / ".lock"})
    assert all(after[path] == content for path, content in before.items() if path.name != ".lock")


def test_an_average_cannot_be_begun_in_the_middle(tmp_path):
    recipe = tiny_recipe(train={"ema_decay": None})
    train(recipe, folder=tmp_path / "run", callback=StopAfter(3))
    with pytest.raises(
        ValueError, match=r"keeps no average of its weights; resume with train\.ema_decay=null"
    ):
        train(tiny_recipe(), folder=tmp_path / "run", resume=True)


def test_a_run_of_the_version_before_keeps_its_split_and_meets_no_change(tmp_path, unstopped, monkeypatch):
    """Its checkpoints know neither a seed of the split nor what the data was."""
    folder = tmp_path / "run"
    original = CheckpointStore.write

    def write(store, step, tensors, state):
        state = {key: value for key, value in state.items() if key not in ("data", "held_out")}
        recipe = {**state["recipe"], "data": {**state["recipe"]["data"]}}
        del recipe["data"]["split_seed"]
        return original(store, step, tensors, {"format": 1, **state, "recipe": recipe})

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "write", write)
        train(tiny_recipe(), folder=folder, callback=StopAfter(9))
    watcher = Watcher()
    train(tiny_recipe(), folder=folder, resume=True, callback=watcher)
    assert not {"recipe_changed", "data_changed"} & set(watcher.kinds())
    assert_same_ending(folder, unstopped)


def test_the_split_has_a_seed_of_its_own(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: {name: digits}\ntrain: {seed: 3}\n")
    assert load_recipe(recipe).split_seed == 3, "a recipe keeps the split that it had"
    assert load_recipe(recipe, ["train.seed=5"]).split_seed == 3, "another seed of the run changes no split"
    assert load_recipe(recipe, [], {"train.seed": 5}).split_seed == 3
    assert load_recipe(recipe, ["data.split_seed=4"]).split_seed == 4
    assert load_recipe(recipe, ["data.split_seed=null", "train.seed=5"]).split_seed == 5


def test_changed_training_pictures_are_counted_and_named(tmp_path):
    root, folder = image_folder(tmp_path / "data"), tmp_path / "run"
    recipe = folder_recipe(root)
    train(recipe, folder=folder, callback=StopAfter(8))
    for number in range(20, 30):
        (root / "train" / "cat" / f"{number:02}.png").unlink()
    (root / "train" / "dog" / "00.png").rename(root / "train" / "dog" / "a.png")
    watcher = Watcher()
    result = train(recipe, folder=folder, resume=True, callback=watcher)
    (event,) = (event for event in watcher.events if event.kind == "data_changed")
    assert "50 train pictures instead of 60 ('cat' 20 instead of 30, 'dog' has other names)" in event.message
    assert "validation" not in event.message.split("The weights")[0]
    assert result.status == "finished" and watcher.info.start_step <= watcher.info.total_steps == result.step


def test_the_rate_follows_the_epochs_when_the_number_of_pictures_changes(tmp_path):
    root, folder = image_folder(tmp_path / "data"), tmp_path / "run"
    recipe = folder_recipe(root)
    train(recipe, folder=folder, callback=StopAfter(5))
    for path in sorted((root / "train").rglob("2*.png")):
        path.unlink()
    watcher = Watcher()
    train(recipe, folder=folder, resume=True, callback=watcher)
    rates = [record.lr for record in watcher.records if hasattr(record, "lr")]
    assert rates[0] == pytest.approx(recipe.optimizer.lr), (
        "the first step of the second epoch, after the warm-up"
    )
    assert rates[-1] < 0.5 * rates[0]


def test_data_that_has_only_moved_has_not_changed(tmp_path):
    root, folder = image_folder(tmp_path / "data"), tmp_path / "run"
    train(folder_recipe(root), folder=folder, callback=StopAfter(3))
    moved = root.rename(tmp_path / "moved")
    watcher = Watcher()
    train(folder_recipe(moved), folder=folder, resume=True, callback=watcher)
    assert "data_changed" not in watcher.kinds()


def test_a_run_that_was_copied_with_its_links_followed_goes_on_and_prunes(
    tmp_path, stopped_source, unstopped
):
    folder = shutil.copytree(stopped_source, tmp_path / "run", symlinks=False)
    assert (folder / "best").is_dir() and not (folder / "best").is_symlink()
    watcher = Watcher()
    result = train(tiny_recipe(), folder=folder, resume=True, callback=watcher)
    assert "tidying_failed" not in watcher.kinds()
    assert (folder / "best").is_symlink()
    assert (folder / "best").resolve().name == f"step-{result.selected_step:08d}"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == sorted(
        path.name for path in (unstopped / "checkpoints").iterdir()
    )
    assert_same_ending(folder, unstopped)


@pytest.mark.parametrize("links", ["followed", "left out"])
def test_the_best_of_a_copied_run_is_the_one_that_its_newest_checkpoint_names(tmp_path, unstopped, links):
    folder = shutil.copytree(unstopped, tmp_path / "run", symlinks=False)
    shutil.rmtree(folder / "best")
    if links == "followed":  # and stale
        shutil.copytree(CheckpointStore(folder).path(18), folder / "best")
    assert evaluate_run(folder, split="test") == Result.load(unstopped).test


def test_a_best_that_is_only_there_as_a_folder_is_used(tmp_path, unstopped):
    folder = shutil.copytree(unstopped, tmp_path / "run", symlinks=False)
    best = Result.load(unstopped).selected_step
    shutil.rmtree(CheckpointStore(folder).path(best))
    assert evaluate_run(folder, split="test") == Result.load(unstopped).test
    shutil.rmtree(folder / "checkpoints")
    assert evaluate_run(folder, split="test") == Result.load(unstopped).test


def test_a_copied_best_can_be_gone_back_to(tmp_path, stopped_source, unstopped):
    folder = shutil.copytree(stopped_source, tmp_path / "run", symlinks=False)
    watcher = Watcher()
    train(tiny_recipe(), folder=folder, resume=folder / "best", callback=watcher)
    assert watcher.info.start_step == 6 and watcher.info.folder == folder
    assert_same_ending(folder, unstopped)


def test_more_steps_go_on_from_within_the_epoch_in_which_the_first_ones_ended(tmp_path):
    """8 steps of epochs of 6, begun as 2: the same pictures in the same order as of 8 at once."""

    def of(steps):
        return tiny_recipe(train={"steps": steps}, schedule={"name": "constant", "warmup_epochs": 0.0})

    whole = train(of(8), folder=tmp_path / "whole")
    train(of(2), folder=tmp_path / "run")
    longer = train(of(8), folder=tmp_path / "run", resume=True)
    assert longer.status == "finished" and longer.step == whole.step == 8
    at_once, in_two = (
        read_tensors(CheckpointStore(tmp_path / name).path(8))["model"] for name in ("whole", "run")
    )
    assert all(torch.equal(at_once[name], in_two[name]) for name in at_once)
