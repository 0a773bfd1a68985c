"""From an empty folder to the first trained model, exported file and atlas, and an answer without torch.

    python benchmarks/from_nothing.py            builds the wheel, and runs everything once, start to end
    python benchmarks/from_nothing.py --table    docs/start.md's table, out of what was measured

The wheel is built of this folder; an environment is made and filled from the network, or from uv's cache where that has
something. What is timed of `crosshead predict FILE.onnx` is the whole process, in an environment without torch: ten
processes, one after another, after one that is not counted.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from interleave import RESULTS, conditions

ROOT = Path(__file__).parents[1]
FILE, PAGE = RESULTS / "from_nothing_cpu.json", ROOT / "docs" / "start.md"
MARKS = re.compile(r"(<!-- times -->\n).*(<!-- end of times -->)", re.DOTALL)
STARTS = 10
PICTURE = """
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
Image.fromarray((load_digits().images[0] * 15.9).astype(np.uint8)).save("picture.png")
"""


def timed(command: list[str], folder: Path) -> float:
    """Seconds; ends the benchmark where a command fails."""
    # The commands are to be those of an empty machine.
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    start = time.perf_counter()
    run = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if run.returncode:
        raise SystemExit(
            f"{' '.join(command)}: exit code {run.returncode}\n{run.stdout[-1000:]}{run.stderr[-2000:]}"
        )
    return seconds


def measure(folder: Path) -> dict[str, Any]:
    uv = [sys.executable, "-m", "uv"]
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    wheel = str(next(folder.glob("*.whl")))
    full, small = folder / "env", folder / "small"
    python, crosshead = str(full / "bin" / "python"), str(full / "bin" / "crosshead")
    found: dict[str, Any] = {
        "an environment": timed([sys.executable, "-m", "venv", str(full)], folder),
        "installed": timed([*uv, "pip", "install", "--python", python, f"{wheel}[train,onnx]"], folder),
        "a trained model": timed([crosshead, "train", "digits_mohsa"], folder),
        "an exported file": timed([crosshead, "export", "runs/digits_mohsa", "--out", "digits.onnx"], folder),
    }
    timed([python, "-c", PICTURE], folder)
    found["an atlas"] = timed([crosshead, "atlas", "runs/digits_mohsa", "picture.png"], folder)
    timed([*uv, "venv", "--python", sys.executable, str(small)], folder)
    install = [*uv, "pip", "install", "--python", str(small / "bin" / "python")]
    timed([*install, "--no-deps", wheel], folder)
    timed([*install, "numpy", "pillow", "onnxruntime"], folder)
    answer = [str(small / "bin" / "crosshead"), "predict", "digits.onnx", "picture.png"]
    times = [timed(answer, folder) for _ in range(1 + STARTS)][1:]
    found["an answer without torch"] = statistics.median(times)
    found["an answer without torch, each"] = times
    return found


def page() -> str:
    kept = json.loads(FILE.read_text())
    seconds, where = kept["seconds"], kept["conditions"]
    commands = {
        "an environment": "python3 -m venv crosshead-env",
        "installed": "uv pip install 'crosshead[train,onnx]'",
        "a trained model": "crosshead train digits_mohsa",
        "an exported file": "crosshead export runs/digits_mohsa --out digits.onnx",
        "an atlas": "crosshead atlas runs/digits_mohsa picture.png",
        "an answer without torch": "crosshead predict digits.onnx picture.png",
    }
    lines = ["| what is there | command | seconds |", "| --- | --- | ---: |"]
    lines += [f"| {what} | `{command}` | {_shown(seconds[what])} |" for what, command in commands.items()]
    each = seconds["an answer without torch, each"]
    told = f"Of an answer the median of {len(each)} processes, {min(each):.2f} to {max(each):.2f}."
    return (
        "\n".join(lines)
        + f"\n\n{told} {where['device']}, {where['cores']} cores; load before: {where['load']}.\n"
    )


def _shown(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="write the page and measure nothing")
    args = parser.parse_args()
    if not args.table:
        header = conditions("default") | {"cores": os.cpu_count()}
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure(Path(folder))
        FILE.write_text(json.dumps({"conditions": header, "seconds": seconds}, indent=1) + "\n")
    PAGE.write_text(MARKS.sub(lambda found: found[1] + page() + found[2], PAGE.read_text()))
    print(page())


if __name__ == "__main__":
    main()
