"""Exported files on ONNX Runtime against the same models in PyTorch, eager and compiled: inference on the CPU.

    python benchmarks/onnx_runtime.py                    all models, batches of 1 and of 16
    python benchmarks/onnx_runtime.py --only swin        some of them, by name; the results of the others stay
    python benchmarks/onnx_runtime.py --table            docs/export.md's table, out of what was measured

Random weights. The files are those that `crosshead export` writes: any number of images, float32 and int8. Both sides
have the same number of threads. The detector computes its raw outputs on either side; what comes of them in NumPy is
not in it.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import timm
import torch
from torch import Tensor, nn

import crosshead.models  # noqa: F401 - registers the models
from crosshead.export.about import About
from crosshead.export.graphs import whole
from crosshead.export.onnx_file import export_onnx
from crosshead.models.detectors import build_detector
from crosshead.models.pyramid import Maps
from crosshead.models.segmenters import build_segmenter
from crosshead.train.loop.devices import tune_allocator
from interleave import RESULTS, Timing, compare, conditions, require_close

FILE = RESULTS / "onnx_runtime_cpu.json"
PAGE = Path(__file__).parents[1] / "docs" / "export.md"
BATCHES, SIDE = (1, 16), 224
INT8_APART = (
    0.5  # of the largest output, on random weights: beyond it something else than rounding is at work
)
MARKS = re.compile(r"(<!-- runtime -->\n).*(<!-- end of runtime -->)", re.DOTALL)


def _ivit() -> Maps:
    return Maps(timm.create_model("ivit_tiny", num_classes=0))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mohsa_vit_tiny_patch16_224": lambda: timm.create_model("mohsa_vit_tiny_patch16_224"),
    "mohsa_cait_xxs12_224": lambda: timm.create_model("mohsa_cait_xxs12_224"),
    "mohsa_swin_tiny_patch4_window7_224": lambda: timm.create_model("mohsa_swin_tiny_patch4_window7_224"),
    "ivit_tiny": lambda: timm.create_model("ivit_tiny"),
    "semantic_fpn on ivit_tiny": lambda: build_segmenter("semantic_fpn", _ivit(), 21),
    "retinanet on ivit_tiny": lambda: build_detector("retinanet", _ivit(), 20, pyramid={"width": 96}),
}


def session(file: Path, threads: int) -> Callable[[Tensor], list[Tensor]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would go on asking for work while the next competitor computes.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    opened = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(each) for each in opened.run(None, {"images": images.numpy()})]


def competitors(name: str, folder: Path) -> dict[str, Callable[[Tensor], Any]]:
    """What computes a model; PyTorch first."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    about = About(size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3, crop="none")
    plain = whole(model).eval()
    found: dict[str, Callable[[Tensor], Any]] = {
        "PyTorch": plain,
        "PyTorch, compiled": torch.compile(plain, dynamic=False),
    }
    for precision in ("fp32", "int8"):
        file = folder / f"{precision}.onnx"
        export_onnx(model, file, about, precision=precision)
        found[f"ONNX Runtime, {precision}"] = session(file, torch.get_num_threads())
    return found


@torch.inference_mode()
def check(name: str, found: dict[str, Callable[[Tensor], Any]], images: Tensor) -> float:
    """Each against PyTorch as it is; how far int8 is from it, of the largest output."""
    want = outputs(found["PyTorch"](images))
    apart = 0.0
    for label, run in list(found.items())[1:]:
        for got, expected in zip(outputs(run(images)), want, strict=True):
            int8 = label.endswith("int8")
            require_close(got, expected, INT8_APART if int8 else 1e-4, f"{label}, {name}")
            if int8:
                apart = max(apart, float((got - expected).abs().max() / expected.abs().max()))
    return apart


def outputs(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def tables(name: str, rounds: int) -> tuple[dict[str, list[Timing]], dict[str, float]]:
    measured, apart = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        found = competitors(name, Path(folder))
        for batch in BATCHES:
            images = torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(batch))
            apart[f"int8 apart, batch {batch}"] = check(name, found, images)
            calls = {label: partial(_quietly, run, images) for label, run in found.items()}
            measured[f"batch {batch}"] = compare(calls, rounds if batch > 1 else 3 * rounds)
    torch.compiler.reset()
    return measured, apart


@torch.inference_mode()
def _quietly(run: Callable[[Tensor], Any], images: Tensor) -> object:
    return run(images)


def keep(name: str, header: dict[str, Any], measured: dict[str, list[Timing]]) -> None:
    """Adds a model to the file, with the conditions that it was measured under."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    kept[name] = {"conditions": header, "tables": {t: [asdict(x) for x in xs] for t, xs in measured.items()}}
    FILE.write_text(json.dumps({each: kept[each] for each in MODELS if each in kept}, indent=1) + "\n")
    print(name, header)
    for title, timings in measured.items():
        print(f" {title}")
        for timing in timings:
            print(timing)


def page() -> str:
    """The table, and each machine with the models that were measured on it."""
    kept = json.loads(FILE.read_text())
    labels = ("PyTorch", "PyTorch, compiled", "ONNX Runtime, fp32", "ONNX Runtime, int8")
    lines = [f"| model | batch | {' | '.join(labels)} |", f"| --- | --- |{' ---: |' * len(labels)}"]
    for name, one in kept.items():
        for title, timings in one["tables"].items():
            cells = " | ".join(_cell(timing) for timing in timings)
            lines.append(f"| {name} | {title.removeprefix('batch ')} | {cells} |")
    machines: dict[str, list[str]] = {}
    for name, one in kept.items():
        machines.setdefault(_machine(one["conditions"]), []).append(name)
    told = [f"{machine}: {', '.join(names)}." for machine, names in machines.items()]
    return "\n".join([*lines, "", *told]) + "\n"


def _machine(told: dict[str, Any]) -> str:
    versions = f"torch {told['torch']}, ONNX Runtime {told['onnxruntime']}"
    return f"{told['device']}, {told['threads']} threads; {versions}, allocator {told['allocator']}"


def _cell(timing: dict[str, Any]) -> str:
    middle, low, high = (_shown(timing[f"{name}_ms"]) for name in ("median", "low", "high"))
    ratio = "" if timing["name"] == "PyTorch" else f" × {timing['ratio']:.2f}"
    return f"{middle} ({low} to {high}){ratio}"


def _shown(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--allocator", choices=["tuned", "default"], default="tuned")
    parser.add_argument("--only", default="", help="models whose name matches this")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--table", action="store_true", help="write the page and measure nothing")
    args = parser.parse_args()
    if not args.table:
        allocator = tune_allocator() if args.allocator == "tuned" else "default"
        for name in MODELS:
            if re.search(args.only, name):
                header = conditions(allocator) | {"onnxruntime": onnxruntime.__version__, "side": SIDE}
                measured, apart = tables(name, args.rounds)
                keep(name, header | apart, measured)
    PAGE.write_text(MARKS.sub(lambda found: found[1] + page() + found[2], PAGE.read_text()))


if __name__ == "__main__":
    main()
