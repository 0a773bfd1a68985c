"""Operators and swapped models of an older source tree against those of this one, in turn in one process.

    git archive 27dc552 src | tar x -C OLD        (the end of 0.1)
    python benchmarks/before.py OLD/src                   everything
    python benchmarks/before.py OLD/src --only talking    one family: overlap, window, talking, interactive, model

The older tree is imported beside this one under the name ``before``. The ratio is this tree's time over its.
"""

import argparse
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from crosshead.train.loop.devices import tune_allocator
from interleave import RESULTS, Timing, compare, conditions, report, require_close

Case = tuple[Callable[..., Tensor], list[Tensor]]


class _Before(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds ``before.X`` as ``crosshead.X`` of another tree; in its text, too, the package is called before.

    That keeps its names in PyTorch's registry of operators apart from this tree's.
    """

    def __init__(self, source: Path) -> None:
        self._root = source / "crosshead"
        if not self._root.is_dir():
            raise SystemExit(f"{source} holds no package crosshead; give the src folder of the older tree")

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "before":
            return None
        place = self._root.joinpath(*name.split(".")[1:])
        is_package = place.is_dir()
        if not is_package and not place.with_suffix(".py").is_file():
            return None
        return importlib.util.spec_from_loader(name, self, is_package=is_package)

    def is_package(self, name):
        return self._root.joinpath(*name.split(".")[1:]).is_dir()

    def get_source(self, name):
        if name == "before":
            return ""  # the models of both trees would register under the same names
        place = self._root.joinpath(*name.split(".")[1:])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        return file.read_text().replace("crosshead", "before")


# Forms for packed heads, which were public in trees that took no others: (module, name) now -> then.
PACKED = {
    ("ops.overlap.fast", "packed_attention"): ("ops.overlap", "overlapped_attention"),
    ("ops.overlap.windowed", "packed_window_attention"): ("ops.overlap", "overlapped_window_attention"),
    ("ops.talking.fast", "packed_attention"): ("ops.talking", "talking_heads_attention"),
}


def both(name: str, function: str) -> list[Callable[..., Tensor]]:
    """The function of module ``name`` in the older tree and in this one."""
    found = []
    for tree in ("before", "crosshead"):
        module = importlib.import_module(f"{tree}.{name}")
        if not hasattr(module, function):
            older, function_then = PACKED[name, function]
            found.append(getattr(importlib.import_module(f"{tree}.{older}"), function_then))
            continue
        found.append(getattr(module, function))
    return found


def draw(*sizes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=generator).to(dtype).requires_grad_() for size in sizes]


def overlap_cases() -> Iterator[tuple[str, list[Case]]]:
    for batch, tokens, heads, width, overlap, dtype in (
        (16, 197, 12, 16, 6, torch.float32),
        (16, 197, 6, 32, 8, torch.float32),
        (16, 197, 12, 16, 6, torch.bfloat16),
        (64, 17, 5, 16, 4, torch.float32),
    ):
        given = draw((batch, tokens, 3, heads, width), dtype=dtype)
        name = f"overlap, B {batch}, N {tokens}, h {heads}, d {width}, o {overlap}, {dtype}"
        yield (
            name,
            [
                (lambda x, f=f, o=overlap: f(x, o), given)
                for f in both("ops.overlap.fast", "packed_attention")
            ],
        )


def window_cases() -> Iterator[tuple[str, list[Case]]]:
    functions = both("ops.overlap.windowed", "packed_window_attention")
    for images, windows, heads, overlap, dtype in (
        (8, 64, 3, 3, torch.float32),
        (8, 16, 6, 3, torch.float32),
        (8, 16, 6, 3, torch.bfloat16),
        (8, 1, 24, 8, torch.float32),
    ):
        given = draw((images * windows, 49, 3, heads, 32), (heads, 49, 49), dtype=dtype)
        mask = torch.where(torch.rand(windows, 49, 49) < 0.3, -100.0, 0.0).to(dtype) if windows > 1 else None
        name = f"windows, {images} x {windows}, h {heads}, o {overlap}, mask {mask is not None}, {dtype}"
        yield name, [(lambda x, b, f=f, o=overlap, m=mask: f(x, o, b, mask=m), given) for f in functions]


def talking_cases() -> Iterator[tuple[str, list[Case]]]:
    functions = both("ops.talking.fast", "packed_attention")
    for batch, tokens, heads, width, overlap in (
        (16, 196, 4, 48, 0),
        (16, 197, 12, 16, 0),
        (16, 197, 3, 64, 0),
        (16, 196, 4, 48, 5),
    ):
        mixing = [(heads, heads), (heads,)] * 2
        given = draw((batch, tokens, 3, heads, width), *mixing)
        name = f"talking, B {batch}, N {tokens}, h {heads}, d {width}, o {overlap}"
        yield name, [(partial(f, overlap=overlap), given) for f in functions]


def interactive_cases() -> Iterator[tuple[str, list[Case]]]:
    functions = both("ops.interactive", "interactive_attention")
    for side in (32, 56, 128):
        (packed, *mixes) = draw((1, side * side, 3, 8, 32), (8, 8), (8, 8))

        def call(packed, m_q, m_k, f, side=side):
            q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
            return f(q, k, v, (side, side), mix_query=m_q, mix_key=m_k)

        yield (
            f"interactive, auto, {side * side} tokens",
            [(partial(call, f=f), [packed, *mixes]) for f in functions],
        )


def model_cases() -> Iterator[tuple[str, list[Case]]]:
    """Whole models swapped by either tree; what is timed are training steps without an optimizer."""
    swaps = both("swap", "swap_attention")
    few = {"depth": 4}
    for name, size, batch, kind, options in (
        ("vit_tiny_patch16_224", few, 8, "overlap", {"overlap": 8}),
        ("cait_xxs24_224", few, 4, "overlap", {"overlap": 5}),
        ("swin_tiny_patch4_window7_224", {"drop_path_rate": 0.0}, 4, "overlap", {"overlap": 4}),
        ("vit_tiny_patch16_224", few, 8, "imhsa", {"init": "paper"}),
    ):
        models = []
        for swap in swaps:
            models.append(timm.create_model(name, num_classes=10, **size))
            swap(models[-1], kind, **options)
        models[1].load_state_dict(models[0].state_dict())
        images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        cases = [(_called(model), [images.requires_grad_(), *model.parameters()]) for model in models]
        yield f"model {name}, {kind}, batch {batch}", cases


def _called(model: nn.Module) -> Callable[..., Tensor]:
    return lambda images, *parameters: model(images)


def measure(name: str, cases: list[Case], rounds: int) -> dict[str, list[Timing]]:
    """Forward without a gradient, and forward with backward; results first: they differ by rounding at most."""

    def forward(case: Case) -> Tensor:
        with torch.no_grad():
            return case[0](*case[1])

    def step(case: Case) -> tuple[Tensor | None, ...]:
        out = case[0](*case[1])
        return torch.autograd.grad(out.float().square().mean(), case[1], allow_unused=True)

    old, new = cases
    tolerance = 3e-2 if old[1][0].dtype == torch.bfloat16 else 1e-4
    require_close(forward(new), forward(old), tolerance, f"{name}, this tree against the older one")
    return {
        title: compare({"before": partial(run, old), "now": partial(run, new)}, rounds)
        for title, run in (("forward", forward), ("forward + backward", step))
    }


FAMILIES = (overlap_cases, window_cases, talking_cases, interactive_cases, model_cases)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the src folder of the older tree")
    parser.add_argument("--only", default="", choices=[f.__name__.removesuffix("_cases") for f in FAMILIES])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--allocator", choices=["tuned", "default"], default="tuned")
    args = parser.parse_args()
    sys.meta_path.insert(0, _Before(args.source))
    header: dict = conditions(tune_allocator() if args.allocator == "tuned" else "default")
    tables = {}
    for family in FAMILIES:
        if args.only not in family.__name__:
            continue
        for name, cases in family():
            for direction, timings in measure(name, cases, args.rounds).items():
                tables[f"{name}, {direction}"] = timings
    suffix = f"_{args.only}" if args.only else ""
    report(RESULTS / f"before{suffix}.json", header, tables)


if __name__ == "__main__":
    main()
