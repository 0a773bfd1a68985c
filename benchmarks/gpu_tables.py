"""What one GPU says of the operators and models, in bfloat16: time in turns, host time apart, peak of memory, kernels.

Device time is that between two events around ten runs; host time is what queueing one of them takes. The kernels are
those that a profiler saw, the longest first: what PyTorch chose, beside what ``crosshead.ops.paths`` says it does.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

import crosshead.models  # noqa: F401 - registers the models
from crosshead.ops.interactive import interactive_attention
from crosshead.ops.overlap import fast, windowed
from crosshead.ops.talking.fast import packed_attention as talking_heads_attention

Run = Callable[[], object]
Form = tuple[Callable[..., Tensor], list[Tensor]]
# A title, and what measures the table under it.
Table = tuple[str, Callable[[], list[dict[str, Any]]]]
RUNS = 10  # between two events


@dataclass(frozen=True)
class Bench:
    device: str
    rounds: int
    tiny: bool = False

    def batch(self, size: int) -> int:
        return 1 if self.tiny else size

    def tokens(self, count: int) -> int:
        return min(count, 9) if self.tiny else count

    def draw(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(shape, generator=generator) for shape in shapes]
        return [x.to(self.device, torch.bfloat16).requires_grad_() for x in drawn]

    def table(self, title: str, runs: dict[str, Run]) -> list[dict[str, Any]]:
        """One row a competitor, the first the baseline: milliseconds, ratios within a round, memory, kernels."""
        for run in runs.values():
            for _ in range(3):
                run()
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(self.rounds):
            for name, run in runs.items():
                times[name].append(self._timed(run))
        base = next(iter(times.values()))
        rows = []
        print(title)
        for name, run in runs.items():
            device = [t[0] for t in times[name]]
            ratios = [t / b[0] for t, b in zip(device, base, strict=True)]
            row = {
                "name": name,
                "ms": statistics.median(device),
                "host_ms": statistics.median(t[1] for t in times[name]),
                "ratio": statistics.median(ratios),
                "ratio_spread": [min(ratios), max(ratios)] if self.rounds < 4 else _middle(ratios),
                "peak_mib": self._peak(run),
                "kernels": self._kernels(run),
            }
            rows.append(row)
            print(
                f"  {name:34s} {row['ms']:9.3f} ms (host {row['host_ms']:.3f}) x {row['ratio']:.3f} "
                f"{[round(r, 3) for r in row['ratio_spread']]} {row['peak_mib']:.0f} MiB {row['kernels'][:1]}",
                flush=True,
            )
        return rows

    def _timed(self, run: Run) -> tuple[float, float]:
        if self.device == "cpu":
            start = time.perf_counter()
            run()
            took = (time.perf_counter() - start) * 1e3
            return took, took
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start = time.perf_counter()
        begin.record()
        for _ in range(RUNS):
            run()
        end.record()
        host = (time.perf_counter() - start) * 1e3 / RUNS
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / RUNS, host

    def _peak(self, run: Run) -> float:
        """MiB beyond what was there before."""
        if self.device == "cpu":
            return 0.0
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def _kernels(self, run: Run, count: int = 6) -> list[str]:
        if self.device == "cpu":
            return []
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            run()
            torch.cuda.synchronize()
        found = sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)
        return [f"{e.key[:80]} {e.self_device_time_total:.0f} us x {e.count}" for e in found[:count]]


def _middle(values: list[float]) -> list[float]:
    low, _, high = statistics.quantiles(values, n=4)
    return [low, high]


def parts_of_tables(bench: Bench) -> dict[str, Callable[[], Iterator[Table]]]:
    parts = {
        "overlap": overlapped,
        "windows": windows,
        "talking": talking,
        "interactive": interactive,
        "profile": profiles,
        "steps": steps,
    }
    found = {name: partial(part, bench) for name, part in parts.items()}
    return found | {f"compiled {model}": partial(steps, bench, compiled=model) for model in MODELS}


def both_ways(bench: Bench, title: str, forms: dict[str, Form]) -> Iterator[Table]:
    """A table of the forward pass without a gradient, and one with the backward pass."""

    def forward(function: Callable[..., Tensor], operands: list[Tensor]) -> Tensor:
        with torch.no_grad():
            return function(*operands)

    def both(function: Callable[..., Tensor], operands: list[Tensor]) -> tuple[Tensor | None, ...]:
        out = function(*operands)
        return torch.autograd.grad(out, operands, torch.ones_like(out), allow_unused=True)

    for direction, run in (("forward", forward), ("forward + backward", both)):
        runs = {name: partial(run, *form) for name, form in forms.items()}
        yield f"{title}, {direction}", partial(bench.table, f"{title}, {direction}", runs)


def own_choice(qkv: Tensor) -> Tensor:
    """Plain attention, by the kernel that PyTorch takes."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def flash(qkv: Tensor) -> Tensor:
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True):
        return own_choice(qkv)


def slice_and_stack(qkv: Tensor, overlap: int) -> Tensor:
    """Overlapped heads as the authors' code forms them: every borrowed channel written once more."""
    heads = F.pad(qkv.flatten(3), (overlap, overlap))
    d = qkv.shape[4]
    whole = torch.stack([heads[..., i * d : (i + 1) * d + 2 * overlap] for i in range(qkv.shape[3])], dim=3)
    q, k, v = whole.permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v, scale=d**-0.5).transpose(1, 2).flatten(2)


@contextlib.contextmanager
def unpadded() -> Iterator[None]:
    """Overlapping views as they are, of widths that a GPU doesn't read at once: what padding is compared with."""
    kept = fast.padding, windowed.padding
    fast.padding = windowed.padding = lambda *_: 0  # type: ignore[assignment]
    try:
        yield
    finally:
        fast.padding, windowed.padding = kept


def views_as_they_are(qkv: Tensor, overlap: int) -> Tensor:
    with unpadded():
        return fast.packed_attention(qkv, overlap, backend="sdpa")


def overlapped(bench: Bench) -> Iterator[Table]:
    """Against plain attention of heads as wide as before overlapping and as wide as after it."""
    layouts = [(12, 16, o) for o in range(12)] + [(6, 64, 8), (12, 32, 8), (12, 20, 2)]
    for heads, width, overlap in layouts[:: 5 if bench.tiny else 1]:
        shape = (bench.batch(256), bench.tokens(197), 3, heads)
        narrow, wide = bench.draw((*shape, width), (*shape, width + 2 * overlap))
        forms: dict[str, Form] = {
            "flash, width d": (flash, [narrow]),
            "PyTorch's choice, width d": (own_choice, [narrow]),
            "flash, width d + 2o": (flash, [wide]),
            "slice and stack": (partial(slice_and_stack, overlap=overlap), [narrow]),
            "views as they are": (partial(views_as_they_are, overlap=overlap), [narrow]),
            "views, padded": (partial(fast.packed_attention, overlap=overlap, backend="sdpa"), [narrow]),
        }
        if bench.device == "cuda":
            fused = partial(fast.packed_attention, overlap=overlap, backend="triton")
            forms["fused"] = (fused, [narrow])
        yield from both_ways(bench, f"B {shape[0]}, N {shape[1]}, h {heads}, d {width}, o {overlap}", forms)


def windows(bench: Bench) -> Iterator[Table]:
    """Swin's: a bias that learns, masks between shifted windows, its four stages."""
    for stage, (heads, overlap) in enumerate(((3, 1), (3, 3), (6, 3), (12, 5), (24, 7))):
        count = bench.batch(4096 // 4**stage)
        qkv, bias = bench.draw((2 * count, bench.tokens(49), 3, heads, 32), (heads, *[bench.tokens(49)] * 2))
        mask = torch.zeros(count, *bias.shape[1:], device=bench.device, dtype=torch.bfloat16)
        mask[-1, 3:, :3] = -torch.inf

        def call(
            qkv: Tensor, bias: Tensor, backend: str, mask: Tensor = mask, overlap: int = overlap
        ) -> Tensor:
            return windowed.packed_window_attention(qkv, overlap, bias, mask=mask, backend=backend)

        def as_they_are(qkv: Tensor, bias: Tensor, call: Callable[..., Tensor] = call) -> Tensor:
            with unpadded():
                return call(qkv, bias, "sdpa")

        forms: dict[str, Form] = {
            "views as they are": (as_they_are, [qkv, bias]),
            "views, padded": (partial(call, backend="sdpa"), [qkv, bias]),
        }
        if bench.device == "cuda":
            forms["fused"] = (partial(call, backend="triton"), [qkv, bias])
        yield from both_ways(bench, f"windows, {2 * count} x 49, h {heads}, d 32, o {overlap}", forms)


def permute_and_linear(qkv: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    """Talking heads as timm computes them."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    attn = (q * q.shape[-1] ** -0.5) @ k.mT
    attn = F.linear(attn.permute(0, 2, 3, 1), pre).permute(0, 3, 1, 2).softmax(dim=-1)
    return (F.linear(attn.permute(0, 2, 3, 1), post).permute(0, 3, 1, 2) @ v).transpose(1, 2).flatten(2)


def talking(bench: Bench) -> Iterator[Table]:
    def ours(qkv: Tensor, pre: Tensor, post: Tensor, backend: str) -> Tensor:
        return talking_heads_attention(qkv, pre, None, post, None, backend=backend)  # type: ignore[arg-type]

    for batch, tokens, heads, width in (
        (128, 196, 4, 48),
        (128, 197, 12, 16),
        (16, 784, 4, 48),
        (2, 4096, 4, 48),
    ):
        batch, tokens = bench.batch(batch), bench.tokens(tokens)
        operands = bench.draw((batch, tokens, 3, heads, width), (heads, heads), (heads, heads))
        forms: dict[str, Form] = {"permute and Linear": (permute_and_linear, operands)}
        for backend in ["chunked", "full_width"] + ["triton"] * (bench.device == "cuda"):
            forms[backend] = (partial(ours, backend=backend), operands)
        yield from both_ways(bench, f"talking heads, B {batch}, N {tokens}, h {heads}, d {width}", forms)


def interactive(bench: Bench) -> Iterator[Table]:
    for side, batch in ((14, 256), (56, 32), (128, 4)):
        side, batch = (8, 1) if bench.tiny else (side, batch)
        packed, *mixes = bench.draw((batch, side * side, 3, 8, 32), (8, 8), (8, 8))

        def ours(qkv: Tensor, m_q: Tensor, m_k: Tensor, backend: str, side: int = side) -> Tensor:
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            return interactive_attention(q, k, v, (side, side), mix_query=m_q, mix_key=m_k, backend=backend)  # type: ignore[arg-type]

        backends = ["stored", "recompute"] + ["triton"] * (bench.device == "cuda")
        forms: dict[str, Form] = {b: (partial(ours, backend=b), [packed, *mixes]) for b in backends}
        forms["plain attention"] = (own_choice, [packed])
        yield from both_ways(bench, f"interactive heads, B {batch}, {side} x {side}, 8 heads of 32", forms)


BATCH = 128  # of a training step
MODELS = {
    "ViT-Tiny": (("plain_vit_tiny_patch16_224", {}), ("mohsa_vit_tiny_patch16_224", {})),
    "ViT-Small": (("plain_vit_small_patch16_224", {}), ("mohsa_vit_small_patch16_224", {})),
    "Swin-Tiny": (("plain_swin_tiny_patch4_window7_224", {}), ("mohsa_swin_tiny_patch4_window7_224", {})),
    "iViT-Tiny": (("ivit_tiny", {"attn": "mhsa"}), ("ivit_tiny", {})),
}


def steps(bench: Bench, compiled: str = "") -> Iterator[Table]:
    """Under autocast to bfloat16, with AdamW; the plain model first."""
    for title in [compiled] if compiled else MODELS:
        name = f"training step, {title}, batch {bench.batch(BATCH)}, {'compiled' if compiled else 'eager'}"

        def measure(title: str = title, name: str = name) -> list[dict[str, Any]]:
            return bench.table(name, _training_steps(bench, title, bool(compiled)))

        yield name, measure


def _training_steps(bench: Bench, title: str, compiled: bool) -> dict[str, Run]:
    images = torch.randn(bench.batch(BATCH), 3, 224, 224, generator=torch.Generator().manual_seed(0))
    images, found = images.to(bench.device), {}
    for label, (name, options) in zip(("plain", "interacting"), MODELS[title], strict=True):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=1000, **options).to(bench.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        called = torch.compile(model) if compiled and not bench.tiny else model
        found[f"{label}: {name}"] = partial(training_step, called, optimizer, images)
    return found


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> None:
    optimizer.zero_grad()
    with torch.autocast(images.device.type, torch.bfloat16):
        loss = F.cross_entropy(
            model(images), torch.zeros(len(images), dtype=torch.long, device=images.device)
        )
    loss.backward()
    optimizer.step()


def profiles(bench: Bench) -> Iterator[Table]:
    """Where a training step goes: its thirty longest kernels."""
    for title in ("ViT-Tiny", "Swin-Tiny"):

        def measure(title: str = title) -> list[dict[str, Any]]:
            return [
                {"name": name, "peak_mib": bench._peak(run), "kernels": bench._kernels(run, 30)}
                for name, run in _training_steps(bench, title, False).items()
            ]

        yield f"kernels of a training step, {title}", measure
