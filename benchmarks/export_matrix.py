"""Which models go into ONNX files: statically, with any number of pictures, and with pictures of any size.

python benchmarks/export_matrix.py            # all that is not measured yet, one export after another
python benchmarks/export_matrix.py --table    # docs/export.md's table, out of what was measured

Small models of the registered families, with every interaction that they carry, and what stands on backbones. Each
file is compared with the model on ONNX Runtime, on noise, at batches of 1, 2 and 5, and where sizes vary at sizes of
every remainder by landmarks and windows.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from crosshead import swap_attention
from crosshead.export.about import About
from crosshead.export.onnx_file import export_onnx
from crosshead.layers import INTERACTIONS
from crosshead.models.detectors import build_detector
from crosshead.models.pyramid import Maps
from crosshead.models.segmenters import build_segmenter

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "export_matrix.json", ROOT / "docs" / "export.md"
MODES = {"one picture": (), "any number": ("batch",), "any number and size": ("batch", "size")}
IVIT = dict(depths=(1, 1, 1), dims=(16, 24, 32), num_heads=(2, 3, 4), attention_stages=(1, 2), landmarks=3)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("plain_vit_micro_patch4_32", dict(depth=2, dynamic_img_size=True)),
    "CaiT": ("plain_cait_micro_patch4_32", dict(depth=2)),
    "Swin": ("plain_swin_micro_patch2_window4_32", dict(depths=(2,), num_heads=(3,), strict_img_size=False)),
}


def _of(name: str, options: dict[str, Any], kind: str | None = None) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **options)
    if kind is not None:
        swap_attention(model, kind, init="paper")
    return model.eval()


def _maps() -> Maps:
    torch.manual_seed(0)
    return Maps(timm.create_model("ivit_tiny", num_classes=0, **IVIT))


def cases() -> dict[str, Any]:
    """A name for each row -> what makes its model."""
    found: dict[str, Any] = {"iViT": lambda: _of("ivit_tiny", IVIT)}
    for family, (name, options) in FAMILIES.items():
        for kind in (None, *INTERACTIONS):
            label = f"{family}, {kind or 'plain'}"
            found[label] = lambda name=name, options=options, kind=kind: _of(name, options, kind)
    found["Semantic FPN on iViT"] = lambda: build_segmenter(
        "semantic_fpn", _maps(), 5, width=32, pyramid={"width": 8}
    ).eval()
    found["RetinaNet on iViT, raw outputs"] = lambda: build_detector(
        "retinanet", _maps(), 4, pyramid={"width": 8}
    ).eval()
    return found


def measure(make: Any, varying: tuple[str, ...]) -> dict[str, Any]:
    """The largest difference, or why there is none."""
    about = About(
        task="classify", classes=tuple("abcde"), size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, crop="none"
    )
    try:
        model = make()
    except ValueError as error:
        return {"refused": str(error)}
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = export_onnx(model, Path(folder) / "m.onnx", about, varying=varying)
        except ValueError as error:
            return {"reason": str(error).splitlines()[0]}
    return {"difference": written.difference, "shapes": len(written.shapes)}


def table(results: dict[str, Any]) -> str:
    lines = [f"| model | {' | '.join(MODES)} |", f"| --- |{' --- |' * len(MODES)}"]
    for name, found in results.items():
        cells = [_cell(found.get(mode)) for mode in MODES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not measured"
    if "difference" in found:
        return f"{found['difference']:.1e}"
    return (found.get("refused") or found["reason"]).replace("|", "/")[:160]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose names match this")
    parser.add_argument("--table", action="store_true", help="write the page's table and measure nothing")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not args.table:
        for mode, varying in list(MODES.items())[::-1]:
            for name, make in cases().items():
                if re.search(args.only, name) and mode not in results.get(name, {}):
                    results.setdefault(name, {})[mode] = found = measure(make, varying)
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
                    print(f"{name}, {mode}: {_cell(found)}", flush=True)
    ordered = {name: results[name] for name in cases() if name in results}
    page = re.sub(
        r"(<!-- table -->\n).*?(\n<!-- end -->)",
        lambda marks: marks[1] + table(ordered) + marks[2],
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
