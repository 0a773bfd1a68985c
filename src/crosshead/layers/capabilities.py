"""What a host brings and an interaction needs or carries, and the one place where the two are compared."""

from collections.abc import Collection
from enum import StrEnum


class Capability(StrEnum):
    """A trait of an attention module that decides what may happen between its heads."""

    GRID = "grid"
    ROTARY = "rotary positions"
    BIAS = "position bias"
    MASK = "mask"
    MIXING = "talking heads"
    OUTPUT_NORM = "output norm"
    GATE = "gate"
    QUERY_BIAS = "bias of queries"
    OTHER_KEYS = "keys of other tokens"
    VALUE_WIDTH = "values of another width"
    FIXED_WIDTH = "heads of a fixed width"
    CHANNELS = "channels for tokens"


MEANING = {
    Capability.GRID: "its tokens are a whole image, row by row, after some prefix tokens",
    Capability.ROTARY: "queries and keys are rotated by where their tokens lie",
    Capability.BIAS: "a bias for each head and pair of tokens is added to the logits",
    Capability.MASK: "its model parts tokens by a mask, as between shifted windows",
    Capability.MIXING: "it mixes its heads' logits and weights itself",
    Capability.OUTPUT_NORM: "all heads' channels are normalised together before the projection (scale_norm)",
    Capability.GATE: "the heads' output is multiplied by a gate of the tokens",
    Capability.QUERY_BIAS: "what is added to its logits is made of its queries",
    Capability.OTHER_KEYS: "its keys are not its queries' tokens: those of a smaller map, or queries are pooled",
    Capability.VALUE_WIDTH: "a head's values are not as wide as its queries and keys",
    Capability.FIXED_WIDTH: "what follows takes heads of their own width alone: a residual, a fused convolution",
    Capability.CHANNELS: "its heads weigh their channels, not tokens (cross-covariance attention)",
}


def check_pair(
    host: str,
    brings: Collection[Capability],
    interaction: str,
    needs: Collection[Capability],
    carries: Collection[Capability],
) -> None:
    """Raises ValueError, naming the capability, where ``interaction`` can't work in ``host``.

    What an interaction needs the host must bring; what else a host brings the interaction must carry.
    """
    lacking = [c for c in Capability if c in needs and c not in brings]
    if lacking:
        raise ValueError(
            f"{interaction} needs {_named(lacking)}, which {host} does not bring ({MEANING[lacking[0]]})"
        )
    too_much = [c for c in Capability if c in brings and c not in needs and c not in carries]
    too_much = [c for c in too_much if c is not Capability.GRID]  # a grid is an offer, not a burden
    if too_much:
        raise ValueError(
            f"{interaction} can't carry {_named(too_much)}, which {host} brings ({MEANING[too_much[0]]})"
        )


def _named(capabilities: Collection[Capability]) -> str:
    return " and ".join(capabilities)
