"""What an interaction knows of the module that it works in."""

from typing import Any, ClassVar

from torch import Tensor, nn

from .qkv import Heads


class Layer(nn.Module):
    """An attention module with heads, seen from an interaction: sizes, projections, and what was learned.

    What an interaction learns it registers here; ``crosshead.layers.InteractingAttention`` is all the rest.
    """

    # The projection of the heads' output: its name in the module.
    projection: str = "proj"
    # The linear layer that makes queries, keys and values of the tokens, packed in this order, head by head: its name,
    # or None where there is no such. A host that has one calls it through ``packed``.
    in_projection: ClassVar[str | None] = None

    interaction: Any
    num_heads: int
    head_dim: int
    scale: float

    def token_width(self) -> int:
        """Channels of the tokens that come in; those that go out, unless a host knows better."""
        linear: Any = self.get_submodule(self.in_projection or self.projection)
        if isinstance(linear, nn.Conv2d):
            return linear.in_channels if self.in_projection else linear.out_channels
        out: int = linear.in_features if self.in_projection else linear.out_features
        return out

    def key_width(self) -> int:
        """Channels of a head's queries and keys; those of its values, unless a host knows better."""
        return self.head_dim

    def packed(self, x: Tensor) -> Tensor:
        """Queries, keys and values (B, N, 3, h, d) of tokens (B, N, dim), as the interaction reads them."""
        assert self.in_projection is not None
        linear: Any = self.get_submodule(self.in_projection)
        out: Tensor = self.interaction.project(self, linear, x).unflatten(
            -1, (3, self.num_heads, self.head_dim)
        )
        return out

    def read(self, *args: Any, **kwargs: Any) -> Heads:
        """Queries, keys and values of a call with these arguments."""
        raise NotImplementedError
