"""What one GPU says of the operators and models: time in turns, and the peak of memory, in bfloat16."""

from collections.abc import Callable, Iterator
from functools import partial

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import crosshead.models  # noqa: F401 - registers the models
from crosshead.ops.interactive import interactive_attention
from crosshead.ops.overlap.fast import packed_attention as overlapped_attention
from crosshead.ops.talking.fast import packed_attention as talking_heads_attention
from interleave import Timing, compare

Run = Callable[[], object]
# A title, and what is compared under it: the first is the baseline.
Table = tuple[str, dict[str, Run]]


def families(device: str = "cuda") -> dict[str, Iterator[Table]]:
    """In the order of importance: who runs out of time stops where he is."""
    return {
        "overlapped heads": overlapped(device),
        "talking heads": talking(device),
        "interactive heads": interactive(device),
        "training steps": training_steps(device, compiled=False),
        "compiled training steps": training_steps(device, compiled=True),
    }


def measured(runs: dict[str, Run], rounds: int) -> tuple[list[Timing], dict[str, float]]:
    """The times, and the peak of memory of each in MiB, beyond what was there before it."""
    peaks = {}
    for name, run in runs.items():
        run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        peaks[name] = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    return compare(runs, rounds, 5, torch.cuda.synchronize), peaks


def draw(device: str, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    return [x.to(device, torch.bfloat16).requires_grad_() for x in drawn]


def both_ways(title: str, forms: dict[str, tuple[Callable[..., Tensor], list[Tensor]]]) -> Iterator[Table]:
    """A table of the forward pass without a gradient, and one with the backward pass."""

    def forward(function: Callable[..., Tensor], operands: list[Tensor]) -> Tensor:
        with torch.no_grad():
            return function(*operands)

    def both(function: Callable[..., Tensor], operands: list[Tensor]) -> tuple[Tensor | None, ...]:
        out = function(*operands)
        return torch.autograd.grad(out, operands, torch.ones_like(out), allow_unused=True)

    for direction, run in (("forward", forward), ("forward + backward", both)):
        yield f"{title}, {direction}", {name: partial(run, *form) for name, form in forms.items()}


def flash(qkv: Tensor) -> Tensor:
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def overlapped(device: str) -> Iterator[Table]:
    """Against flash attention of heads as wide as before overlapping, and as wide as after it."""
    for heads, width, overlap in ((12, 16, 6), (12, 16, 8), (6, 64, 8), (12, 32, 8), (12, 20, 2)):
        narrow, wide = draw(device, (256, 197, 3, heads, width), (256, 197, 3, heads, width + 2 * overlap))
        yield from both_ways(
            f"overlapped heads, B 256, N 197, h {heads}, d {width}, o {overlap}",
            {
                "flash, width d": (flash, [narrow]),
                "flash, width d + 2o": (flash, [wide]),
                "overlapped": (partial(overlapped_attention, overlap=overlap), [narrow]),
            },
        )


def permute_and_linear(qkv: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    """Talking heads as timm computes them."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    attn = (q * q.shape[-1] ** -0.5) @ k.mT
    attn = F.linear(attn.permute(0, 2, 3, 1), pre).permute(0, 3, 1, 2).softmax(dim=-1)
    return (F.linear(attn.permute(0, 2, 3, 1), post).permute(0, 3, 1, 2) @ v).transpose(1, 2).flatten(2)


def talking(device: str) -> Iterator[Table]:
    def ours(backend: str, qkv: Tensor, pre: Tensor, post: Tensor) -> Tensor:
        return talking_heads_attention(qkv, pre, None, post, None, backend=backend)  # type: ignore[arg-type]

    for batch, tokens, heads, width in ((128, 196, 4, 48), (128, 197, 12, 16), (16, 784, 4, 48)):
        operands = draw(device, (batch, tokens, 3, heads, width), (heads, heads), (heads, heads))
        yield from both_ways(
            f"talking heads, B {batch}, N {tokens}, h {heads}, d {width}",
            {
                "permute and Linear": (permute_and_linear, operands),
                "chunked": (partial(ours, "chunked"), operands),
                "full width": (partial(ours, "full_width"), operands),
            },
        )


def interactive(device: str) -> Iterator[Table]:
    for side, batch in ((14, 256), (56, 32), (128, 4)):
        packed, *mixes = draw(device, (batch, side * side, 3, 8, 32), (8, 8), (8, 8))

        def ours(backend: str, side: int, qkv: Tensor, m_q: Tensor, m_k: Tensor) -> Tensor:
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            return interactive_attention(q, k, v, (side, side), mix_query=m_q, mix_key=m_k, backend=backend)  # type: ignore[arg-type]

        forms: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
            name: (partial(ours, backend, side), [packed, *mixes])
            for name, backend in (("stored", "stored"), ("recomputed", "recompute"), ("fused", "triton"))
        }
        forms["flash attention"] = (flash, [packed])
        yield from both_ways(f"interactive heads, B {batch}, {side} x {side} tokens, 8 heads of 32", forms)


BATCH = 128  # of a training step
MODELS = {
    "ViT-Small": (("plain_vit_small_patch16_224", {}), ("mohsa_vit_small_patch16_224", {})),
    "CaiT-XXS24": (("plain_cait_xxs24_224", {}), ("mohsa_cait_xxs24_224", {})),
    "Swin-Tiny": (("plain_swin_tiny_patch4_window7_224", {}), ("mohsa_swin_tiny_patch4_window7_224", {})),
    "iViT-Tiny": (("ivit_tiny", {"attn": "mhsa"}), ("ivit_tiny", {})),
}


def training_steps(device: str, compiled: bool) -> Iterator[Table]:
    """Under autocast to bfloat16, with AdamW; the plain model first."""
    for title, pair in MODELS.items():
        images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)
        steps: dict[str, Run] = {}
        for name, options in pair:
            torch.manual_seed(0)
            model = timm.create_model(name, num_classes=1000, **options).to(device).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
            called = torch.compile(model) if compiled else model
            label = "plain" if not steps else "interacting"
            steps[f"{label}: {name}"] = partial(training_step, called, optimizer, images)
        yield f"training step, {title}, batch {BATCH}, {'compiled' if compiled else 'eager'}", steps


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> None:
    optimizer.zero_grad()
    with torch.autocast(images.device.type, torch.bfloat16):
        loss = F.cross_entropy(
            model(images), torch.zeros(len(images), dtype=torch.long, device=images.device)
        )
    loss.backward()
    optimizer.step()
