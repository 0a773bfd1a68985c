"""Every file that is kept says its format; earlier ones are read, later ones are refused in a sentence."""

import hashlib
import json
import re
import shutil

import pytest
import timm

import crosshead
from crosshead.formats import FORMAT, NewerFormat, numbered, read_numbered
from crosshead.recipe.compose import load_recipe
from crosshead.train import Result, load_run, train
from crosshead.train.checkpoint.store import CheckpointStore, read_state
from crosshead.train.files import MANIFEST, Damaged, verify
from crosshead.train.run_folder.design import read_design
from crosshead.train.run_folder.folder import read_info
from crosshead.train.tools.doctor import examine

RUN_FILES = ("classes.json", "launch.json", "design.json", "result.json")
LATER = {"format": FORMAT + 1, "crosshead": "7.3.0"}
SAYS = rf"is of format {FORMAT + 1}, written by crosshead 7\.3\.0, .*: install crosshead 7\.3\.0 or later$"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats") / "run"
    words = ["train.steps=2", "train.device=cpu", "log.tensorboard=false", "data.eval_batch_size=512"]
    args = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = {"model.name": "vit_tiny_patch16_224", "model.args": args}
    train(load_recipe("digits", words, model), folder=folder)
    return folder


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run", symlinks=True)


def rewrite(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def rewrite_manifest(checkpoint, **changes):
    values = json.loads((checkpoint / MANIFEST).read_text()) | changes
    for name, entry in values["files"].items():
        content = (checkpoint / name).read_bytes()
        entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    del values["sha256"]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    (checkpoint / MANIFEST).write_text(json.dumps({**values, "sha256": digest}))


def test_every_file_of_a_run_says_its_format(run):
    checkpoint = CheckpointStore(run).path(2)
    files = [*(run / name for name in RUN_FILES), checkpoint / "state.json", checkpoint / MANIFEST]
    for file in files:
        held = json.loads(file.read_text())
        assert (held["format"], held["crosshead"]) == (FORMAT, crosshead.__version__), file.name
    assert (
        (run / "recipe.yaml")
        .read_text()
        .startswith(f"# format: {FORMAT} (crosshead {crosshead.__version__})\n")
    )


def test_a_saved_model_says_its_format_and_timm_reads_it(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=16, depth=1, num_heads=2)
    crosshead.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["format"] == FORMAT
    timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    rewrite(tmp_path / "config.json", **LATER)
    with pytest.raises(NewerFormat, match=SAYS):
        crosshead.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "read"),
    [("classes.json", read_info), ("design.json", read_design), ("result.json", Result.load)],
)
def test_a_later_file_is_refused_by_name_and_version(copied, name, read):
    read(copied)
    rewrite(copied / name, **LATER)
    with pytest.raises(NewerFormat, match=rf"{re.escape(name)} {SAYS}"):
        read(copied)


def test_a_later_recipe_is_refused_before_its_keys_are_looked_at(copied):
    file = copied / "recipe.yaml"
    file.write_text(f"# format: {FORMAT + 1} (crosshead 7.3.0)\nnew_key: 1\n")
    with pytest.raises(NewerFormat, match=SAYS):
        load_run(copied)


def test_a_later_checkpoint_is_refused_and_left_as_it_is(copied):
    checkpoint = CheckpointStore(copied).path(2)
    rewrite_manifest(checkpoint, **LATER)
    before = sorted(path.name for path in copied.rglob("*"))
    with pytest.raises(NewerFormat, match=SAYS):
        train(load_recipe(copied / "recipe.yaml"), folder=copied, resume=True)
    assert sorted(path.name for path in copied.rglob("*")) == before


@pytest.mark.parametrize("name", ["recipe.yaml", "classes.json", "a checkpoint"])
def test_doctor_finds_a_later_format_and_does_not_fail(copied, name):
    if name == "a checkpoint":
        rewrite_manifest(CheckpointStore(copied).path(2), **LATER)
    elif name == "recipe.yaml":
        (copied / name).write_text(f"# format: {FORMAT + 1} (crosshead 7.3.0)\nnew_key: 1\n")
    else:
        rewrite(copied / name, **LATER)
    (finding,) = examine(copied).findings
    assert finding.level == "error" and finding.subject == str(copied)
    assert re.search(SAYS, finding.message) and "\n" not in finding.message


def test_a_later_state_in_an_earlier_list_is_refused(copied):
    checkpoint = CheckpointStore(copied).path(2)
    rewrite(checkpoint / "state.json", **LATER)
    rewrite_manifest(checkpoint)
    with pytest.raises(NewerFormat, match=SAYS):
        read_state(checkpoint)


def test_a_number_that_was_changed_is_damage_and_no_later_version(copied):
    checkpoint = CheckpointStore(copied).path(2)
    for number in (1, FORMAT + 1):
        rewrite(checkpoint / MANIFEST, format=number)
        with pytest.raises(Damaged, match="was changed"):
            verify(checkpoint)


def test_files_without_a_number_are_of_0_1():
    assert read_numbered({"a": 1}, "file") == {"a": 1}
    assert read_numbered({"a": 1}, "file", lambda values: values | {"b": 2}) == {"a": 1, "b": 2}
    assert read_numbered(numbered({"a": 1}), "file", lambda values: values | {"b": 2}) == {"a": 1}


@pytest.mark.parametrize("number", ["2", 0, -1, True, None, 2.0])
def test_what_is_no_number_of_a_format_is_said(number):
    with pytest.raises(ValueError, match="expected a number from 1, got"):
        read_numbered({"format": number}, "file")
    with pytest.raises(ValueError, match="expected keys and values, got list"):
        read_numbered([1], "file")
