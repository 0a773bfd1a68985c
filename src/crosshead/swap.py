"""Puts interacting heads into a model that was built without them."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from timm.layers import Attention
from timm.models.cait import TalkingHeadAttn
from timm.models.swin_transformer import WindowAttention
from torch import nn

from .layers.interactive import PRESERVES_NOTHING, InteractiveAttention
from .layers.overlapped import Init, OverlappedAttention
from .layers.schedule import OverlapSchedule, ScheduleSpec
from .layers.talking import OverlappedTalkingHeadAttention
from .layers.token_grid import TokenGrid
from .layers.window import OverlappedWindowAttention
from .ops.interactive import Mode

_ATTENTION = re.compile("attn|attention", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """One attention module of a model: its path, and its place among the model's blocks."""

    path: str
    module: nn.Module
    block: int


@dataclass(frozen=True)
class Replacement:
    """What was put in: where, in place of what, and how."""

    path: str
    block: int
    was: str
    now: str
    options: dict[str, Any]


@dataclass(frozen=True)
class SwapReport:
    """What ``swap_attention`` did. ``untouched`` names attention that stayed as it was: (path, class)."""

    kind: str
    init: str
    replaced: tuple[Replacement, ...]
    untouched: tuple[tuple[str, str], ...]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        lines = [
            f"{self.kind}: {len(self.replaced)} attention modules replaced (init={self.init}), "
            f"{self.parameters_before:,} -> {self.parameters_after:,} parameters"
        ]
        for r in self.replaced:
            options = ", ".join(f"{key} {value}" for key, value in r.options.items())
            lines.append(f"  block {r.block:2d}  {r.path}: {r.was} -> {r.now} ({options})")
        lines += [f"  untouched  {path}: {name}" for path, name in self.untouched]
        return "\n".join(lines)


@dataclass(frozen=True)
class Kind:
    """One kind of attention: what it can take the place of, and what each block's replacement is built with.

    ``build[cls](module, init=..., **options)`` makes the replacement of a module of exactly the class ``cls``;
    ``plan(model, sites, init, **options)`` turns the caller's options into those of each site.
    """

    build: dict[type[nn.Module], Callable[..., nn.Module]]
    plan: Callable[..., list[dict[str, Any]]]
    after: Callable[[nn.Module], None] = field(default=lambda model: None)


def _plan_overlap(
    model: nn.Module, sites: list[Site], init: Init, *, overlap: ScheduleSpec = "index"
) -> list[dict[str, Any]]:
    widths = [_head_width(site.module) for site in sites]
    overlaps = OverlapSchedule.parse(overlap).overlaps(len(sites), widths)
    return [{"overlap": o} for o in overlaps]


def _head_width(attn: nn.Module) -> int:
    return attn.qkv.out_features // 3 // attn.num_heads  # type: ignore[union-attr, operator, return-value]


def _plan_imhsa(
    model: nn.Module,
    sites: list[Site],
    init: Init,
    *,
    landmarks: int | tuple[int, int] = 7,
    interaction: bool = True,
    mode: Mode = "auto",
) -> list[dict[str, Any]]:
    if init == "preserve":
        raise ValueError(PRESERVES_NOTHING)
    options: dict[str, Any] = {"landmarks": landmarks, "interaction": interaction, "mode": mode}
    parents = [model.get_submodule(site.path.rpartition(".")[0]) for site in sites]
    if not all(getattr(parent, "gives_token_grid", False) for parent in parents):
        if getattr(getattr(model, "patch_drop", None), "prob", 0.0):
            raise ValueError(
                "interactive attention wants whole grids of tokens; build the model with patch_drop_rate=0"
            )
        options["num_prefix_tokens"] = getattr(model, "num_prefix_tokens", 0)
        options["token_grid"] = TokenGrid(getattr(model, "patch_embed", model))
    return [options] * len(sites)


KINDS: dict[str, Kind] = {
    "overlap": Kind(
        build={
            Attention: OverlappedAttention.from_attention,
            TalkingHeadAttn: OverlappedTalkingHeadAttention.from_attention,
            WindowAttention: OverlappedWindowAttention.from_attention,
        },
        plan=_plan_overlap,
    ),
    "imhsa": Kind(
        build={
            Attention: InteractiveAttention.from_attention,
            InteractiveAttention: InteractiveAttention.from_attention,
        },
        plan=_plan_imhsa,
    ),
}


def swap_attention(
    model: nn.Module,
    kind: str = "overlap",
    *,
    blocks: Collection[int] | None = None,
    init: Init = "preserve",
    **options: Any,
) -> SwapReport:
    """Replaces a model's attention, in place; everything else, the weights included, stays.

    Args:
        model: a timm model, or any module, whose attention is of a class that ``kind`` supports.
        kind: ``overlap`` (MOHSA), option ``overlap``: a schedule, see ``crosshead.layers.schedule``.
            ``imhsa``, options ``landmarks``, ``interaction``, ``mode``: see ``crosshead.layers.InteractiveAttention``;
            class token and registers become prefix tokens, and ``init`` must be ``paper``.
        blocks: which attention modules to replace, counted from 0 over the whole network in the order of the
            modules, negative from the end; all unless given. A schedule counts all blocks, chosen or not.
        init: ``preserve``: the swapped model gives exactly the outputs of the original, and every new parameter gets
            a gradient from the first step on. ``paper``: the operator of the paper, without that promise.

    Returns:
        A report of what was replaced and what was not; ``print`` shows it.

    Raises:
        ValueError: for an unknown kind, a model without supported attention (the message names what was found), a
            block that isn't there, or options that don't fit. The model is then as it was.
    """
    if kind not in KINDS:
        raise ValueError(f"no attention kind {kind!r}; wanted one of {', '.join(KINDS)}")
    if init not in ("preserve", "paper"):
        raise ValueError(f"init must be 'preserve' or 'paper', got {init!r}")
    build = KINDS[kind].build
    found = [(path, module) for path, module in model.named_modules() if type(module) in build]
    sites = [Site(path, module, block) for block, (path, module) in enumerate(found)]
    others = _other_attention(model, {path for path, _ in found})
    if not sites:
        raise ValueError(_nothing_to_replace(model, kind, others))
    chosen = _chosen_blocks(blocks, len(sites))

    before = sum(p.numel() for p in model.parameters())
    plan = KINDS[kind].plan(model, sites, init, **options)
    modules = {
        s.block: build[type(s.module)](s.module, init=init, **plan[s.block])
        for s in sites
        if s.block in chosen
    }
    replaced = []
    for site in sites:
        if site.block not in chosen:
            others.append((site.path, type(site.module).__name__))
            continue
        new = modules[site.block]
        model.set_submodule(site.path, new)
        was, now = type(site.module).__name__, type(new).__name__
        replaced.append(Replacement(site.path, site.block, was, now, plan[site.block]))
    KINDS[kind].after(model)
    after = sum(p.numel() for p in model.parameters())
    return SwapReport(kind, init, tuple(replaced), tuple(others), before, after)


def _chosen_blocks(blocks: Collection[int] | None, depth: int) -> set[int]:
    if blocks is None:
        return set(range(depth))
    absent = [b for b in blocks if not -depth <= b < depth]
    if absent or not blocks:
        raise ValueError(f"blocks must name some of 0 to {depth - 1} (or -{depth} to -1), got {list(blocks)}")
    return {b % depth for b in blocks}


def _other_attention(model: nn.Module, supported: set[str]) -> list[tuple[str, str]]:
    """Modules that look like attention and are not of a supported class: (path, class), outermost only."""
    others: list[tuple[str, str]] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(known + ".") for known, _ in others)
        if path and path not in supported and not inside and _ATTENTION.search(type(module).__name__):
            others.append((path, type(module).__name__))
    return others


def _nothing_to_replace(model: nn.Module, kind: str, others: list[tuple[str, str]]) -> str:
    wanted = ", ".join(f"{cls.__module__}.{cls.__name__}" for cls in KINDS[kind].build)
    if not others:
        return f"{type(model).__name__} has no attention; kind {kind!r} replaces modules of class {wanted}"
    path, name = others[0]
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return (
        f"{type(model).__name__} has attention of class {name} at {path!r}{more}, which kind {kind!r} can't replace; "
        f"wanted modules of class {wanted}"
    )
