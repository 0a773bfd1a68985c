"""Nuclei in a micrograph, from a tool's own files to a judged detector: with and without augmentation, three seeds.

    pip download --no-deps stardist==0.9.2
    python benchmarks/own_objects.py stardist-0.9.2-*.whl [--seeds 0,1,2]

The picture (512 x 512 pixels, 125 nuclei with their outlines) lies in the wheel of stardist (Schmidt et al., BSD-3);
nothing of it is kept here. Its left half is learned from, a quarter selects, the right quarter is judged, each written
in YOLO's form. Then three commands: ``data convert`` (which cuts tiles), ``train``, ``eval``.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from interleave import RESULTS, conditions

PARTS = {"train": (0, 256), "val": (256, 384), "test": (384, 512)}  # columns
TILE = 128
# A small backbone without any weights to start from: what one core trains in minutes.
RECIPE = f"""\
base: detect_folder
model:
  args: {{depths: [2, 2, 2], dims: [48, 96, 160], num_heads: [2, 4, 5], attention_stages: [1, 2], landmarks: 4}}
  detector:
    anchor_size: 2.0
    out_indices: [1, 2]
    pyramid: {{width: 48, extra: none}}
data: {{image_size: {TILE}, eval_resize: {TILE}, batch_size: 5, eval_batch_size: 1}}
task: {{window: {TILE}, window_scale: 1.0}}
optimizer: {{lr: 1e-3}}
train: {{eval_every_epochs: 10, device: cpu}}
log: {{tensorboard: false, forecast: false}}
"""
WAYS = {
    "plain": ["augment.horizontal_flip=0", "augment.photometric=0", "augment.jitter_range=null"],
    "augmented": ["augment.vertical_flip=0.5", "augment.quarter_turns=0.5"],
}


def write_yolo(wheel: Path, root: Path) -> None:
    """``images/SPLIT/nuclei.png`` and ``labels/SPLIT/nuclei.txt``, a line a nucleus of which half or more is there."""
    with zipfile.ZipFile(wheel) as held:
        pixels, numbers = (
            np.asarray(Image.open(io.BytesIO(held.read(f"stardist/data/images/{name}2d.tif"))))
            for name in ("img", "mask")
        )
    grey = (np.clip(pixels / np.quantile(pixels, 0.998), 0, 1) * 255).astype(np.uint8)
    for split, (left, right) in PARTS.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        Image.fromarray(grey[:, left:right]).save(root / "images" / split / "nuclei.png")
        lines = []
        for number in np.unique(numbers)[1:]:
            seen = numbers[:, left:right] == number
            if seen.sum() * 2 < (numbers == number).sum():
                continue
            rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
            x1, x2, y1, y2 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
            wide, high = right - left, len(numbers)
            shares = (x1 + x2) / 2 / wide, (y1 + y2) / 2 / high, (x2 - x1) / wide, (y2 - y1) / high
            lines.append("0 " + " ".join(f"{share:.6f}" for share in shares))
        (root / "labels" / split / "nuclei.txt").write_text("\n".join(lines) + "\n")
    splits = "".join(f"{split}: images/{split}\n" for split in PARTS)
    (root / "data.yaml").write_text(f"path: .\n{splits}names:\n  0: nucleus\n")


def crosshead(*words: str) -> str:
    command = [sys.executable, "-m", "crosshead", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _measured(file: Path, epochs: int) -> list[dict]:
    """Rows of earlier calls, of other seeds."""
    content = json.loads(file.read_text()) if file.is_file() else {}
    return content["rows"] if content.get("epochs") == epochs else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=80)
    args = parser.parse_args()
    file = RESULTS / "own_objects_cpu.json"
    rows = [row for row in _measured(file, args.epochs) if str(row["seed"]) not in args.seeds.split(",")]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_yolo(args.wheel, root / "export")
        print(crosshead("data", "convert", f"{root}/export", f"{root}/data", "--tile", str(TILE)), flush=True)
        (root / "nuclei.yaml").write_text(RECIPE)
        for seed in args.seeds.split(","):
            for number, (way, keys) in enumerate(WAYS.items()):
                begun, runs = time.perf_counter(), root / f"{number}-{seed}"
                given = [f"data.root={root}/data", f"train.epochs={args.epochs}", f"train.seed={seed}"]
                crosshead("train", str(root / "nuclei.yaml"), *given, *keys, "--output", str(runs))
                found = json.loads(crosshead("eval", str(runs / "nuclei"), "--json"))
                row = {"way": way, "seed": int(seed), "seconds": round(time.perf_counter() - begun)}
                rows.append(row | {name: found[name] for name in ("split", "step", "box_ap", "box_ap50")})
                print(json.dumps(rows[-1]), flush=True)
                RESULTS.mkdir(exist_ok=True)
                content = {"conditions": conditions("as installed"), "epochs": args.epochs, "rows": rows}
                file.write_text(json.dumps(content, indent=1) + "\n")
    for way in WAYS:
        for what in ("box_ap", "box_ap50"):
            values = [row[what] for row in rows if row["way"] == way]
            spread = f" ± {statistics.stdev(values):.1%}" if len(values) > 1 else ""
            print(f"{way}: {what} {statistics.mean(values):.1%}{spread}, {[f'{v:.1%}' for v in values]}")


if __name__ == "__main__":
    main()
