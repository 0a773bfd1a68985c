"""Puts interacting heads into a model that was built without them."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .layers.attention import Init, InteractingAttention, from_attention
from .layers.capabilities import Capability
from .layers.interactions import Interaction
from .layers.registry import HOSTS, interaction_class
from .layers.token_grid import TokenGrid

_ATTENTION = re.compile("attn|attention", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """One attention module of a model: its path, and its place among the model's blocks."""

    path: str
    module: nn.Module
    block: int


@dataclass(frozen=True)
class Replacement:
    """What was put in: where, in place of what, and with which options."""

    path: str
    block: int
    was: str
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
            lines.append(f"  block {r.block:2d}  {r.path}: {r.was} -> {self.kind} ({options})")
        lines += [f"  untouched  {path}: {name}" for path, name in self.untouched]
        return "\n".join(lines)


def swap_attention(
    model: nn.Module,
    kind: str = "overlap",
    *,
    blocks: Collection[int] | None = None,
    init: Init = "preserve",
    **options: Any,
) -> SwapReport:
    """Lets the heads of a model's attention interact, in place; everything else, the weights included, stays.

    Args:
        model: a timm model, or any module, that holds attention of classes in ``crosshead.layers.HOSTS``.
        kind: the interaction, one of ``crosshead.layers.INTERACTIONS``:
            ``overlap`` (MOHSA), option ``overlap``: a schedule, see ``crosshead.layers.schedule``.
            ``imhsa``, options ``landmarks``, ``interaction``, ``mode``: see ``crosshead.layers.Interactive``;
            class token and registers become prefix tokens, and ``init`` must be ``paper``.
            ``talking``, options ``overlap``, ``mode``: see ``crosshead.layers.Talking``.
        blocks: which attention modules to replace, counted from 0 over the whole network in the order of the
            modules, negative from the end; all unless given. A schedule counts all blocks, chosen or not.
        init: ``preserve``: the swapped model gives exactly the outputs of the original, and every new parameter gets
            a gradient from the first step on. ``paper``: the operator of the paper, without that promise.
        options: of the interaction.

    Returns:
        A report of what was replaced and what was not; ``print`` shows it. The model has it as ``swap_report``.

    Raises:
        ValueError: for an unknown kind or option, a model without supported attention (the message names what was
            found), attention that can't carry the interaction, or a block that isn't there. The model stays as it is.
    """
    cls = interaction_class(kind)
    found = [(path, module) for path, module in model.named_modules() if _has_host(module)]
    sites = [Site(path, module, block) for block, (path, module) in enumerate(found)]
    others = _other_attention(model, {path for path, _ in found})
    if not sites:
        raise ValueError(_nothing_to_replace(model, others))
    chosen = _chosen_blocks(blocks, len(sites))
    plan = cls.plan([_head_width(site.module) for site in sites], **options)

    before = sum(p.numel() for p in model.parameters())
    layers = _layers(model, [site for site in sites if site.block in chosen], plan, init)
    for site in sites:
        if site.block in chosen:
            model.set_submodule(site.path, layers[site.block])
        else:
            others.append((site.path, _named(site.module)))
    after = sum(p.numel() for p in model.parameters())
    replaced = tuple(
        Replacement(s.path, s.block, _named(s.module), plan[s.block].options())
        for s in sites
        if s.block in chosen
    )
    report = SwapReport(kind, init, replaced, tuple(others), before, after)
    model.swap_report = report  # type: ignore[assignment]
    return report


def _has_host(module: nn.Module) -> bool:
    return type(module) in HOSTS or isinstance(module, InteractingAttention)


def _head_width(attn: nn.Module) -> int:
    return attn.head_dim if isinstance(attn, InteractingAttention) else HOSTS[type(attn)].sizes(attn)[1]


def _named(attn: nn.Module) -> str:
    """Its class, or that of the module in whose place it is, and its interaction."""
    if isinstance(attn, InteractingAttention):
        return f"{attn.replaced.__name__} ({attn.interaction.kind})"
    return type(attn).__name__


def _layers(
    model: nn.Module, sites: Sequence[Site], plan: Sequence[Interaction], init: Init
) -> dict[int, InteractingAttention]:
    """The replacements, by block; the model is not touched yet."""
    layers = {}
    for site in sites:
        interaction, where = plan[site.block], {}
        parent = model.get_submodule(site.path.rpartition(".")[0])
        told = getattr(parent, "gives_token_grid", False) or getattr(site.module, "token_grid", None)
        if Capability.GRID in interaction.needs and not told:
            where = _where(model)
        try:
            layers[site.block] = from_attention(site.module, interaction, init=init, **where)
        except ValueError as error:
            raise ValueError(f"block {site.block} ({site.path}): {error}") from error
    return layers


def _where(model: nn.Module) -> dict[str, Any]:
    """How attention inside ``model`` learns where its tokens lie."""
    if getattr(getattr(model, "patch_drop", None), "prob", 0.0):
        raise ValueError(
            "attention on a grid wants whole grids of tokens; build the model with patch_drop_rate=0"
        )
    return {
        "num_prefix_tokens": getattr(model, "num_prefix_tokens", 0),
        "token_grid": TokenGrid(getattr(model, "patch_embed", model)),
    }


def _chosen_blocks(blocks: Collection[int] | None, depth: int) -> set[int]:
    if blocks is None:
        return set(range(depth))
    blocks = list(blocks)
    absent = [b for b in blocks if not -depth <= b < depth]
    if absent or not blocks:
        raise ValueError(f"blocks must name some of 0 to {depth - 1} (or -{depth} to -1), got {blocks}")
    return {b % depth for b in blocks}


def _other_attention(model: nn.Module, supported: set[str]) -> list[tuple[str, str]]:
    """Modules that look like attention and are not of a supported class: (path, class), outermost only."""
    others: list[tuple[str, str]] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(known + ".") for known, _ in others)
        if path and path not in supported and not inside and _ATTENTION.search(type(module).__name__):
            others.append((path, type(module).__name__))
    return others


def _nothing_to_replace(model: nn.Module, others: list[tuple[str, str]]) -> str:
    wanted = ", ".join(f"{cls.__module__}.{cls.__name__}" for cls in HOSTS)
    if not others:
        return f"{type(model).__name__} has no attention; wanted modules of class {wanted}"
    path, name = others[0]
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return (
        f"{type(model).__name__} has attention of class {name} at {path!r}{more}, which has no host; "
        f"wanted modules of class {wanted}"
    )
