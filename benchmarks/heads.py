"""What looking into heads costs: measures in streams, and the page.

    python benchmarks/heads.py               a table, and benchmarks/results/heads_cpu.json
    python benchmarks/heads.py --only page   the page alone (needs Debian's chromium and playwright)

Measures: 256 digits through mohsa_vit_micro; one image of 4,096 tokens in 6 heads of plain attention; one of 16,384
tokens in 8 interactive heads. Each runs in a process of its own, whose peak above the forward pass is told; they are
checked first against whole maps in float64 at a small size. The page: 3 pictures x 12 blocks x 6 heads of 64 at 197
tokens, opened from disk without a network.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import timm
import torch
from timm.models import VisionTransformer

import crosshead
from crosshead.heads import head_layers, measure_heads, reading
from crosshead.pages.embedding import atlas_page, embed_blocks
from interleave import RESULTS, conditions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "heads"))
import naive_measures as naive

REPEATS = 5
PIXEL = "data:image/png;base64," + (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def digits():
    model = timm.create_model("mohsa_vit_micro_patch2_32", img_size=8, num_classes=10)
    return model, torch.randn(256, 3, 8, 8).split(64)


def plain_4096():
    model = VisionTransformer(img_size=256, patch_size=4, embed_dim=192, depth=1, num_heads=6)
    return model, [torch.randn(1, 3, 256, 256)]


def interactive_16384():
    model = VisionTransformer(img_size=512, patch_size=4, embed_dim=256, depth=1, num_heads=8)
    crosshead.swap_attention(model, "imhsa", init="paper")
    return model, [torch.randn(1, 3, 512, 512)]


CASES = {"256 digits": digits, "4,096 tokens, plain": plain_4096, "16,384 tokens, imhsa": interactive_16384}


def check() -> None:
    """Entropy and similarity against whole maps in float64; a wrong figure is not timed."""
    torch.manual_seed(0)
    model = VisionTransformer(img_size=32, patch_size=4, embed_dim=24, depth=1, num_heads=3).eval()
    images, maps = torch.randn(2, 3, 32, 32), []
    found = measure_heads(model, [images])[0].values
    with torch.no_grad(), reading(model, head_layers(model), lambda call: maps.append(call.weights())):
        model(images)
    a = maps[0][:, :, 1:, 1:]
    for name in ("entropy", "map_similarity"):
        error = (torch.tensor(found[name], dtype=torch.float64) - getattr(naive, name)(a)).abs().max()
        if not error <= 1e-5:
            raise SystemExit(f"{name} differs by {error:.1e} from whole maps: not timed")


def run_case(name: str, pipe) -> None:
    torch.manual_seed(0)
    model, batches = CASES[name]()
    model.eval()
    with torch.no_grad():
        model(batches[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, peak = [], 0
    for _ in range(REPEATS):
        start = time.perf_counter()
        layers = measure_heads(model, batches)
        seconds.append(time.perf_counter() - start)
        peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    pipe.send({"case": name, "seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds),
               "peak_mib_above_forward": peak / 1024, "queries": layers[0].queries})  # fmt: skip


def measures() -> list[dict]:
    check()
    found, context = [], multiprocessing.get_context("spawn")
    for name in CASES:
        here, there = context.Pipe()
        process = context.Process(target=run_case, args=(name, there))
        process.start()
        found.append(here.recv())
        process.join()
        print(
            f"  {name:24s} {found[-1]['seconds']:7.2f} s  peak {found[-1]['peak_mib_above_forward']:6.0f} MiB above"
        )
    return found


def page() -> dict:
    """Size, time to load, and time of a redraw of 72 heads."""
    from playwright.sync_api import sync_playwright

    torch.manual_seed(0)
    model = VisionTransformer(embed_dim=384, depth=12, num_heads=6).eval()
    pictures = [
        {"name": str(i), "caption": str(i), "width": 224, "height": 224, "src": PIXEL} for i in range(3)
    ]
    blocks = embed_blocks(model, torch.randn(3, 3, 224, 224))
    text = atlas_page(
        "Heads", "", {"pictures": pictures, "runs": [{"name": "vit", "note": "", "blocks": blocks}]}
    )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        file = Path(folder) / "atlas.html"
        file.write_text(text)
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        opened = browser.new_context(offline=True, viewport={"width": 1400, "height": 900}).new_page()
        start = time.perf_counter()
        opened.goto(file.as_uri())
        while not opened.evaluate("window.atlas && atlas.timings.length > 0"):
            time.sleep(0.005)
        loaded = time.perf_counter() - start
        opened.locator("#all-blocks").check()
        opened.wait_for_timeout(300)
        opened.evaluate("atlas.timings.length = 0")
        box = opened.locator("#picture").bounding_box()
        for i in range(150):
            opened.mouse.move(
                box["x"] + box["width"] * (i % 15 + 0.5) / 15, box["y"] + box["height"] * (i // 15 + 0.5) / 10
            )
            opened.wait_for_timeout(20)
        redraws = sorted(opened.evaluate("atlas.timings"))
        version = browser.version
        browser.close()
    found = {"megabytes": len(text) / 1e6, "loaded_s": loaded, "redraws": len(redraws), "chromium": version,
             "redraw_ms": statistics.median(redraws), "redraw_ms_95": redraws[int(0.95 * len(redraws))]}  # fmt: skip
    print(
        f"  page {found['megabytes']:.1f} MB, loaded in {loaded:.2f} s, 72 heads redrawn in {found['redraw_ms']:.1f} ms"
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("measures", "page"))
    args = parser.parse_args()
    found = {"conditions": conditions("default")}
    if args.only != "page":
        found["measures"] = measures()
    if args.only != "measures":
        found["page"] = page()
    if args.only is None:
        (RESULTS / "heads_cpu.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
