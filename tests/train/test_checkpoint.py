"""The newest whole checkpoint is found whatever was done to the newer ones, and the damage is named."""

import hashlib
import json
import pickle
import shutil

import pytest
import torch
from runs import StopAfter, Watcher, assert_same_ending, tiny_recipe

import crosshead
from crosshead.formats import FORMAT
from crosshead.train import train
from crosshead.train.checkpoint.store import CheckpointStore, read_tensors
from crosshead.train.files import MANIFEST, write_manifest


def cut_short(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def flip_one_bit(path, name="model.safetensors"):
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 4
    (path / name).write_bytes(content)


def flip_in_the_manifest(path):
    """A bit of a digest: the text stays readable JSON."""
    text = (path / MANIFEST).read_text()
    place = text.index('"sha256": "') + 12
    (path / MANIFEST).write_text(text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :])


DAMAGES = {
    "cut short": (cut_short, "model.safetensors has .* bytes, not"),
    "one bit flipped in the weights": (flip_one_bit, "model.safetensors has other content"),
    "one bit flipped in the optimizer": (
        lambda path: flip_one_bit(path, "optimizer.safetensors"),
        "optimizer",
    ),
    "one bit flipped in the state": (
        lambda path: flip_one_bit(path, "state.json"),
        "state.json has other content",
    ),
    "manifest missing": (lambda path: (path / MANIFEST).unlink(), "manifest.json is missing"),
    "manifest changed": (flip_in_the_manifest, "manifest.json was changed|has other content"),
    "manifest empty": (lambda path: (path / MANIFEST).write_text(""), "manifest.json is not readable"),
    "manifest not a mapping": (
        lambda path: (path / MANIFEST).write_text("[1]"),
        "manifest.json is not readable",
    ),
    "state missing": (lambda path: (path / "state.json").unlink(), "state.json is missing"),
    "weights empty": (lambda path: (path / "model.safetensors").write_bytes(b""), "has 0 bytes"),
}


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (2, 4):
        store.write(
            step,
            {"model": {"w": torch.arange(1000.0) + step}, "optimizer": {"m": torch.ones(50)}},
            {"step": step},
        )
    return store


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(store, kind):
    damage, reason = DAMAGES[kind]
    damage(store.path(4))
    path, damages = store.newest_good()
    assert path == store.path(2)
    assert [each.path for each in damages] == [store.path(4)]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(damages[0].reason)


def test_whole_checkpoints_are_read_back(store):
    assert store.newest_good() == (store.path(4), [])
    assert torch.equal(read_tensors(store.path(4))["model"]["w"], torch.arange(1000.0) + 4)


def test_a_run_resumes_from_the_last_good_checkpoint_and_reports_the_damage(tmp_path, unstopped):
    folder = tmp_path / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(8))
    newest = CheckpointStore(folder).path(9)
    flip_one_bit(newest)
    watcher = Watcher()
    train(tiny_recipe(), folder=folder, resume=True, callback=watcher)
    damage = next(event for event in watcher.events if event.kind == "damage")
    assert "step-00000009 is damaged" in damage.message and "SHA-256 differs" in damage.message
    assert any("resumed from" in event.message and "step 8" in event.message for event in watcher.events)
    assert newest.with_name("step-00000009.damaged").exists()
    assert_same_ending(folder, unstopped)


def test_with_every_checkpoint_damaged_a_run_starts_again_and_says_why(tmp_path, unstopped):
    folder = tmp_path / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(8))
    paths = list((folder / "checkpoints").iterdir())
    for path in paths:
        flip_one_bit(path)
    watcher = Watcher()
    train(tiny_recipe(), folder=folder, resume=True, callback=watcher)
    assert watcher.kinds().count("damage") == len(paths)
    assert any("starting from the beginning" in event.message for event in watcher.events)
    assert_same_ending(folder, unstopped)


@pytest.mark.parametrize(
    ("left", "found"),
    [
        (["step-00000004.replaced"], [2, 4]),  # killed between the two renames
        (["step-00000004.replaced", "step-00000004"], [2, 4]),  # killed before the old one was deleted
        ([".writing-00000006", "step-00000004"], [2, 4]),  # killed while writing
        ([".deleting-00000004"], [2]),  # killed while deleting
    ],
)
def test_what_a_killed_writer_leaves_is_put_right(store, left, found):
    kept = store.folder / "kept"
    store.path(4).rename(kept)
    for name in left:
        shutil.copytree(kept, store.folder / name)
    shutil.rmtree(kept)
    store.recover()
    assert store.steps() == found
    assert sorted(path.name for path in store.folder.iterdir()) == [f"step-{step:08d}" for step in found]
    assert store.newest_good()[0] == store.path(found[-1])


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in range(1, 7):
        store.write(step, {"model": {"w": torch.zeros(1)}}, {})
        store.point_best(min(step, 2))
        store.prune(keep_last=2, best_step=min(step, 2))
    assert store.steps() == [2, 5, 6]
    assert (tmp_path / "best").resolve() == store.path(2).resolve()


def test_writing_a_step_again_replaces_it(store):
    store.write(4, {"model": {"w": torch.zeros(3)}}, {"again": True})
    assert store.newest_good() == (store.path(4), [])
    assert read_tensors(store.path(4))["model"]["w"].shape == (3,)


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(3))
    return folder


@pytest.mark.parametrize("dump", [pickle.dump, torch.save], ids=["pickle", "torch"])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"]
)
def test_a_pickle_in_the_place_of_any_file_is_not_run(tmp_path, stopped, name, dump):
    folder, mark = shutil.copytree(stopped, tmp_path / "run", symlinks=True), tmp_path / "mark"
    path = CheckpointStore(folder).path(4)
    with open(path / name, "wb") as file:
        dump(Bomb(mark), file)
    # An attacker can compute digests too.
    write_manifest(path, {each.name: _sha256(each) for each in path.iterdir() if each.name != MANIFEST})
    with pytest.raises(ValueError, match="step-00000004"):
        train(tiny_recipe(), folder=folder, resume=True)
    assert not mark.exists()


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_state_is_plain_json(store):
    held = json.loads((store.path(4) / "state.json").read_text())
    assert held == {"format": FORMAT, "crosshead": crosshead.__version__, "step": 4}


def plain_file(path):
    shutil.rmtree(path)
    path.write_text("not a folder")


def manifest_cannot_be_read(path):
    """A folder in its place fails as a file without permission does, for root too."""
    (path / MANIFEST).unlink()
    (path / MANIFEST).mkdir()


@pytest.mark.parametrize("harm", [plain_file, manifest_cannot_be_read])
def test_what_only_has_a_checkpoints_name_is_passed_over(store, harm):
    harm(store.path(4))
    (store.folder / "step-6").mkdir()  # not a name of ours
    assert store.steps() == [2, 4]
    newest, damages = store.newest_good()
    assert newest == store.path(2) and [damage.path for damage in damages] == [store.path(4)]
    store.write(4, {"model": {"w": torch.ones(3)}}, {"step": 4})  # its place can be taken
    assert store.newest_good()[0] == store.path(4)
    harm(store.path(2))
    store.prune(1, None)
    assert store.steps() == [4] and not list(store.folder.glob(".*"))
    harm(store.path(4))
    store.set_aside(store.newest_good()[1])
    assert store.steps() == [] and (store.folder / "step-00000004.damaged").exists()
