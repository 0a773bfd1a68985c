"""Time and peak memory of iViT-Tiny against image size, with plain attention and with iMHSA; and under Semantic FPN.

    python benchmarks/dense.py                    everything, into benchmarks/results/dense_cpu.json
    python benchmarks/dense.py --only forward     one part, beside what the file has already

``forward`` and ``training`` (forward and backward) are of the backbone's maps at strides 4 to 32, one image, float32;
the stages of strides 16 and 32 attend. ``segmenter`` is the forward pass with Semantic FPN of 150 classes and the
classes at full size. Every figure comes of a process of its own: its peak resident set, all libraries counted, and how
much of that came on top once the model and its image were there. A case that takes more time or memory than is
allowed is said to.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import timm
import torch
from torch import nn

from crosshead.layers import interactive_attention_layer
from crosshead.models.pyramid import Maps
from crosshead.models.segmenters import build_segmenter
from crosshead.ops.interactive import naive_interactive_attention
from crosshead.tasks.windows import classes_at
from interleave import RESULTS, conditions, require_close

FILE = RESULTS / "dense_cpu.json"
SIZES = ((512, 512), (1024, 1024), (1536, 1536), (2048, 2048))
ATTENTION = {"plain attention": "mhsa", "iMHSA": "imhsa"}
SECONDS, GIB = 100, 10  # allowed to a case
REPEATS = 3
Case = tuple[str, str, tuple[int, int]]


def cases(part: str) -> list[Case]:
    sizes = ((1024, 2048),) if part == "segmenter" else SIZES
    return [(part, name, size) for size in sizes for name in ATTENTION]


def build(part: str, attn: str) -> nn.Module:
    torch.manual_seed(0)
    maps = Maps(timm.create_model("ivit_tiny", attn=attn, num_classes=0))
    return build_segmenter("semantic_fpn", maps, 150) if part == "segmenter" else maps


def check() -> None:
    """The maps in float32 against the same in float64, and the attention of both stages against its equations."""
    torch.manual_seed(1)
    image = torch.randn(1, 3, 160, 224)
    for attn in ATTENTION.values():
        model = build("forward", attn).eval()
        with torch.no_grad():
            got = model(image)
            want = model.double()(image.double())
        for one, other in zip(got, want, strict=True):
            require_close(one, other, 1e-4, f"maps with {attn}")
    layer = interactive_attention_layer(224, 7).eval()
    x = torch.randn(1, 64 * 128, 224)
    with torch.no_grad():
        q, k, v = layer.qkv(x).unflatten(-1, (3, 7, 32)).permute(2, 0, 3, 1, 4).double().unbind(0)  # type: ignore[operator]
        mixes = dict(mix_query=layer.mix_query.double(), mix_key=layer.mix_key.double())  # type: ignore[operator, union-attr]
        heads = naive_interactive_attention(q, k, v, (64, 128), **mixes).transpose(1, 2).flatten(2)
        layer.token_grid = lambda tokens=None: (64, 128)
        require_close(layer(x), layer.proj.double()(heads), 1e-5, "iMHSA on 64 x 128 tokens")  # type: ignore[operator]


def memory(field: str) -> float:
    """MiB of this process: VmRSS, what it holds, or VmHWM, the most that it ever held."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) / 1024


def run(case: Case, threads: int, pipe: Connection) -> None:
    part, name, (height, width) = case
    torch.set_num_threads(threads)
    resource.setrlimit(resource.RLIMIT_DATA, (GIB * 2**30, GIB * 2**30))
    model = build(part, ATTENTION[name]).train(part == "training")
    image = torch.randn(1, 3, height, width)
    before, seconds, peak = memory("VmRSS"), [], 0.0
    try:
        for turn in range(1 + REPEATS):
            start = time.perf_counter()
            work(part, model, image)
            took = time.perf_counter() - start
            peak = peak or memory("VmHWM")  # of the first turn: later ones may find the heap in pieces
            if turn:
                seconds.append(took)
            elif took > SECONDS / (1 + REPEATS):
                seconds = [took]  # it will not be able to repeat: its one turn counts
                break
        pipe.send(
            {
                "seconds": round(statistics.median(seconds), 3),
                "range": [round(min(seconds), 3), round(max(seconds), 3)],
                "turns": len(seconds),
                "peak_mib": round(peak),
                "above_model_mib": round(peak - before),
            }
        )
    except (MemoryError, RuntimeError) as error:
        if "alloc" not in str(error) and not isinstance(error, MemoryError):
            raise
        pipe.send({"failed": f"more than {GIB} GiB"})


def work(part: str, model: nn.Module, image: torch.Tensor) -> None:
    if part == "training":
        model.zero_grad()
        sum(level.square().mean() for level in model(image)).backward()
        return
    with torch.inference_mode():
        out = model(image)
        if part == "segmenter":
            classes_at(out, model.stride, image.shape[-2:], image.shape[-2:])  # type: ignore[arg-type]


def measure(case: Case, threads: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=run, args=(case, threads, there))
    process.start()
    there.close()
    try:
        found = here.recv() if here.poll(SECONDS) else {"failed": f"more than {SECONDS} s"}
    except EOFError:
        found = {"failed": "ended by the system"}
    process.kill()
    process.join()
    return {"part": case[0], "attention": case[1], "image": list(case[2]), **found}


def show(rows: list[dict[str, Any]]) -> None:
    print("| part | image | attention | seconds | peak of the process | above model and image |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for row in rows:
        what = f"| {row['part']} | {row['image'][0]} x {row['image'][1]} | {row['attention']} |"
        if "failed" in row:
            print(f"{what} {row['failed']} | | |")
        else:
            low, high = row["range"]
            spread = (
                f"{row['seconds']:.2f} ({low:.2f} to {high:.2f})" if row["turns"] > 1 else f"{low:.2f}, once"
            )
            print(f"{what} {spread} | {row['peak_mib']:,} MiB | {row['above_model_mib']:,} MiB |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("forward", "training", "segmenter")
    parser.add_argument("--only", choices=parts, action="append")
    parser.add_argument("--size", type=int, action="append", help="of these sides alone")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    check()
    wanted = [
        case
        for part in args.only or parts
        for case in cases(part)
        if not args.size or case[2][0] in args.size
    ]
    rows = [measure(case, args.threads) for case in wanted]
    header = conditions("as PyTorch comes") | {"dtype": "float32", "batch": 1}
    known = json.loads(FILE.read_text())["rows"] if FILE.is_file() else []
    for row in rows:
        row["conditions"] = header
    measured = {(row["part"], row["attention"], *row["image"]): row for row in [*known, *rows]}
    order = {part: place for place, part in enumerate(parts)}
    kept = sorted(
        measured.values(), key=lambda row: (order[row["part"]], row["image"], row["attention"] == "iMHSA")
    )
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    show(kept)
    RESULTS.mkdir(exist_ok=True)
    FILE.write_text(json.dumps({"rows": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
