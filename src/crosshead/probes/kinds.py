"""Kinds of heads by what a command line calls them: ``plain``, ``overlap:1``, ``imhsa:4:interaction=false``."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from ..layers.registry import interaction_class

PLAIN = "plain"


@dataclass(frozen=True)
class Kind:
    """An interaction with its options for ``swap_attention``, or plain heads (``swap`` is None)."""

    name: str
    swap: dict[str, Any] | None

    @classmethod
    def parse(cls, text: str) -> Kind:
        """``KIND[:VALUE][:OPTION=VALUE ...]``: a value alone is the kind's first option; ``init`` is the swap's, and
        ``paper`` unless given.

        Raises:
            ValueError: no such kind or option.
        """
        kind, *given = text.split(":")
        if kind == PLAIN:
            if given:
                raise ValueError(f"{text!r}: plain heads take no options")
            return cls(PLAIN, None)
        interaction = interaction_class(kind)
        options: dict[str, Any] = {"init": "paper"}
        for place, word in enumerate(given):
            name, equals, value = word.partition("=")
            if not equals:
                if place or not fields(interaction):
                    raise ValueError(
                        f"{text!r}: expected KIND, KIND:VALUE or KIND:OPTION=VALUE, got {word!r}"
                    )
                name, value = fields(interaction)[0].name, word
            options[name] = _value(value)
        interaction.check_options([name for name in options if name != "init"], beside=("init",))
        return cls(text, {"kind": kind, **options})

    @property
    def module(self) -> str | None:
        """Where the interaction is registered, so that another process can have it registered too."""
        return None if self.swap is None else interaction_class(self.swap["kind"]).__module__


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
