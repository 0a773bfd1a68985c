"""A few steps outside of a run: the forecast of its time, and the profile of a step."""

from itertools import islice

import pytest
import torch
from runs import tiny_recipe
from torch import nn

from crosshead.train.checkpoint.store import CheckpointStore, read_tensors
from crosshead.train.loop.steps import PARTS, TrainStep
from crosshead.train.tools.profile import Trial, forecast, profile, smaller_model


def test_a_forecast_counts_every_step_and_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe()
    found = forecast(recipe)
    assert found.steps == 18 and found.measured == 3
    assert found.seconds > 18 * found.step_seconds > 0
    assert found.smaller is None and "cpu with" in found.device
    assert not list(tmp_path.iterdir())


def test_no_time_is_told_of_a_run_that_would_be_refused():
    with pytest.raises(ValueError, match="presume weights to start from"):
        forecast(tiny_recipe(optimizer={"layer_decay": 0.75}))


def test_a_trial_goes_from_epoch_to_epoch_and_learns():
    trial = Trial(tiny_recipe())
    before = [parameter.clone() for parameter in trial.training.state.model.parameters()]
    taking = trial.steps()
    assert [next(taking) for _ in range(8)] == [24] * 8  # an epoch has 6 steps of 2 x 12
    moved = [
        not old.equal(new) for old, new in zip(before, trial.training.state.model.parameters(), strict=True)
    ]
    assert all(moved)


def test_a_trials_steps_are_those_of_a_run_bit_for_bit(unstopped):
    """Accumulation, mixing, clipping, average, rates and random numbers included."""
    trial = Trial(tiny_recipe())
    for _ in islice(trial.steps(), 18):
        pass
    state = trial.training.state
    held = read_tensors(CheckpointStore(unstopped).path(18))
    assert state.ema is not None and trial.recipe.optimizer.clip_grad is not None
    for name, module in (("model", state.model), ("ema", state.ema.module)):
        own = module.state_dict()
        assert own.keys() == held[name].keys()
        assert all(tensor.equal(held[name][key]) for key, tensor in own.items())


@pytest.mark.parametrize(
    "measure", [lambda recipe: forecast(recipe, steps=1), lambda recipe: profile(recipe, steps=1)]
)
def test_what_is_timed_is_the_trainers_step_with_all_that_a_recipe_asks_for(measure, monkeypatch):
    seen = []
    real = TrainStep.__call__

    def spied(self, batches, requests):
        outcome = real(self, batches, requests)
        seen.append((self, outcome))
        return outcome

    monkeypatch.setattr(TrainStep, "__call__", spied)
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **kwargs: compiled.append(self))
    train = {
        "channels_last": True,
        "compile": True,
        "precision": "fp16",
        "ema_decay": 0.5,
        "deterministic": True,
    }
    measure(tiny_recipe(train=train, optimizer={"clip_grad": 1e-3}))
    stepper, outcome = seen[-1]
    state = stepper.state
    assert len(seen) >= 2 and not torch.are_deterministic_algorithms_enabled()
    assert state.scaler is not None and compiled == [state.model]
    assert stepper.memory_format == torch.channels_last
    assert state.model.patch_embed.proj.weight.is_contiguous(memory_format=torch.channels_last)
    assert state.ema is not None and (outcome.skipped or outcome.grad_norm > 0)


def test_throughput_is_of_the_model_as_training_lays_it_out(monkeypatch, capsys):
    from crosshead.cli import throughput

    compiled, formats = [], []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **kwargs: compiled.append(self))
    monkeypatch.setattr(throughput, "_WARM_UP", 0)
    monkeypatch.setattr(throughput, "_REPEATS", 1)
    real = nn.Conv2d.forward
    channels_last = {"memory_format": torch.channels_last}

    def spied(self, x):
        formats.append(x.is_contiguous(**channels_last) and self.weight.is_contiguous(**channels_last))
        return real(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", spied)
    recipe = tiny_recipe(train={"channels_last": True, "compile": True}, data={"channels": 3})
    throughput.print_throughput(recipe)
    assert "images/s forward" in capsys.readouterr().out
    assert formats == [True] and len(compiled) == 1


def test_a_profile_has_every_part_of_every_step():
    found = profile(tiny_recipe(), steps=3, warm_up=1, operators=5)
    assert set(found.parts) == set(PARTS) and found.images == 24
    assert all(len(times) == 3 and min(times) > 0 for times in found.parts.values())
    assert len(found.operators) == 5 and not {name for name, *_ in found.operators} & set(PARTS)


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("vit_base_patch16_224.augreg_in21k", "vit_medium_patch16_224"),
        ("vit_small_patch16_224", "vit_tiny_patch16_224"),
        ("ivit_base", "ivit_small"),
        ("mohsa_vit_mini_patch4_32", "mohsa_vit_micro_patch4_32"),
        ("vit_tiny_patch16_224", None),
        ("resnet50", None),
    ],
)
def test_the_next_smaller_model_of_a_family(name, smaller):
    import timm

    found = smaller_model(name)
    assert found is None or timm.is_model(found)
    if name != "vit_base_patch16_224.augreg_in21k":  # what timm has between may grow
        assert found == smaller
    else:
        assert found in (smaller, "vit_small_patch16_224")
