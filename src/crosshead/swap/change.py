"""Puts interacting heads into a model that was built without them, takes them out, and does so again from data."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from ..layers.attention import Init, InteractingAttention, from_attention
from ..layers.capabilities import Capability
from ..layers.grid_sources import GridSources
from ..layers.interactions import Interaction
from ..layers.registry import HOSTS, INTERACTIONS, host_of, interaction_class
from ..layers.token_grid import TokenGrid
from .pretrained import RefusedSaving, remember_swap
from .report import Replacement, SwapReport
from .sites import Site, attention_modules, find_sites, has_host, head_width, named, parents_of
from .wrappers import check_adapters_inside, check_free, check_whole, plain_path, unwrapped


def swap_attention(
    model: nn.Module,
    kind: str = "overlap",
    *,
    blocks: Iterable[int] | None = None,
    init: Init = "preserve",
    dry_run: bool = False,
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
            ``knocking``, ``dcmha``, ``reattention``, ``iha``: see ``crosshead.layers.interactions`` for their
            options, and docs/interactions for what each costs.
        blocks: which attention modules to replace, counted from 0 over the whole network in the order of the
            modules, negative from the end; all unless given. A schedule counts all blocks, chosen or not.
        init: ``preserve``: the swapped model gives exactly the outputs of the original, and every new parameter gets
            a gradient from the first step on. ``paper``: the operator of the paper, without that promise.
        dry_run: leave the model and the random numbers as they are; the report says what would be done, the errors
            are those of a swap.
        options: of the interaction.

    On attention whose heads interact already the same kind goes on from what it has learned, with other options where
    they are given (another schedule, say); another kind takes its place, with ``init="paper"`` or after
    ``restore_attention``, since what was learned is lost then.

    Returns:
        A report of what was replaced and what was not; ``print`` shows it. The model has it as ``swap_report``.

    Raises:
        ValueError: for an unknown kind or option, a model without supported attention (the message names what was
            found), attention that can't carry the interaction, or a block that isn't there. The model stays as it is.
    """
    cls = interaction_class(kind)
    _check_bare(model)
    sites = find_sites(model)
    served = {site.module for site in sites}
    others = [(p, type(m).__name__) for p, m in attention_modules(model) if m not in served]
    if not sites:
        raise ValueError(_nothing_to_replace(model, others))
    chosen = _chosen_blocks(blocks, len(sites))
    check_adapters_inside(model, [site for site in sites if site.block in chosen])
    plan = cls.plan([head_width(site.module) for site in sites], **options)

    with _same_random_numbers(model) if dry_run else nullcontext():
        layers, grids = _layers(model, [site for site in sites if site.block in chosen], plan, init)
    others += [(site.path, named(site.module)) for site in sites if site.block not in chosen]
    replaced = tuple(
        Replacement(path, site.block, named(site.module), plan[site.block].options())
        for site in sites
        if site.block in chosen
        for path in (site.path, *site.also)
    )
    before, after = _counts(model, layers)
    report = SwapReport(kind, init, replaced, tuple(others), before, after)
    if not dry_run:
        _put(model, layers, grids)
        model.swap_report = report  # type: ignore[assignment]
    return report


def restore_attention(model: nn.Module) -> int:
    """Puts back the attention of before, in place: its class, and the parts that it has in common with the layers.

    Heads that grew keep the columns of their own channels. What interactions learned is gone; a model that was swapped
    with ``init="preserve"`` and not trained since is what it was.

    Returns:
        How many modules were put back.

    Raises:
        ValueError: a model that is compiled or wrapped for several processes, or a projection that more than a linear
            layer has become, such as one with an adapter. The model stays as it is.
    """
    sites = find_sites(model)
    interacting = [(s, s.module) for s in sites if isinstance(s.module, InteractingAttention)]
    if interacting:
        check_free(model, "restore")
        check_adapters_inside(model, [site for site, _ in interacting])
    parts = _remembering(model)
    restored = [(site, layer, layer.restored()) for site, layer in interacting]
    for site, layer, attn in restored:
        if layer.token_grid is not None:
            layer.token_grid.unwatch()
        for path in (site.path, *site.also):
            model.set_submodule(path, attn)
    SparedDecay.unwatch(model)
    RefusedSaving.unwatch(model)
    for part in parts:
        remember_swap(part, [])
    vars(model).pop("swap_report", None)
    return len(restored)


def supported(model: nn.Module) -> tuple[str, ...]:
    """The kinds of interaction that all of the model's attention can carry, of ``crosshead.layers.INTERACTIONS``.

    What keeps another kind out is in the error of ``swap_attention(model, kind, init="paper", dry_run=True)``. The
    model and the random numbers stay as they are. A model that is compiled or wrapped by DDP is asked inside.

    Raises:
        ValueError: for parameters that FSDP has sharded: ask before.
    """
    model = unwrapped(model)
    check_whole(model, "supported")
    for fault in INTERACTIONS.load_all().values():
        warnings.warn(fault, stacklevel=2)
    sites = [] if has_host(model) else find_sites(model)
    with _same_random_numbers(model):
        return tuple(
            kind for kind, cls in INTERACTIONS.items() if sites and _fits(model, sites, cls.example())
        )


def _same_random_numbers(model: nn.Module) -> AbstractContextManager[None]:
    """After it the random numbers go on as if nothing had been drawn, on the model's GPUs too."""
    gpus = {p.get_device() for p in model.parameters() if p.is_cuda}
    return torch.random.fork_rng(sorted(gpus))


def _fits(model: nn.Module, sites: Sequence[Site], interaction: Interaction) -> bool:
    try:
        _layers(model, sites, [interaction] * len(sites), "paper")
    except ValueError:
        return False
    return True


def interactions_of(model: nn.Module) -> list[dict[str, Any]]:
    """Every layer whose heads interact, as plain data: path, kind, init and options.

    Paths are those in the model itself, without what ``torch.compile`` and DDP add to them.
    """
    model = unwrapped(model)
    return [
        {
            "path": plain_path(path),
            "kind": m.interaction.kind,
            "init": m.init,
            "options": m.interaction.options(),
        }
        for path, m in model.named_modules()
        if isinstance(m, InteractingAttention)
    ]


def interaction_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What interactions brought into a model and learn, by its name there: to unfreeze it, or give it another rate.

    Columns of a projection that grew are parameters of the model's own, and not among them.
    """
    brought = {
        f"{path}.{name}".removeprefix(".")
        for path, layer in model.named_modules()
        if isinstance(layer, InteractingAttention)
        for name in layer.interaction.learned
        if name not in layer.given
    }
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if any(name == each or name.startswith(f"{each}.") for each in brought)
    }


def apply_interactions(model: nn.Module, held: Sequence[Mapping[str, Any]]) -> None:
    """Has a model's heads interact as ``interactions_of`` tells of another one, there and nowhere else.

    Raises ValueError where the model has no such attention, or the data is no such list. The model then stays as it is.
    """
    if held == interactions_of(model):
        return
    check_free(model, "swap")
    layers: dict[Site, InteractingAttention] = {}
    grids: dict[Site, TokenGrid] = {}
    sources = GridSources()
    for site, interaction, init in _as_held(model, held):
        new, source = _layers(model, [site], {site.block: interaction}, init, sources, afresh=True)
        layers |= new
        grids |= source
    restore_attention(model)
    _put(model, layers, grids)


def _as_held(model: nn.Module, held: Sequence[Mapping[str, Any]]) -> list[tuple[Site, Interaction, Init]]:
    """Where, what and how, of the data of ``interactions_of``."""
    wanted = "expected a list of path, kind, init and options, as interactions_of gives it"
    sites = {path: site for site in find_sites(model) for path in (site.path, *site.also)}
    found = []
    for entry in held:
        if not isinstance(entry, Mapping) or not {"path", "kind", "init", "options"} <= entry.keys():
            raise ValueError(f"{wanted}, got an entry {entry}")
        cls = interaction_class(entry["kind"])
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in dict(entry["options"]).items()}
        cls.check_options(options)
        if entry["path"] not in sites:
            raise ValueError(f"{type(model).__name__} has no attention at {entry['path']!r} that has a host")
        found.append((sites[entry["path"]], cls(**options), entry["init"]))
    return found


def _put(
    model: nn.Module, layers: Mapping[Site, InteractingAttention], grids: Mapping[Site, TokenGrid]
) -> None:
    for site, layer in layers.items():
        if site in grids:
            grids[site].watch()
            layer.token_grid = grids[site]
        for path in (site.path, *site.also):
            model.set_submodule(path, layer)
    RefusedSaving.watch(model)
    for part in _remembering(model):
        remember_swap(part, interactions_of(part))
    if any(layer.interaction.no_weight_decay for layer in layers.values()):
        SparedDecay.watch(model)


def _remembering(model: nn.Module) -> list[nn.Module]:
    """The model and its parts, a backbone in a module of the user's own say, that timm made and heads interact in."""
    return [
        part
        for part in model.modules()
        if "pretrained_cfg" in vars(part) and any(isinstance(m, InteractingAttention) for m in part.modules())
    ]


def _counts(model: nn.Module, layers: Mapping[Site, InteractingAttention]) -> tuple[int, int]:
    """Parameters before and after: those of all that stays, and of what comes in."""
    before = {id(p): p.numel() for p in model.parameters()}
    leaving = {id(p) for site in layers for p in site.module.parameters()}
    coming = {id(p): p.numel() for layer in layers.values() for p in layer.parameters()}
    after = {key: n for key, n in before.items() if key not in leaving} | coming
    return sum(before.values()), sum(after.values())


class SparedDecay:
    """A model's ``no_weight_decay``, with what its interactions want spared: what starts at the identity, say."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        # What was put on this one model, over its class's.
        self._given = vars(model).get("no_weight_decay")

    @classmethod
    def watch(cls, model: nn.Module) -> None:
        if not isinstance(vars(model).get("no_weight_decay"), cls):
            model.no_weight_decay = cls(model)  # type: ignore[assignment]

    @classmethod
    def unwatch(cls, model: nn.Module) -> None:
        if isinstance(spared := vars(model).get("no_weight_decay"), cls):
            del model.no_weight_decay
            if spared._given is not None:
                model.no_weight_decay = spared._given

    def __call__(self) -> set[str]:
        of_class = getattr(type(self._model), "no_weight_decay", None)
        own = self._given or (of_class.__get__(self._model) if of_class is not None else set)
        names = set(own())
        for path, module in self._model.named_modules():
            if isinstance(module, InteractingAttention):
                names |= {f"{path}.{name}" for name in module.interaction.no_weight_decay}
        return names


def _check_bare(model: nn.Module) -> None:
    if has_host(model):
        raise ValueError(
            f"the model is itself attention ({named(model)}), which can't be replaced in place; use "
            "crosshead.layers.from_attention(attn, interaction)"
        )
    check_free(model, "swap")


def _layers(
    model: nn.Module,
    sites: Sequence[Site],
    plan: Sequence[Interaction] | Mapping[int, Interaction],
    init: Init,
    sources: GridSources | None = None,
    *,
    afresh: bool = False,
) -> tuple[dict[Site, InteractingAttention], dict[Site, TokenGrid]]:
    """The replacements, and where their grids come from; the model is not touched yet.

    ``afresh``: in place of the attention before any swap, whatever was learned since.
    """
    sources = sources or GridSources()
    layers: dict[Site, InteractingAttention] = {}
    grids: dict[Site, TokenGrid] = {}
    for site in sites:
        interaction, prefix = plan[site.block], None
        attn = site.module
        if afresh and isinstance(attn, InteractingAttention):
            attn = attn.restored()
        parents = parents_of(model, site.path)
        try:
            if Capability.GRID in interaction.needs and not _knows_grid(attn, parents[0]):
                grids[site], prefix = sources.around(parents)
            layers[site] = from_attention(attn, interaction, init=init, num_prefix_tokens=prefix)
        except ValueError as error:
            raise ValueError(f"block {site.block} ({site.path}): {error}") from error
    return layers, grids


def _knows_grid(attn: nn.Module, parent: nn.Module) -> bool:
    """Whether attention needs no other source of its grid: its host, its block or an earlier swap tells it."""
    host: Any = attn if isinstance(attn, InteractingAttention) else host_of(type(attn))
    return bool(host.gives_grid or host.token_grid or getattr(parent, "gives_token_grid", False))


def _chosen_blocks(blocks: Iterable[int] | None, depth: int) -> set[int]:
    if blocks is None:
        return set(range(depth))
    given = list(blocks) if isinstance(blocks, Iterable) else [blocks]
    absent = [b for b in given if type(b) is not int or not -depth <= b < depth]
    if absent or not given or not isinstance(blocks, Iterable):
        raise ValueError(f"blocks must name some of 0 to {depth - 1} (or -{depth} to -1), got {given}")
    return {b % depth for b in given}


def _nothing_to_replace(model: nn.Module, others: list[tuple[str, str]]) -> str:
    wanted = ", ".join(f"{cls.__module__}.{cls.__name__}" for cls in HOSTS)
    if not others:
        return f"{type(model).__name__} has no attention that shows; expected modules of class {wanted}"
    path, name = others[0]
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return (
        f"{type(model).__name__} has attention of class {name} at {path!r}{more}, which has no host; "
        f"expected modules of class {wanted}"
    )
