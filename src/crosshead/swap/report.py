"""What a swap did, as a thing of its own: to print, to write as JSON, and to do again on another copy of the model."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self


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

    def to_json(self) -> str:
        """All of it as JSON, from which ``from_json`` makes it again."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The report that ``to_json`` wrote. Raises ValueError for other text."""
        try:
            held = json.loads(text)
            replaced = tuple(Replacement(**r) for r in held.pop("replaced"))
            untouched = tuple((path, name) for path, name in held.pop("untouched"))
            return cls(replaced=replaced, untouched=untouched, **held)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(
                f"not a report of a swap: {error}; expected what SwapReport.to_json wrote"
            ) from error
