"""``crosshead match``: controls within 1 %, as recipes that can be trained."""

import pytest

from crosshead.cli import main
from crosshead.recipe import load_recipe
from crosshead.train.tools import match
from crosshead.train.tools.match import _cost, match_recipe

SMALL = ["model.args.embed_dim=20", "model.args.depth=2"]


def recipes(*over):
    mohsa = load_recipe("digits_mohsa", [*SMALL, "model.overlap=constant:4"])
    return load_recipe("digits", [*SMALL, *over]), mohsa


@pytest.mark.parametrize("by", ["parameters", "gmacs"])
def test_a_wider_mlp_costs_as_much(by):
    plain, mohsa = recipes()
    found = match_recipe(plain, mohsa, by)
    assert abs(_cost(found.recipe, by) / _cost(mohsa, by) - 1) <= 0.01
    assert found.changed.startswith("model.args.mlp_ratio=") and found.recipe.model.name == plain.model.name
    # And back: narrower.
    back = match_recipe(mohsa, plain, by)
    assert abs(back.found / back.wanted - 1) <= 0.01


def test_what_does_not_come_near_is_refused():
    plain, mohsa = recipes()
    with pytest.raises(
        ValueError, match=r"can't be changed to .* parameters within 1 %: the nearest is model.args.depth"
    ):
        match_recipe(plain, mohsa, "parameters", "depth")
    ivit = load_recipe("ivit_digits")
    with pytest.raises(ValueError, match="the nearest is nothing of it"):
        match_recipe(ivit, mohsa, "parameters")


def test_equal_time_is_a_longer_training(monkeypatch):
    plain, mohsa = recipes("train.device=cpu")
    monkeypatch.setattr(match, "step_seconds", lambda trials: [1.0, 1.25])
    found = match_recipe(plain, mohsa, "time")
    assert found.recipe.train.epochs == round(1.25 * mohsa.train.epochs)
    monkeypatch.setattr(match, "step_seconds", lambda trials: [1.0, 1.0 / 100])
    with pytest.raises(ValueError, match="no whole number comes within 1 %"):
        match_recipe(plain, mohsa, "time")


def test_steps_are_timed_in_turn():
    plain, mohsa = recipes("train.device=cpu")
    seconds = match.step_seconds([match.Trial(plain), match.Trial(mohsa)], rounds=2)
    assert len(seconds) == 2 and min(seconds) > 0


def test_a_match_is_a_recipe(tmp_path, capsys, fails):
    file = tmp_path / "control.yaml"
    words = ["match", "digits", "--to", "digits_mohsa", "--by", "parameters", "--over", "mlp_ratio"]
    assert main([*words, "--output", str(file)]) == 0
    assert "model.args.mlp_ratio=" in capsys.readouterr().out
    assert load_recipe(file).name == "control"
    assert "--by: expected parameters, gmacs or time, got None" in fails(
        "match", "digits", "--to", "digits_mohsa"
    )
    assert "--to with another one" in fails("match", "digits", "--by", "time")
    assert "expected one of mlp_ratio" in fails(*words[:6], "--over", "heads")
    assert "ends in .yaml" in fails(*words, "--output", tmp_path / "x.json")
