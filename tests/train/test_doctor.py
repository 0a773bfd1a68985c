"""The doctor says what is wrong with a run and what resuming would do, and touches nothing."""

import hashlib
import json
import shutil

import pytest
from runs import StopAfter, Watcher, tiny_recipe

from crosshead.train import train
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.logging.log_files import read_lines
from crosshead.train.tools.doctor import examine


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(8))
    return folder


@pytest.fixture
def patient(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run", symlinks=True)


def content(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def messages(report, level):
    return [f"{finding.subject}: {finding.message}" for finding in report.findings if finding.level == level]


def test_a_healthy_stopped_run(patient):
    before = content(patient)
    report = examine(patient)
    assert report.healthy and not messages(report, "error")
    assert report.newest_good == CheckpointStore(patient).path(9)
    assert report.advice.startswith(
        f"resuming would go on from {report.newest_good}: step 9, epoch 2 of 3, 72 of"
    )
    assert any(
        "10 classes; images: 145 train, 1,293 validation, 359 test" in each
        for each in messages(report, "good")
    )
    assert content(patient) == before


def test_a_finished_run(unstopped):
    report = examine(unstopped)
    assert report.healthy and report.advice.startswith("the run is finished")


def test_damage_leftovers_and_steps_to_compute_again(patient):
    store = CheckpointStore(patient)
    (store.path(9) / "optimizer.safetensors").write_bytes(b"short")
    (store.folder / ".writing-00000011").mkdir()
    (store.folder / "step-00000004.damaged").mkdir()
    log = patient / "metrics.jsonl"
    steps = [line for line in map(json.loads, log.read_text().splitlines()) if line["kind"] == "step"]
    with open(log, "a") as file:
        file.write(json.dumps({**steps[-1], "step": 10, "skipped": True}) + "\n")
    before = content(patient)
    report = examine(patient)
    assert not report.healthy and report.newest_good == store.path(8)
    assert any(
        "step-00000009: damaged: optimizer.safetensors has 5 bytes" in each
        for each in messages(report, "error")
    )
    notes = messages(report, "note")
    assert any("left by a process that was killed" in each for each in notes)
    assert any("set aside" in each for each in notes)
    assert any("2 steps after the newest good checkpoint would be computed again" in each for each in notes)
    assert any("1 logged steps were skipped" in each for each in messages(report, "warning"))
    assert content(patient) == before


def test_a_best_that_is_gone_and_no_checkpoint_at_all(patient):
    shutil.rmtree(patient / "checkpoints")
    report = examine(patient)
    assert any("leads to a checkpoint that is not there" in each for each in messages(report, "error"))
    assert report.advice == "resuming would start from the beginning: there is no whole checkpoint"


def test_other_versions_and_an_unreadable_recipe_are_named(patient):
    versions = json.loads((patient / "versions.json").read_text())
    (patient / "versions.json").write_text(json.dumps({**versions, "torch": "1.0"}))
    assert any("torch 1.0 -> " in each for each in messages(examine(patient), "note"))
    (patient / "recipe.yaml").write_text("model: {")
    assert any("recipe.yaml: cannot be read" in each for each in messages(examine(patient), "error"))


def image_folder(root, classes, broken=False):
    from PIL import Image

    for split, count in (("train", 4), ("val", 2)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (number * 40, 0, 0)).save(root / split / name / f"{number}.png")
    if broken:
        (root / "train" / classes[0] / "0.png").write_bytes(b"\x89PNG but no more")
    return root


def test_data_with_other_classes_and_broken_images(patient, tmp_path):
    data = image_folder(tmp_path / "data", ["cat", "dog"], broken=True)
    recipe = (patient / "recipe.yaml").read_text().replace("name: digits", "name: folder")
    (patient / "recipe.yaml").write_text(recipe)
    seen = []
    report = examine(patient, data, read_images=True, progress=lambda done, total: seen.append((done, total)))
    assert any("other classes than the run was started with" in each for each in messages(report, "error"))
    assert any("cat/0.png: broken (train)" in each for each in messages(report, "warning"))
    assert seen[-1][0] == seen[-1][1] == 12


def test_data_alone(tmp_path):
    report = examine(None, image_folder(tmp_path / "data", ["cat", "dog"]))
    assert report.healthy and "2 classes" in messages(report, "good")[0]
    assert not examine(None, tmp_path / "nowhere").healthy


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        examine(tmp_path)
    with pytest.raises(ValueError, match="nothing to examine"):
        examine(None)


def flip_a_byte(path, before):
    """The byte after ``before`` becomes one that no text in UTF-8 has there."""
    content = path.read_bytes()
    place = content.index(before) + len(before)
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])


def test_damage_in_the_log_and_in_the_newest_checkpoint_keeps_nothing_from_going_on(patient):
    log, store = patient / "metrics.jsonl", CheckpointStore(patient)
    flip_a_byte(log, b'"step": 3, "e')
    log.write_bytes(log.read_bytes().replace(b'"kind": "step", "step": 5', b'"kine": "step", "step": 5'))
    (store.path(9) / "manifest.json").unlink()
    (store.path(9) / "manifest.json").mkdir()
    (store.folder / "step-00000010").write_text("a plain file")
    harmed, report = log.read_bytes(), examine(patient)
    assert report.newest_good == store.path(8)
    assert any("2 lines are damaged" in each for each in messages(report, "warning"))
    assert any("step-00000010: damaged: a plain file" in each for each in messages(report, "error"))
    watcher = Watcher()
    assert train(tiny_recipe(), folder=patient, resume=True, callback=watcher).status == "finished"
    assert watcher.info.start_step == 8
    steps = [record["step"] for record in read_lines(log) if record["kind"] == "step"]
    assert steps == [step for step in range(1, 19) if step not in (3, 5)]
    assert (patient / "metrics.jsonl.damaged").read_bytes() == harmed
    assert any(
        "2 lines of metrics.jsonl were damaged" in e["message"]
        for e in read_lines(patient / "events.jsonl")
        if e["kind"] == "damage"
    )


def test_the_length_in_steps_is_known(tmp_path):
    recipe = tiny_recipe(train={"steps": 9, "epochs": 100})
    train(recipe, folder=tmp_path / "run", callback=StopAfter(4))
    assert "step 5 of 9, epoch 1" in examine(tmp_path / "run").advice
    train(recipe, folder=tmp_path / "run", resume=True)
    assert "the run is finished" in examine(tmp_path / "run").advice
    (tmp_path / "run" / "result.json").unlink()
    assert examine(tmp_path / "run").advice.startswith("9 steps are done")
