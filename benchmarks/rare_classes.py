"""What class weights, balanced sampling, repeat factors and focal loss do for a rare class, on real pictures.

    python benchmarks/rare_classes.py [--seeds 0,1,2]

The handwritten digits 3, 5, 8 and 9 that come with scikit-learn, written as a folder of PNG files: 100 training
pictures of each but 8, which has 5; 20 of each in validation and 50 in test. The same small model learns them plainly
and in four other ways; what selects a checkpoint is macro F1 in all of them.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from crosshead.recipe.compose import load_recipe
from crosshead.train import train
from interleave import RESULTS

CLASSES, RARE, COUNTS = (3, 5, 8, 9), 8, {"train": 100, "val": 20, "test": 50}
RARE_COUNT = 5
WAYS = {
    "plain": [],
    "class weights": ["task.class_weights=balanced"],
    "balanced sampling": ["data.sampling=balanced"],
    "repeat factors": ["data.sampling=repeat_factor", "data.repeat_threshold=0.25"],
    "focal loss": ["task.focal_gamma=2.0"],
}


def write_folder(root: Path) -> None:
    digits = load_digits()
    for name in CLASSES:
        members = np.flatnonzero(digits.target == name)
        begin = 0
        for split, count in COUNTS.items():
            folder = root / split / str(name)
            folder.mkdir(parents=True)
            kept = RARE_COUNT if split == "train" and name == RARE else count
            for i in members[begin : begin + kept]:
                Image.fromarray((digits.images[i] * 15.9).astype(np.uint8)).save(folder / f"{i}.png")
            begin += count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_folder(root / "digits")
        for seed in args.seeds.split(","):
            for number, (way, keys) in enumerate(WAYS.items()):
                base = [f"data.root={root / 'digits'}", "data.name=folder", f"train.seed={seed}"]
                base += [f"train.epochs={args.epochs}", "data.batch_size=16", "task.select_by=macro_f1"]
                base += ["train.device=cpu", "log.tensorboard=false", "task.label_smoothing=0.0"]
                recipe = load_recipe("digits_mohsa", [*base, *keys])
                result = train(recipe, folder=root / f"{number}-{seed}")
                rows = {row["class"]: row for row in result.details["classes"]}
                values = {
                    "accuracy": result.test["accuracy"],
                    "balanced accuracy": result.test["balanced_accuracy"],
                    "macro F1": result.test["macro_f1"],
                    "recall of the rare class": rows[str(RARE)]["recall"],
                    "precision of the rare class": rows[str(RARE)]["precision"],
                }
                for what, value in values.items():
                    found.setdefault(way, {}).setdefault(what, []).append(value)
                print(seed, way, {what: f"{value:.1%}" for what, value in values.items()}, flush=True)
    titles = list(next(iter(found.values())))
    print("\n| | " + " | ".join(titles) + " |\n" + "| --- " * (len(titles) + 1) + "|")
    for way, measured in found.items():
        cells = [f"{statistics.mean(v):.1%} ({min(v):.0%} to {max(v):.0%})" for v in measured.values()]
        print(f"| {way} | " + " | ".join(cells) + " |")
    RESULTS.mkdir(exist_ok=True)
    content = {"seeds": args.seeds, "epochs": args.epochs, "found": found}
    (RESULTS / "rare_classes_cpu.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
