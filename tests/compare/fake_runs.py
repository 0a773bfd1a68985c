"""Folders as finished runs leave them, without training."""

import json

from crosshead.recipe import load_recipe
from crosshead.recipe.compose import dump_recipe
from crosshead.train.events import RESULT_FILE, Result
from crosshead.train.run_folder.design import DESIGN_FILE
from crosshead.train.run_folder.folder import RECIPE_FILE, VERSIONS_FILE


def fake_run(
    folder,
    accuracy,
    *,
    seed=0,
    recipe="digits",
    overrides=(),
    count=359,
    design=True,
    tensors=None,
    step=100,
    test="x",
    **more,
):
    """A run of ``recipe`` that came to ``accuracy``; ``tensors`` are what its model began with."""
    folder.mkdir(parents=True)
    resolved = load_recipe(recipe, list(overrides), {"train.seed": seed})
    (folder / RECIPE_FILE).write_text(dump_recipe(resolved))
    (folder / VERSIONS_FILE).write_text(json.dumps({"torch": "2", "python": "3"}))
    classes = [{"class": str(i), "images": 36, "recall": accuracy - 0.01 * i} for i in range(3)]
    result = Result(
        status="finished", folder=folder, step=step, epoch=2.0, selected_step=step, weights=None,
        validation={"accuracy": accuracy, "loss": 1.0},
        test={"accuracy": accuracy, "loss": 1 - accuracy, "count": count},
        parameters=1000, gmacs=0.1, images_per_second=100.0 + seed, seconds=1.0, bad_steps=0, broken_images=0,
        details={"split": "test", "classes": classes}, **more,
    )  # fmt: skip
    (folder / RESULT_FILE).write_text(result.to_json())
    curve = [
        {"kind": "eval", "step": 50 * e, "epoch": float(e), "split": "validation", "weights": "model", "seconds": 1.0,
         "best": True, "metrics": {"accuracy": accuracy * e / 2, "loss": 1.0}}
        for e in (1, 2)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in curve))
    if design:
        known = {
            "seed": seed,
            "order": f"order {seed}",
            "train": {"names": "t"},
            "test": {"names": test, "count": count},
        }
        began = {"a.weight": f"2x2 {seed}", "b.weight": "3 same"} if tensors is None else tensors
        (folder / DESIGN_FILE).write_text(json.dumps({**known, "tensors": began}))
    return folder


def fake_sweep(folder, **recipes):
    """Runs of several recipes, a value a seed; each recipe's name is its key."""
    for name, values in recipes.items():
        over = [f"name={name}", f"optimizer.lr={0.001 + 0.001 * [*recipes].index(name)}"]
        for seed, value in enumerate(values):
            fake_run(folder / name / f"seed-{seed}", value, seed=seed, overrides=over)
    return folder
