"""Where a model has attention: what has a host, and what else looks like it."""

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..layers.attention import InteractingAttention
from ..layers.registry import host_of, hosts_of

_ATTENTION = re.compile("attn|attention", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Site:
    """One attention module of a model: its path, its place among the model's blocks, and its other paths."""

    path: str
    module: nn.Module
    block: int
    also: tuple[str, ...] = ()


def find_sites(model: nn.Module) -> list[Site]:
    """Attention that has a host, in the order of the modules; a module at several paths is one site."""
    paths: dict[nn.Module, list[str]] = {}
    for path, module in _with_host(model):
        if _attends_to_itself(model, path, module):
            paths.setdefault(module, []).append(path)
    return [
        Site(first, module, block, tuple(also))
        for block, (module, (first, *also)) in enumerate(paths.items())
    ]


def has_host(module: nn.Module) -> bool:
    return isinstance(module, InteractingAttention) or host_of(type(module)) is not None


def _with_host(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules that have a host, or are one; one at several paths comes with each.

    What PEFT's ``modules_to_save`` has set aside, and trains a copy of, is none.
    """
    modules = [each for each in model.named_modules(remove_duplicate=False) if not _set_aside(model, each[0])]
    hosts = hosts_of({type(module) for _, module in modules})
    return [
        (path, module)
        for path, module in modules
        if isinstance(module, InteractingAttention) or type(module) in hosts
    ]


def _set_aside(model: nn.Module, path: str) -> bool:
    outer, found, _ = f"{path}.".partition(".original_module.")
    return bool(found) and hasattr(model.get_submodule(outer), "modules_to_save")


def _attends_to_itself(model: nn.Module, path: str, attn: nn.Module) -> bool:
    host: Any = type(attn) if isinstance(attn, InteractingAttention) else host_of(type(attn))
    outer, _, name = path.rpartition(".")
    found: bool = not path or host.attends_to_itself(attn, model.get_submodule(outer), name)
    return found


def head_width(attn: nn.Module) -> int:
    if isinstance(attn, InteractingAttention):
        return attn.head_dim
    host: Any = host_of(type(attn))
    width: int = host.sizes(attn)[1]
    return width


def named(attn: nn.Module) -> str:
    """Its class, or that of the module in whose place it is, and its interaction."""
    if isinstance(attn, InteractingAttention):
        return f"{attn.replaced.__name__} ({attn.interaction.kind})"
    return type(attn).__name__


def parents_of(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules around a path, innermost first, the model last."""
    steps = path.split(".")[:-1]
    return [model.get_submodule(".".join(steps[:end])) for end in range(len(steps), -1, -1)]


def attention_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Whatever looks like attention with heads, by its class's name or its ``num_heads``: (path, module), innermost."""
    hosted = {path for path, _ in _with_host(model)}
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        counts = isinstance(getattr(module, "num_heads", None), int)
        if path and (path in hosted or counts or _ATTENTION.search(type(module).__name__)):
            found.append((path, module))
    outer = {p for path, _ in found for p in _prefixes(path)}
    inside = [path for path, _ in found if path in hosted]
    return [
        (path, module)
        for path, module in found
        if path in hosted or (path not in outer and not any(path.startswith(f"{p}.") for p in inside))
    ]


def _prefixes(path: str) -> list[str]:
    steps = path.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps))]
