"""How far the heads of each block overlap (MOHSA, arXiv 2410.14874, section 3.3).

With L blocks counted over the whole network, the paper's eight paradigms are one formula::

    o_b = (i // divisor) + base      i = b, or reversed i = L - 1 - b;   base 0 or 1;   divisor 1 or 2

They are named after it: ``index``, ``index+1``, ``index/2``, ``index/2+1``, ``reversed``, ``reversed+1``,
``reversed/2`` and ``reversed/2+1``. Beside them stand ``none``, ``constant:6`` (or the number 6), ``fraction:0.5``
(a share of the head width) and an explicit list, ``[0, 1, 2, 3]``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Union

PARADIGMS = (
    "index",
    "index+1",
    "index/2",
    "index/2+1",
    "reversed",
    "reversed+1",
    "reversed/2",
    "reversed/2+1",
)
_FORMULA = re.compile(r"(index|reversed)(/2)?(\+1)?")
_WANTED = f"one of {', '.join(PARADIGMS)}, none, constant:CHANNELS, fraction:SHARE, or a list of one overlap a block"

ScheduleSpec = Union["OverlapSchedule", str, int, float, Sequence[int], None]


@dataclass(frozen=True)
class OverlapSchedule:
    """A rule that gives every block its overlap. ``parse`` reads one, ``str`` writes it, ``overlaps`` applies it."""

    name: str
    channels: tuple[int, ...] = ()
    share: float = 0.0

    @classmethod
    def parse(cls, spec: ScheduleSpec) -> "OverlapSchedule":
        """The schedule that ``spec`` names.

        Raises:
            ValueError: where it names none; the message lists what there is.
        """
        if isinstance(spec, OverlapSchedule):
            return spec
        if spec is None:
            return cls("none")
        if isinstance(spec, bool):
            raise ValueError(f"an overlap schedule is {_WANTED}; got {spec}")
        if isinstance(spec, int):
            return cls("constant", channels=(_at_least_zero(spec, spec),))
        if isinstance(spec, float):
            return cls("fraction", share=_share(spec))
        if isinstance(spec, str):
            return cls._parse_text(spec.strip())
        if all(isinstance(o, int) and not isinstance(o, bool) for o in spec):
            return cls("list", channels=tuple(_at_least_zero(o, spec) for o in spec))
        raise ValueError(f"an overlap schedule is {_WANTED}; got {spec!r}")

    @classmethod
    def _parse_text(cls, text: str) -> "OverlapSchedule":
        if text == "none" or _FORMULA.fullmatch(text):
            return cls(text)
        kind, colon, value = text.partition(":")
        try:
            if kind == "constant" and colon:
                return cls("constant", channels=(_at_least_zero(int(value), text),))
            if kind == "fraction" and colon:
                return cls("fraction", share=_share(float(value)))
            numbers = text.removeprefix("[").removesuffix("]")
            if re.fullmatch(r"\d+(\s*,\s*\d+)+", numbers) or text.startswith("["):
                return cls("list", channels=tuple(int(part) for part in numbers.split(",")))
            return cls("constant", channels=(_at_least_zero(int(text), text),))
        except _OutOfRange:
            raise
        except ValueError:
            near = get_close_matches(text, [*PARADIGMS, "none", "constant:", "fraction:"], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"an overlap schedule is {_WANTED}; got {text!r}{hint}") from None

    def __str__(self) -> str:
        match self.name:
            case "constant":
                return f"constant:{self.channels[0]}"
            case "fraction":
                return f"fraction:{self.share:g}"
            case "list":
                return str(list(self.channels))
            case _:
                return self.name

    def overlaps(self, depth: int, head_dim: int | Sequence[int]) -> list[int]:
        """The overlap of each of ``depth`` blocks whose heads are ``head_dim`` wide (one number, or one a block).

        Raises:
            ValueError: for a list of another length, or an overlap that passes the head width.
        """
        widths = [head_dim] * depth if isinstance(head_dim, int) else list(head_dim)
        assert len(widths) == depth
        if self.name == "list" and len(self.channels) != depth:
            raise ValueError(
                f"the overlap schedule lists {len(self.channels)} blocks and the model has {depth}; "
                "give one overlap a block, or a rule such as 'index' that fits any depth"
            )
        overlaps = [self._overlap(block, depth, widths[block]) for block in range(depth)]
        for block, (overlap, width) in enumerate(zip(overlaps, widths, strict=True)):
            if overlap > width:
                raise ValueError(
                    f"overlap schedule {self} asks for an overlap of {overlap} in block {block} of {depth}, "
                    f"whose heads are {width} wide; expected at most {width}: choose a slower schedule "
                    "(index/2, fraction:0.5), fewer blocks or wider heads"
                )
        return overlaps

    def _overlap(self, block: int, depth: int, head_dim: int) -> int:
        match self.name:
            case "none":
                return 0
            case "constant":
                return self.channels[0]
            case "fraction":
                return int(self.share * head_dim)
            case "list":
                return self.channels[block]
        formula = _FORMULA.fullmatch(self.name)
        assert formula is not None
        index = block if formula[1] == "index" else depth - 1 - block
        return index // (2 if formula[2] else 1) + (1 if formula[3] else 0)


class _OutOfRange(ValueError):
    """A number that is one, and can't be an overlap."""


def _at_least_zero(overlap: int, spec: object) -> int:
    if overlap < 0:
        raise _OutOfRange(f"an overlap is 0 or more channels; expected {_WANTED}, got {spec!r}")
    return overlap


def _share(share: float) -> float:
    if not 0.0 <= share <= 1.0:
        raise _OutOfRange(f"expected a share of the head width between 0 and 1, got {share:g}")
    return share
