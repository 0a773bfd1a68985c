"""What every interaction is: settings that don't change, what they need of a host, and how the heads then attend."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ..capabilities import Capability
from ..layer import Heads, Layer


@dataclass(frozen=True)
class Interaction:
    """One kind of interaction between heads, with its settings. A subclass is a frozen dataclass: its fields are them.

    An interaction holds no tensors. What it learns it gives to the layer in ``prepare``, under names of its own, and
    reads there in ``attend``; weights are then called the same in every host.
    """

    kind: ClassVar[str]
    # Capabilities that a host must bring, and those of a host's that this kind takes into account.
    needs: ClassVar[frozenset[Capability]] = frozenset()
    # Why no weights give the outputs of before, or None where ``prepare`` can see to it.
    changes_outputs: ClassVar[str | None] = None
    # Parameters and modules that ``prepare`` gives to the layer, where it has not got them already.
    learned: ClassVar[tuple[str, ...]] = ()
    # Those of them whose gradient is 0 by the equations, as that of a bias that a softmax cancels.
    cancelled: ClassVar[tuple[str, ...]] = ()
    # Endings of parameters that are spared weight decay.
    no_weight_decay: ClassVar[tuple[str, ...]] = ()

    @property
    def carries(self) -> frozenset[Capability]:
        return frozenset()

    @classmethod
    def plan(cls, head_dims: Sequence[int], **options: Any) -> list[Self]:
        """The interaction of each block, of the head widths of all; the same for all unless a kind knows better.

        Raises ValueError for options that this kind doesn't have or that don't fit.
        """
        cls.check_options(options)
        return [cls(**options)] * len(head_dims)

    @classmethod
    def check_options(cls, options: Collection[str], beside: Collection[str] = ()) -> None:
        """Raises ValueError for a name that is no option; ``beside``: other names that may have been meant."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                near = get_close_matches(name, [*known, *beside], n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise ValueError(f"interaction {cls.kind!r} has no option {name!r}; {hint}{takes}")

    @classmethod
    def example(cls) -> Self:
        """One that interacts, whatever the heads."""
        return cls()

    def options(self) -> dict[str, Any]:
        """The settings as plain data, from which the same interaction can be made."""
        return asdict(self)

    def head_width(self, head_dim: int) -> int:
        """Channels of a head where it meets the projection."""
        return head_dim

    def prepare(self, layer: Layer, *, preserve: bool) -> None:
        """Gives ``layer`` the parameters of this interaction (``layer.num_heads`` and ``layer.head_dim`` are known).

        With ``preserve`` they start where the layer's outputs are those of before, and each gets a gradient.
        """

    def carry(self, layer: Layer, before: Layer) -> list[str]:
        """Takes over what ``before``, with the same kind of interaction, has learned; returns names of what is lost.

        What has another shape there, or no place with other settings, is lost.
        """
        lost = []
        for name in self.learned:
            old, new = getattr(before, name, None), getattr(layer, name, None)
            if isinstance(old, nn.Parameter) and isinstance(new, nn.Parameter) and old.shape == new.shape:
                layer.register_parameter(name, old)
            elif isinstance(old, nn.Module) and isinstance(new, nn.Module):
                layer.add_module(name, old)
            elif old is not None:
                lost.append(name)
        return lost

    def project(self, layer: Layer, linear: nn.Module, x: Tensor) -> Tensor:
        """Packed queries, keys and values (B, N, 3·h·d) of tokens, in hosts with one ``linear`` layer for them."""
        out: Tensor = linear(x)
        return out

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        """The heads side by side (B, N, h · head_width), ready for the projection."""
        raise NotImplementedError

    def weights(self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
        """What the values are multiplied by: (B, len(chosen), len(queries), N), for those heads and queries.

        The first of what ``crosshead.layers.Inspectable`` asks of kinds that can be looked into.
        """
        raise ValueError(f"interaction {self.kind!r} does not say what its values are multiplied by")

    def __str__(self) -> str:
        return ", ".join([self.kind, *(f"{key} {value}" for key, value in self.options().items())])
