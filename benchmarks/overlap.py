"""Overlapped heads against plain attention, the authors' way of writing them, and timm's ViT.

    python benchmarks/overlap.py                         the block, and a ViT-Tiny training step
    python benchmarks/overlap.py --allocator default     the same with glibc's allocator as it is
    python benchmarks/overlap.py --device cuda           the operator against the flash backend, and its memory

The block is qkv projection, attention and output projection. Plain attention has the same heads of the same width.
"""

import argparse
from collections.abc import Callable
from functools import partial

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

import crosshead.models  # noqa: F401 - registers the models
from crosshead.ops.overlap import naive_overlapped_attention as naive
from crosshead.ops.overlap.fast import packed_attention as overlapped_attention
from crosshead.train.loop.devices import tune_allocator
from interleave import RESULTS, Timing, compare, conditions, report, require_close
from packed import of_packed

naive_overlapped_attention = of_packed(naive)

# (B, N, h, d, o)
BLOCKS = [(32, 197, 12, 16, 6), (32, 197, 12, 16, 11), (32, 197, 12, 32, 8)]
Attend = Callable[[Tensor, int], Tensor]


def plain_attention(qkv: Tensor, overlap: int) -> Tensor:
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Block:
    """One attention block: x (B, N, D), with its weights, and ``attend`` in the middle."""

    def __init__(self, shape: tuple[int, ...], attend: Attend, overlap: int, dtype: torch.dtype) -> None:
        batch, tokens, heads, width, _ = shape
        generator = torch.Generator().manual_seed(0)
        dim = heads * width
        inner = heads * (width + 2 * overlap)
        self.x = torch.randn(batch, tokens, dim, generator=generator).to(dtype).requires_grad_()
        self.qkv = (torch.randn(3 * dim, dim, generator=generator) * dim**-0.5).to(dtype).requires_grad_()
        self.proj = (torch.randn(dim, inner, generator=generator) * inner**-0.5).to(dtype).requires_grad_()
        self.upstream = torch.randn(batch, tokens, dim, generator=generator).to(dtype)
        self.split, self.attend, self.overlap = (3, heads, width), attend, overlap

    def forward(self) -> Tensor:
        qkv = F.linear(self.x, self.qkv).unflatten(-1, self.split)
        return F.linear(self.attend(qkv, self.overlap), self.proj)

    @torch.no_grad()
    def inference(self) -> Tensor:
        return self.forward()

    def both(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.forward(), (self.x, self.qkv, self.proj), self.upstream)


def check_block(shape: tuple[int, ...], attend: Attend) -> None:
    """The competitor's output and every gradient against float64, on two of the images."""
    small = (2, *shape[1:])
    oracle = Block(small, naive_overlapped_attention, shape[-1], torch.float64)
    block = Block(small, attend, shape[-1], torch.float32)
    for name in ("x", "qkv", "proj", "upstream"):
        setattr(oracle, name, getattr(block, name).detach().double().requires_grad_(name != "upstream"))
    require_close(block.inference(), oracle.inference(), 1e-5, f"output at {shape}")
    for got, want in zip(block.both(), oracle.both(), strict=True):
        require_close(got, want, 1e-4, f"gradient at {shape}")


def block_tables(rounds: int) -> dict[str, list[Timing]]:
    tables = {}
    for shape in BLOCKS:
        overlapped = {
            "overlapped (this library)": overlapped_attention,
            "slice and stack": naive_overlapped_attention,
        }
        for attend in overlapped.values():
            check_block(shape, attend)
        blocks = {"plain attention, same heads": Block(shape, plain_attention, 0, torch.float32)}
        blocks |= {
            name: Block(shape, attend, shape[-1], torch.float32) for name, attend in overlapped.items()
        }
        size = "B {}, N {}, h {}, d {}, o {}, float32".format(*shape)
        tables[f"block forward, {size}"] = compare({n: b.inference for n, b in blocks.items()}, rounds)
        tables[f"block forward + backward, {size}"] = compare({n: b.both for n, b in blocks.items()}, rounds)
    return tables


def training_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, bfloat16: bool
) -> None:
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.long))
    loss.backward()
    optimizer.step()


def model_table(rounds: int, batch: int = 32) -> dict[str, list[Timing]]:
    """A training step of ViT-Tiny: timm's with 12 heads, this library's with the paper's index schedule."""
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    settings = {
        "timm ViT-Tiny, 12 heads, float32": ("plain_vit_tiny_patch16_224", False),
        "overlapped (index), float32": ("mohsa_vit_tiny_patch16_224", False),
        "timm ViT-Tiny, 12 heads, bfloat16": ("plain_vit_tiny_patch16_224", True),
        "overlapped (index), bfloat16": ("mohsa_vit_tiny_patch16_224", True),
    }
    steps = {}
    for label, (name, bfloat16) in settings.items():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=100).train()
        if name.startswith("mohsa"):
            check_model(model, images[:2])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        steps[label] = partial(training_step, model, optimizer, images, bfloat16)
    return {f"ViT-Tiny training step, batch {batch}": compare(steps, rounds, warmup=2)}


@torch.no_grad()
def check_model(model: torch.nn.Module, images: Tensor) -> None:
    """The model in float32 against itself in float64."""
    got = model(images)
    want = model.double()(images.double())
    model.float()
    require_close(got, want, 1e-4, "ViT-Tiny logits")


def cuda_tables(rounds: int) -> dict[str, list[Timing]]:
    """The operator in bfloat16 against the flash backend on heads of the same and of the overlapped width."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    tables = {}
    for shape in [(256, *s[1:]) for s in BLOCKS]:
        batch, tokens, heads, width, overlap = shape
        qkv = torch.randn(batch, tokens, 3, heads, width, device="cuda", dtype=torch.bfloat16)
        wide = torch.randn(batch, tokens, 3, heads, width + 2 * overlap, device="cuda", dtype=torch.bfloat16)
        want = naive_overlapped_attention(qkv[:2].double(), overlap)
        require_close(overlapped_attention(qkv[:2], overlap), want, 2e-2, f"output at {shape}")

        def both(run: Callable[[Tensor], Tensor], packed: Tensor) -> None:
            leaf = packed.requires_grad_()
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                out = run(leaf)
            torch.autograd.grad(out, leaf, torch.ones_like(out))

        competitors = {
            "flash, width d": partial(both, lambda x: plain_attention(x, 0), qkv),
            "flash, width d + 2o": partial(both, lambda x: plain_attention(x, 0), wide),
            "overlapped": partial(both, partial(overlapped_attention, overlap=overlap), qkv),
        }
        size = f"B {batch}, N {tokens}, h {heads}, d {width}, o {overlap}, bfloat16"
        tables[f"operator forward + backward, {size}"] = compare(
            competitors, rounds, 5, torch.cuda.synchronize
        )
    return tables


def cuda_memory() -> dict[str, float]:
    """Bytes a token that forward and backward need at their peak, at two lengths: the same where memory is linear."""
    peaks = {}
    for tokens in (2048, 8192):
        qkv = torch.randn(1, tokens, 3, 12, 16, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        overlapped_attention(qkv, 6).sum().backward()
        peaks[f"peak bytes a token at N {tokens}"] = (torch.cuda.max_memory_allocated() - before) / tokens
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--allocator", choices=["tuned", "default"], default="tuned")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", choices=["block", "model"])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    allocator = tune_allocator() if args.allocator == "tuned" else "default"
    header: dict = conditions(allocator, args.device)
    tables: dict[str, list[Timing]] = {}
    if args.device == "cuda":
        tables |= cuda_tables(args.rounds)
        header |= cuda_memory()
    else:
        if args.only != "model":
            tables |= block_tables(args.rounds)
        if args.only != "block":
            tables |= model_table(max(3, args.rounds // 3))
    only = f"_{args.only}" if args.only else ""
    report(RESULTS / f"overlap_{args.device}_{args.allocator}{only}.json", header, tables)


if __name__ == "__main__":
    main()
