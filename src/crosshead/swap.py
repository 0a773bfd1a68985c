"""Puts interacting heads into a model that was built without them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .layers.attention import Init, InteractingAttention, from_attention
from .layers.capabilities import Capability
from .layers.grid_sources import GridSources
from .layers.interactions import Interaction
from .layers.registry import HOSTS, interaction_class

# By name: importing them takes longer than a swap.
_WRAPPERS = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}
_ATTENTION = re.compile("attn|attention", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """One attention module of a model: its path, its place among the model's blocks, and its other paths."""

    path: str
    module: nn.Module
    block: int
    also: tuple[str, ...] = ()


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
        lines.append("  make the optimizer, and wrap for several processes, after this")
        return "\n".join(lines)


def swap_attention(
    model: nn.Module,
    kind: str = "overlap",
    *,
    blocks: Iterable[int] | None = None,
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
    _check_bare(model)
    sites = _sites(model)
    others = [(p, type(m).__name__) for p, m in attention_modules(model) if not _has_host(m)]
    if not sites:
        raise ValueError(_nothing_to_replace(model, others))
    chosen = _chosen_blocks(blocks, len(sites))
    plan = cls.plan([_head_width(site.module) for site in sites], **options)

    before = sum(p.numel() for p in model.parameters())
    layers = _layers(model, [site for site in sites if site.block in chosen], plan, init)
    replaced = []
    for site in sites:
        if site.block not in chosen:
            others.append((site.path, _named(site.module)))
            continue
        for path in (site.path, *site.also):
            model.set_submodule(path, layers[site.block])
            was = _named(site.module)
            replaced.append(Replacement(path, site.block, was, plan[site.block].options()))
    if cls.no_weight_decay:
        model.no_weight_decay = SparedDecay(model)  # type: ignore[assignment]
    after = sum(p.numel() for p in model.parameters())
    report = SwapReport(kind, init, tuple(replaced), tuple(others), before, after)
    model.swap_report = report  # type: ignore[assignment]
    return report


class SparedDecay:
    """A model's ``no_weight_decay``, with what its interactions want spared: what starts at the identity, say."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self) -> set[str]:
        own = getattr(type(self._model), "no_weight_decay", None)
        names = set(own(self._model)) if own is not None else set()
        for path, module in self._model.named_modules():
            if isinstance(module, InteractingAttention):
                names |= {f"{path}.{name}" for name in module.interaction.no_weight_decay}
        return names


def _check_bare(model: nn.Module) -> None:
    if _has_host(model):
        raise ValueError(
            f"the model is itself attention ({_named(model)}), which can't be replaced in place; use "
            "crosshead.layers.from_attention(attn, interaction)"
        )
    wrapped = [type(m).__name__ for m in model.modules() if _WRAPPERS & {c.__name__ for c in type(m).__mro__}]
    if wrapped:
        raise ValueError(
            f"the model is wrapped for several processes ({wrapped[0]}), whose gradients are tied to the parameters of "
            "now; swap first, then wrap, and make the optimizer after that"
        )


def _sites(model: nn.Module) -> list[Site]:
    """Attention that has a host, in the order of the modules; a module at several paths is one site."""
    paths: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if _has_host(module):
            paths.setdefault(module, []).append(path)
    return [
        Site(first, module, block, tuple(also))
        for block, (module, (first, *also)) in enumerate(paths.items())
    ]


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
    sources, layers, watched = GridSources(), {}, []
    for site in sites:
        interaction, where = plan[site.block], None
        parents = _parents(model, site.path)
        attn = site.module
        host = attn if isinstance(attn, InteractingAttention) else HOSTS[type(attn)]
        told = host.gives_grid or host.token_grid or getattr(parents[0], "gives_token_grid", False)
        try:
            if Capability.GRID in interaction.needs and not told:
                where = sources.around(parents)
            layers[site.block] = from_attention(
                site.module,
                interaction,
                init=init,
                num_prefix_tokens=None if where is None else where.num_prefix_tokens,
            )
        except ValueError as error:
            raise ValueError(f"block {site.block} ({site.path}): {error}") from error
        if where is not None:
            watched.append((layers[site.block], where.token_grid))
    for layer, token_grid in watched:
        token_grid.watch()
        layer.token_grid = token_grid
    return layers


def _parents(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules around a path, innermost first, the model last."""
    steps = path.split(".")[:-1]
    return [model.get_submodule(".".join(steps[:end])) for end in range(len(steps), -1, -1)]


def _chosen_blocks(blocks: Iterable[int] | None, depth: int) -> set[int]:
    if blocks is None:
        return set(range(depth))
    named = list(blocks) if isinstance(blocks, Iterable) else [blocks]
    absent = [b for b in named if type(b) is not int or not -depth <= b < depth]
    if absent or not named or not isinstance(blocks, Iterable):
        raise ValueError(f"blocks must name some of 0 to {depth - 1} (or -{depth} to -1), got {named}")
    return {b % depth for b in named}


def attention_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Whatever looks like attention with heads, by its class's name or its ``num_heads``: (path, module), innermost."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        counts = isinstance(getattr(module, "num_heads", None), int)
        if path and (_has_host(module) or counts or _ATTENTION.search(type(module).__name__)):
            found.append((path, module))
    outer = {p for path, _ in found for p in _prefixes(path)}
    inside = [path for path, module in found if _has_host(module)]
    return [
        (path, module)
        for path, module in found
        if _has_host(module) or (path not in outer and not any(path.startswith(f"{p}.") for p in inside))
    ]


def _prefixes(path: str) -> list[str]:
    steps = path.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps))]


def _nothing_to_replace(model: nn.Module, others: list[tuple[str, str]]) -> str:
    wanted = ", ".join(f"{cls.__module__}.{cls.__name__}" for cls in HOSTS)
    if not others:
        return f"{type(model).__name__} has no attention that shows; wanted modules of class {wanted}"
    path, name = others[0]
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return (
        f"{type(model).__name__} has attention of class {name} at {path!r}{more}, which has no host; "
        f"wanted modules of class {wanted}"
    )
