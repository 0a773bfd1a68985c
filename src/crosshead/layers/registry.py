"""Which interactions and hosts there are. Both tables are filled through the two functions here, ours included.

Another package offers an interaction through an entry point of the group ``crosshead.interactions`` under its kind.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import nn

from ..plugins import Registry

if TYPE_CHECKING:
    from .interactions.base import Interaction

INTERACTIONS: Registry[type[Interaction]] = Registry("crosshead.interactions", "interaction")
# A class of attention -> its host, a subclass of both ``InteractingAttention`` and that class.
HOSTS: dict[type[nn.Module], type[Any]] = {}
# Packages that need not be there, and modules that not every timm has: the module that has, in ``host_for``, the host
# of a class of theirs, or None. It is imported when a class of theirs comes, and fills ``HOSTS``.
_LATER = {
    "torchvision": "torchvision_swin",
    "transformers": "transformers_classes",
    "timm.models.cpubone": "convolved",
    "timm.models.gemma4_vit": "gemma",
    "timm.models.lowformer": "convolved",
}
_ASKED: set[type[nn.Module]] = set()


def register_interaction(cls: type[Interaction]) -> type[Interaction]:
    """Makes a kind of interaction known under ``cls.kind``: to ``swap_attention``, to recipes, to every host.

    Args:
        cls: a frozen dataclass whose fields are the options, derived from ``crosshead.layers.Interaction``.

    Returns:
        ``cls``, so that it serves as a decorator.

    Raises:
        ValueError: for a kind that another class has.
    """
    return INTERACTIONS.add(cls.kind, cls)


def register_host(attention: type[nn.Module], host: type[nn.Module]) -> None:
    """Makes attention modules of exactly the class ``attention`` replaceable by ``host``.

    Args:
        attention: a model's class of attention.
        host: derived from ``crosshead.layers.InteractingAttention`` and then from ``attention``; it says in ``read``
            how queries, keys and values are made.

    Raises:
        ValueError: for a class that has a host, or a host that isn't one of its class.
    """
    if HOSTS.get(attention, host) is not host:
        raise ValueError(f"{attention.__qualname__} has the host {HOSTS[attention].__qualname__}")
    if not issubclass(host, attention):
        raise ValueError(
            f"{host.__qualname__} must derive from {attention.__qualname__}, whose submodules and methods it keeps"
        )
    HOSTS[attention] = host


def host_of(attention: type[nn.Module]) -> type[Any] | None:
    """The host of a class of attention, or None."""
    module = attention.__module__
    later = _LATER.get(module) or _LATER.get(module.partition(".")[0])
    if later is not None and attention not in HOSTS and attention not in _ASKED:
        _ASKED.add(attention)
        found = import_module(f"{__package__}.hosts.{later}").host_for(attention)
        if found is not None:
            register_host(attention, found)
    return HOSTS.get(attention)


def hosts_of(classes: set[type[nn.Module]]) -> dict[type[nn.Module], type[Any]]:
    """The hosts of those classes of attention that have one."""
    return {each: host for each in classes if (host := host_of(each)) is not None}


def interaction_class(kind: str) -> type[Interaction]:
    """The class of a kind. Raises ValueError, with the kinds that there are, for another one."""
    return INTERACTIONS.find(kind)
