"""Learning from a teacher beside the labels (``train.teacher``)."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from runs import StopAfter, Watcher, assert_same_ending, tiny_recipe
from safetensors.torch import save_file
from torch import nn

import crosshead
from crosshead.cli import main
from crosshead.data.base import Batch, DatasetInfo
from crosshead.data.datasets.registry import open_splits
from crosshead.tasks import open_task
from crosshead.train import train
from crosshead.train.checkpoint.store import CheckpointStore, read_state
from crosshead.train.inference import load_run
from crosshead.train.loop.teaching import Taught, Teacher, distillation
from crosshead.train.teacher import load_teacher

CPU = torch.device("cpu")


def taught_by(**teacher):
    return tiny_recipe(train={"teacher": teacher, "epochs": 2})


def loaded(recipe):
    info = open_splits(recipe).info
    return load_teacher(recipe, open_task(recipe, info), info, CPU)


def test_the_loss_is_the_papers():
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64).unbind()
    student = student.float().requires_grad_()
    p, q = (teacher / 3).softmax(-1), (student.double() / 3).softmax(-1)
    wanted = 9 * (p * (p / q).log()).sum()
    got = distillation(student, teacher, 3.0)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(got, student)
    assert torch.allclose(
        gradient.double(), 3 * (q - p).detach(), atol=1e-5
    )  # Hinton et al., equation 2, times T²


def test_a_step_weighs_labels_and_teacher_and_leaves_the_teacher_alone():
    recipe = tiny_recipe()
    task = open_task(recipe, open_splits(recipe).info)
    network, model = (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 10)),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 10)),
    )
    shift = torch.full((1, 3, 1, 1), 0.5)
    teacher = Teacher(model, 2.0, 0.25, "it", "", 2 * torch.ones_like(shift), shift)
    images = torch.randn(4, 3, 8, 8)
    batch = Batch(images, torch.tensor([1, 2, 3, 4]), torch.arange(4))
    taught = Taught(task, teacher)
    found = taught.step(network, batch)
    assert tuple(found.losses) == taught.losses == ("loss", "teacher")
    alone = task.step(network, batch).losses["loss"]
    assert found.losses["loss"].item() == pytest.approx(0.75 * alone.item())
    soft = F.kl_div(
        (network(images) / 2).log_softmax(-1), (model(2 * images + 0.5) / 2).softmax(-1), reduction="sum"
    )
    assert found.losses["teacher"].item() == pytest.approx(0.25 * 4 * soft.item(), rel=1e-4)
    found.losses["teacher"].backward()
    assert model[1].weight.grad is None and network[1].weight.grad.abs().sum() > 0


def test_a_taught_run_that_is_stopped_and_resumed_ends_the_same(tmp_path, unstopped):
    recipe = taught_by(run=str(unstopped))
    watcher = Watcher()
    assert train(recipe, folder=tmp_path / "whole", callback=watcher).status == "finished"
    assert any("taught by" in event.message for event in watcher.events)
    assert watcher.records[0].losses.keys() == {"loss", "teacher"}
    assert train(recipe, folder=tmp_path / "stopped", callback=StopAfter(4)).status == "stopped"
    assert train(recipe, folder=tmp_path / "stopped", resume=True).status == "finished"
    assert_same_ending(tmp_path / "stopped", tmp_path / "whole")
    assert loaded(recipe).digest == read_state(CheckpointStore(tmp_path / "whole").path(12))["teacher"]


def test_another_teacher_under_the_same_name_is_told(tmp_path, unstopped):
    shutil.copytree(unstopped, tmp_path / "teacher")
    recipe = taught_by(run=str(tmp_path / "teacher"))
    assert train(recipe, folder=tmp_path / "run", callback=StopAfter(4)).status == "stopped"
    shutil.rmtree(tmp_path / "teacher")
    other = tiny_recipe(train={"seed": 5, "epochs": 1}, schedule={"warmup_epochs": 0.0})
    assert train(other, folder=tmp_path / "teacher").status == "finished"
    watcher = Watcher()
    assert train(recipe, folder=tmp_path / "run", resume=True, callback=watcher).status == "finished"
    assert "teacher_changed" in watcher.kinds()


def test_teachers_out_of_files_say_what_their_model_says(tmp_path, unstopped):
    run = load_run(unstopped)
    crosshead.save(run.model, tmp_path / "saved")
    images = torch.randn(2, 3, 8, 8)
    wanted = run.model(images)
    for teacher in (
        loaded(taught_by(run=str(unstopped))),
        loaded(taught_by(weights=str(tmp_path / "saved"))),
    ):
        assert torch.allclose(teacher.model(images), wanted, atol=1e-6) and not teacher.model.training
    registered = tiny_recipe(model={"name": "mohsa_vit_micro_patch2_32", "drop_path_rate": 0.0, "args": {}})
    info = open_splits(registered).info
    model = open_task(registered, info).build_model(from_weights=False)
    save_file(model.state_dict(), tmp_path / "micro.safetensors")
    teacher = loaded(
        taught_by(model="mohsa_vit_micro_patch2_32", weights=str(tmp_path / "micro.safetensors"))
    )
    assert torch.allclose(teacher.model(images), model.eval()(images), atol=1e-6)


def test_what_no_teacher_can_be_is_refused(tmp_path, unstopped):
    with pytest.raises(ValueError, match="expected run"):
        taught_by(temperature=2.0)
    with pytest.raises(ValueError, match="expected run"):
        taught_by(run="x", weights="y")
    for teacher, words in (
        ({"run": str(tmp_path)}, "no run is there"),
        ({"weights": str(tmp_path / "no")}, "no such file"),
    ):
        with pytest.raises(ValueError, match=words):
            loaded(taught_by(**teacher))
    recipe = taught_by(run=str(unstopped))
    info = open_splits(recipe).info
    others = DatasetInfo(info.name, ("a", "b"), info.channels, info.mean, info.std)
    with pytest.raises(ValueError, match="expected the same, in the same order"):
        load_teacher(recipe, open_task(recipe, others), others, CPU)
    larger = tiny_recipe(train={"teacher": {"run": str(unstopped)}}, data={"image_size": 16})
    with pytest.raises(ValueError, match="does not take pictures of 16 x 16"):
        loaded(larger)


def test_pictures_are_brought_to_what_the_teacher_was_trained_on(tmp_path, unstopped):
    shutil.copytree(unstopped, tmp_path / "teacher", symlinks=True)
    recipe = taught_by(run=str(tmp_path / "teacher"))
    info = open_splits(recipe).info
    seen_otherwise = DatasetInfo(info.name, info.class_names, 3, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    teacher = load_teacher(recipe, open_task(recipe, seen_otherwise), seen_otherwise, CPU)
    pixels = torch.rand(2, 3, 8, 8)

    def normalised(of):
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (of.mean, of.std))
        return (pixels - mean) / std

    assert torch.allclose(teacher(normalised(seen_otherwise)), teacher.model(normalised(info)), atol=1e-4)


def test_the_command_line_names_what_is_missing(tmp_path, capsys):
    words = [
        "train",
        "digits",
        f"train.teacher.run={tmp_path}",
        "train.device=cpu",
        "--output",
        str(tmp_path),
    ]
    assert main(words) == 2
    assert "no run is there" in capsys.readouterr().err
    assert not (tmp_path / "digits").exists()
