"""The range test of learning rates, and the largest batch that fits."""

import math

import numpy as np
import pytest
import torch
from runs import tiny_recipe

from crosshead.cli import main
from crosshead.train.tools import tune as tuning
from crosshead.train.tools.profile import Trial
from crosshead.train.tools.tune import LOWEST, range_test, smoothed, text_curve, tune


def falling_then_breaking(rates):
    """Falls fastest at 1e-3, is lowest at about 1e-2, and breaks above."""
    return [2.3 - 1.5 / (1 + (1e-3 / rate) ** 2) + (rate / 0.05) ** 2 for rate in rates]


def test_the_suggestion_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-7, 1.0, 120).tolist()
    losses = falling_then_breaking(rates)
    cut = next(i for i in range(120) if tuning._is_broken(losses[: i + 1]))
    assert 0.05 < rates[cut] < 0.3
    found = tuning._read(rates[:cut], losses[:cut], stopped=True)
    assert found.steepest == pytest.approx(1e-3, rel=0.7) and 3e-3 < found.lowest < 3e-2
    assert len(text_curve(found)) == 16


def test_a_loss_that_never_falls_suggests_nothing():
    noise = np.random.default_rng(0).normal(2.3, 0.01, 60).tolist()
    assert tuning._read([1.0] * 60, noise, stopped=False).steepest is None


def test_a_fall_within_the_noise_suggests_nothing_and_a_real_one_does():
    draw, rates = np.random.default_rng(0), np.geomspace(1e-6, 1e-1, 48).tolist()
    noise = draw.normal(0, 0.15, 48)
    assert tuning._read(rates, (2.4 + noise).tolist(), stopped=False).steepest is None
    falling = 2.4 - 0.8 * np.linspace(0, 1, 48) ** 2
    assert tuning._read(rates, (falling + noise).tolist(), stopped=False).steepest is not None


def test_smoothing_keeps_a_line_where_it_is():
    line = np.linspace(0, 1, 64)
    assert np.allclose(smoothed(line)[24:40], line[24:40], atol=1e-6)


def test_rates_are_the_optimizers_and_scaled_as_the_recipes_are():
    recipe = tiny_recipe(optimizer={"lr_batch_size": 48})
    trial, seen = Trial(recipe), []
    step = trial.train_step

    def spied(*args):
        seen.append(
            {
                group["lr"] / group.get("lr_scale", 1.0)
                for group in trial.training.state.optimizer.param_groups
            }
        )
        return step(*args)

    trial.train_step = spied
    found = range_test(trial, 0.1)
    assert seen[2] == {found.rates[0] * 0.5} and found.rates[0] == LOWEST
    assert len(found.rates) == len(found.losses) and all(map(math.isfinite, found.losses))


def test_a_minutes_look_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = tune(tiny_recipe(), seconds=1)
    assert found.batch_size == 24 and found.batches[0].size == 12
    assert not any("batch_size" in key for key in found.overrides)  # whose rate would be another
    assert not list(tmp_path.iterdir())


@pytest.mark.soak
def test_what_does_not_fit_ends_the_search(monkeypatch):
    def measured(recipe, size, splits):
        if size > 24:
            raise torch.OutOfMemoryError("no")
        return 10.0

    monkeypatch.setattr(tuning, "_images_per_second", measured)
    found = tune(tiny_recipe(train={"accumulation_steps": 1}), seconds=60)
    assert [each.size for each in found.batches] == [
        12,
        24,
    ] and found.limit == "memory: a batch of 48 does not fit"


def test_on_a_cpu_memory_is_foreseen(monkeypatch):
    held = iter([100.0, 200.0, 400.0, 800.0])
    monkeypatch.setattr(tuning, "_images_per_second", lambda *args: 10.0)
    monkeypatch.setattr(tuning, "_held", lambda device: next(held))
    monkeypatch.setattr(tuning, "_free", lambda: 450.0)
    found = tune(tiny_recipe(train={"accumulation_steps": 1}), seconds=60)
    assert [each.size for each in found.batches] == [12, 24] and "is expected to take" in found.limit


def test_the_command_prints_a_curve_and_keys(capsys):
    assert main(["tune", "digits", "data.batch_size=16", "--seconds", "1", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "loss against optimizer.lr" in said and "data.batch_size=" in said and "can't know" in said
    assert main(["tune", "digits", "--seconds", "0"]) == 2
