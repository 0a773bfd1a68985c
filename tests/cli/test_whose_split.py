"""Every command that opens a run's or a recipe's data splits it as the run does."""

import pytest

from crosshead.cli import main
from crosshead.data.datasets.held_out import HoldOut
from crosshead.recipe.compose import dump_recipe
from data.odd_files import write_class_folders
from train.runs import tiny_recipe

SPLIT, RUN = 7, 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A recipe whose pictures are split by one seed and whose run has another, and its run."""
    place = tmp_path_factory.mktemp("whose")
    write_class_folders(place / "pets", {"cat": 12, "dog": 12})
    data = {"name": "folder", "root": str(place / "pets"), "validation": 0.5, "batch_size": 6}
    recipe = tiny_recipe(
        name="run",
        output=str(place),
        data={**data, "split_seed": SPLIT},
        train={"seed": RUN, "epochs": 1, "ema_decay": None},
        schedule={"warmup_epochs": 0.0},
    )
    (place / "recipe.yaml").write_text(dump_recipe(recipe))
    assert main(["train", str(place / "recipe.yaml")]) == 0
    return place


@pytest.fixture
def seeds(monkeypatch):
    """Those by which a split is drawn."""
    found = []
    original = HoldOut.split

    def split(hold, *args, **options):
        found.append(hold.seed)
        return original(hold, *args, **options)

    monkeypatch.setattr(HoldOut, "split", split)
    return found


COMMANDS = {
    "train": "train {recipe} log.forecast=true output={out}",
    "profile": "profile {recipe} --steps 1",
    "tune": "tune {recipe} --seconds 1",
    "augment": "augment {recipe} --out {out}/sheet.png",
    "check": "data check {recipe}",
    "pack": "data pack {recipe} --out {out}/shards",
    "eval": "eval {run} --split validation",
    "heads": "heads {run} --output {out}/heads.json",
    "against": "heads {run} {run} {run} --against {run} {run} {run} --output {out}",
    "doctor": "doctor {run}",
    "doctor reads": "doctor {run} --images",
    "resume": "train --resume {run}",
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_split_is_the_runs(place, seeds, tmp_path, words):
    filled = words.format(recipe=place / "recipe.yaml", run=place / "run", out=tmp_path)
    assert main(filled.split()) == 0
    assert seeds and set(seeds) == {SPLIT}
