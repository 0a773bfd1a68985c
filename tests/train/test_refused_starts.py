"""A start that is refused leaves nothing behind."""

import pytest

from crosshead.recipe import load_recipe
from crosshead.train import train


@pytest.mark.parametrize(
    "words",
    [
        ["data.name=csv", "data.root=MISSING"],
        ["model.init_from=missing.safetensors"],
        ["model.args.no_such_argument=1"],
        ["data.batch_size=100000"],
    ],
)
def test_a_refused_start_leaves_no_folder(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("digits", [*words, f"output={tmp_path}"])
    with pytest.raises(ValueError):
        train(recipe)
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError):
        train(recipe, folder=tmp_path / "mine")
    assert (tmp_path / "mine").is_dir(), "a folder that was there already stays"
