"""A trained ViT of this project's turned into linear cost: what is kept, beside what the same time gives otherwise.

The recipe is trained first, from a fresh seed; then its model is converted with labels, without, and after matching
layers, each rate chosen on the validation images. Controls of equal time stand beside the first.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crosshead.conversion.of_run import convert_run
from crosshead.recipe.compose import load_recipe
from crosshead.train import train

from .ledger import Job, Part

SEEDS = range(7100, 7103)
# Recipe -> keys of its training, and epochs of the conversion. Two epochs of Fashion-MNIST, where the recipe has six.
RECIPES: dict[str, tuple[list[str], float]] = {
    "digits": ([], 5.0),
    "fashion_mnist": (["train.epochs=2"], 0.5),
}
WAYS: dict[str, dict[str, Any]] = {
    "labels": {},
    "no labels": {"labels": False, "controls": False},
    "no labels, matched first": {"labels": False, "controls": False, "match": True},
}
LANDMARKS = {"digits": 2, "fashion_mnist": 3}
_FOLDER = Path(tempfile.gettempdir()) / "crosshead-evidence"


def run(cell: str, seed: int) -> dict[str, Any]:
    recipe, way = cell.split("/")
    keys, epochs = RECIPES[recipe]
    folder = _FOLDER / f"{recipe}-{seed}"
    if not (folder / "result.json").is_file():
        more = ["train.device=cpu", "log.tensorboard=false", f"train.seed={seed}"]
        train(load_recipe(recipe, [*keys, *more]), folder=folder)
    found = convert_run(folder, "imhsa", epochs=epochs, seed=seed, landmarks=LANDMARKS[recipe], **WAYS[way])
    costs = [asdict(cost) for cost in found.costs]
    return {
        "rows": [asdict(row) for row in found.rows],
        "costs": costs,
        "accuracy": found.row("converted").value,
    }


PART = Part(
    "conversion",
    "trained recipes converted to iMHSA; test accuracy, by recipe/way",
    {"recipes": RECIPES, "landmarks": LANDMARKS, "lrs": [1e-3, 2.5e-4]},
    [Job(f"{recipe}/{way}", seed) for recipe in RECIPES for seed in SEEDS for way in WAYS],
    run,
)
