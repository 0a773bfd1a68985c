"""A few steps outside of a run: the forecast of its time, and the profile of a step."""

import pytest
from runs import tiny_recipe

from crosshead.train.tools.profile import PARTS, Trial, forecast, profile, smaller_model


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
    before = [parameter.clone() for parameter in trial.model.parameters()]
    taking = trial.steps()
    assert [next(taking) for _ in range(8)] == [24] * 8  # an epoch has 6 steps of 2 x 12
    moved = [not old.equal(new) for old, new in zip(before, trial.model.parameters(), strict=True)]
    assert all(moved)


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
