"""What segmenters and detectors share: they stand on a backbone, answer for it to whoever trains them, and take options
of a recipe as they are."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from .pyramid import Maps


def check_options(
    name: str,
    build: Callable[..., Any],
    options: Mapping[str, Any],
    where: str,
    *,
    beside: Collection[str] = (),
) -> None:
    """Whether ``build``, which recipes call ``name``, takes ``options``: its keyword-only arguments, but for those of
    ``beside``. ``where`` in the recipe the options stand.

    Raises:
        ValueError: it has no such option; the message names those that it has.
    """
    known = [
        option.name
        for option in inspect.signature(build).parameters.values()
        if option.kind is inspect.Parameter.KEYWORD_ONLY and option.name not in beside
    ]
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f", the nearest is {near[0]!r}" if near else ""
            raise ValueError(
                f"{where}: {name} has no option {option!r}{hint}; it knows {', '.join(sorted(known)) or 'none'}"
            )


class OnBackbone(nn.Module):
    """A model with one ``Maps`` in it."""

    @property
    def backbone(self) -> nn.Module:
        """The model of timm's registry."""
        return next(module for module in self.modules() if isinstance(module, Maps)).backbone

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the backbone's blocks form their activations again in the backward pass."""
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """What the backbone spares, by this module's names."""
        listed: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"{self._prefix}{name}" for name in listed}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The backbone's groups, of which layer-wise decay makes layers; what stands on it falls into the last one."""
        out: dict[str, Any] = _behind(re.escape(self._prefix), self.backbone.group_matcher(coarse=coarse))  # type: ignore[operator]
        return out

    @property
    def _prefix(self) -> str:
        backbone = self.backbone
        return next(f"{name}." for name, module in self.named_modules() if module is backbone)


def _behind(prefix: str, groups: Any) -> Any:
    """timm's patterns, in dicts, lists and tuples, for names that begin with ``prefix``."""
    if isinstance(groups, str):
        unanchored = re.sub(r"(^|\||\()\^", r"\1", groups)
        return rf"^{prefix}(?:{unanchored})"
    if isinstance(groups, dict):
        return {name: _behind(prefix, group) for name, group in groups.items()}
    if isinstance(groups, list | tuple):
        return type(groups)(_behind(prefix, group) for group in groups)
    return groups
