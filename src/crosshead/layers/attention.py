"""Where a host and an interaction meet: the one attention module of this library."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self, get_args

from torch import Tensor, nn

from ..ops.checks import check_indices
from ..ops.modes import traceable_module
from ..ops.private_torch import forget, hooks_of, own_names
from .capabilities import Capability, check_pair
from .interactions.base import Interaction
from .interactions.inspectable import inspectable
from .layer import Heads, Layer
from .projection import check_resizable, resized
from .registry import HOSTS, host_of
from .token_grid import TokenGrid

Init = Literal["preserve", "paper"]


class InteractingAttention(Layer):
    """A model's attention module whose heads interact.

    A host is a subclass for one class of attention: it derives from this class and then from that one, whose
    submodules, weights, hooks and methods it keeps, and says in ``read`` how queries, keys and values are made. The
    ``interaction`` says what the heads do with them. Instances come from ``from_attention``.
    """

    # Whether ``read`` says the grid itself, as a host of maps can.
    gives_grid: ClassVar[bool] = False
    # Whether the class itself, before any swap, calls its projection as a module, so that hooks of it are called.
    calls_projection: ClassVar[bool] = True
    # What the heads' output goes into, where something lies between it and the projection.
    entrance: ClassVar[str | None] = None
    # Why nobody can say where on a picture its tokens lie, or None.
    unplaced: ClassVar[str | None] = None

    interaction: Interaction
    init: Init  # how it came in
    replaced: type[nn.Module]  # the class of the module in whose place this is
    given: tuple[str, ...]  # names of parameters and modules that it had
    training: bool
    # The grid where ``forward`` is not given one; a square without it.
    token_grid: TokenGrid | None = None
    num_prefix_tokens: int = 0

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        """What this particular module brings."""
        return frozenset()

    @classmethod
    def refusal(cls, attn: nn.Module) -> str | None:
        """Why this particular module can't be replaced whatever the interaction, or None."""
        return None

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        """Its heads and their width."""
        return attn.num_heads, attn.head_dim  # type: ignore[return-value]

    @classmethod
    def attends_to_itself(cls, attn: nn.Module, parent: nn.Module, name: str) -> bool:
        """Whether ``attn``, which is ``name`` in ``parent``, makes queries and keys of the same tokens."""
        return True

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        """The result of a call, of the heads side by side (B, N, h · width)."""
        found: Tensor = self.proj_drop(self.get_submodule(self.projection)(out))  # type: ignore[operator]
        return found

    def by_head(self, entering: Tensor) -> Tensor:
        """The heads (B, ..., h, width) of what goes into the projection, or into ``entrance``."""
        heads: Tensor = entering.unflatten(-1, (self.num_heads, -1))
        return heads

    def side_by_side(self, heads: Tensor) -> Tensor:
        """What goes there, of the heads: undoes ``by_head``."""
        return heads.flatten(-2)

    @classmethod
    def adopt(cls, attn: nn.Module) -> Self:
        """This host around the parts of ``attn``, which stays usable; without an interaction yet."""
        layer = cls.__new__(cls)
        layer.__dict__ = _parts(attn)
        layer.num_heads, layer.head_dim = cls.sizes(attn)
        layer.replaced, layer.given = type(attn), own_names(attn)
        return layer

    def restored(self) -> nn.Module:
        """The module of before, around the same parts: without the interaction, and what it learned lost with it."""
        attn = self.replaced.__new__(self.replaced)
        attn.__dict__ = _parts(self)
        for name in ("interaction", "replaced", "token_grid", "init", "projection"):
            vars(attn).pop(name, None)
        own = set(vars(self)["given"])
        vars(attn).pop("given")
        forget(attn, [name for name in self.interaction.learned if name not in own])
        width = self.interaction.head_width(self.head_dim)
        if width != self.head_dim:
            wide = check_resizable(self.get_submodule(self.projection))
            narrow = resized(wide, self.num_heads, width, self.head_dim, preserve=True)
            _put_projection(attn, self.projection, narrow)
        return attn

    @traceable_module
    def forward(self, *args: Any, grid: tuple[int, int] | None = None, **kwargs: Any) -> Any:
        """As the module in whose place this is; ``grid``: rows and columns of the tokens after the prefix."""
        heads = self.heads_of(*args, grid=grid, **kwargs)
        drop = self._modules.get("attn_drop")
        if drop is not None and hooks_of(
            drop
        ):  # timm's AttentionExtract reads the weights there, and others do
            drop(self.weights_of(heads))
        return self.write(self.interaction.attend(self, heads), heads)

    def attention_weights(
        self,
        *args: Any,
        heads: Sequence[int] | None = None,
        queries: Sequence[int] | None = None,
        grid: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """What the values are multiplied by, (B, len(heads), len(queries), N); ``forward`` need not form it.

        Args:
            args, kwargs: as ``forward`` takes them.
            heads, queries: which ones; all unless given.
        """
        return self.weights_of(self.heads_of(*args, grid=grid, **kwargs), heads, queries)

    def weights_of(
        self, read: Heads, heads: Sequence[int] | None = None, queries: Sequence[int] | None = None
    ) -> Tensor:
        """``attention_weights`` of a call that was read with ``heads_of``."""
        return self.interaction.weights(self, read, *self._chosen(read, heads, queries))

    def own_weights_of(
        self, read: Heads, heads: Sequence[int] | None = None, queries: Sequence[int] | None = None
    ) -> Tensor:
        """``weights_of`` as they would be if the heads gave each other nothing."""
        return inspectable(self.interaction).own_weights(self, read, *self._chosen(read, heads, queries))

    def _chosen(
        self, read: Heads, heads: Sequence[int] | None, queries: Sequence[int] | None
    ) -> tuple[list[int], list[int]]:
        tokens = read.q.shape[1]
        return check_indices("heads", heads, self.num_heads), check_indices("queries", queries, tokens)

    def heads_of(self, *args: Any, grid: tuple[int, int] | None = None, **kwargs: Any) -> Heads:
        """The heads of a call with these arguments, which are those of ``forward``."""
        heads = self.read(*args, **kwargs)
        if Capability.GRID in self.interaction.needs:
            heads.num_prefix_tokens = self.num_prefix_tokens
            if grid is not None or heads.grid is None:
                heads.grid = self._grid(heads.q.shape[1], grid)
        return heads

    def _grid(self, tokens: int, given: tuple[int, int] | None) -> tuple[int, int]:
        if given is None and self.token_grid is not None:
            given = self.token_grid(tokens - self.num_prefix_tokens)
        if given is not None:
            return given
        on_grid = tokens - self.num_prefix_tokens
        side = math.isqrt(max(on_grid, 0))
        if side * side != on_grid or side == 0:
            raise ValueError(
                f"{tokens} tokens, {self.num_prefix_tokens} of them before the grid, make no square; "
                "pass grid=(rows, columns)"
            )
        return side, side

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, head_dim={self.head_dim}, interaction={self.interaction}"


def from_attention(
    attn: nn.Module,
    interaction: Interaction,
    *,
    init: Init = "preserve",
    token_grid: TokenGrid | None = None,
    num_prefix_tokens: int | None = None,
) -> InteractingAttention:
    """Attention whose heads interact, in place of ``attn``, whose submodules and weights go on serving.

    Args:
        attn: an attention module of a class that has a host.
        interaction: what its heads shall do.
        init: ``preserve``: the same outputs as ``attn``, and a gradient for every new parameter; ``paper``: as the
            paper has it, with new columns of the projection drawn as timm draws one.
        token_grid: for interactions on a grid: answers with it where ``forward`` is not given one.
        num_prefix_tokens: likewise, the tokens before the grid; what ``attn`` says, or none, unless given.

    Raises:
        ValueError: for a class without a host, a pair that can't be (the capability is named), or outputs that can't
            be preserved.
    """
    before = attn if isinstance(attn, InteractingAttention) else None
    plain = attn if before is None else before.restored()
    name = type(plain).__name__
    if "forward" in vars(plain):
        raise ValueError(
            f"attention of class {name} has a forward of its own in its place, which would be lost"
        )
    host = host_of(type(plain))
    if host is None:
        known = ", ".join(f"{cls.__module__}.{cls.__name__}" for cls in HOSTS)
        raise ValueError(f"no host for attention of class {name}; there are hosts for {known}")
    if why := host.refusal(plain):
        raise ValueError(f"attention of class {name} can't be replaced here: {why}")
    if init not in get_args(Init):
        raise ValueError(f"init must be 'preserve' or 'paper', got {init!r}")
    if init == "preserve" and interaction.changes_outputs:
        raise ValueError(f"init='preserve' can't hold for {interaction.kind}: {interaction.changes_outputs}")
    if before is not None and init == "preserve":
        _check_kept(before, interaction)
    check_pair(name, host.brings(plain), interaction.kind, interaction.needs, interaction.carries)

    layer: InteractingAttention = host.adopt(plain)
    layer.interaction, layer.init = interaction, init
    again = before is not None and before.interaction.kind == interaction.kind
    if before is not None and token_grid is None:
        token_grid = before.token_grid
    if token_grid is not None:
        layer.token_grid = token_grid
    if num_prefix_tokens is not None:
        layer.num_prefix_tokens = num_prefix_tokens
    _fit_projection(layer, before if before is not None and again else None, preserve=init == "preserve")
    interaction.prepare(layer, preserve=init == "preserve")
    for child_name, child in layer.named_children():
        if (
            child_name not in layer.given
        ):  # a norm of batches goes by its mode, in a model that only evaluates too
            child.train(layer.training)
    lost = interaction.carry(layer, before) if before is not None and again else []
    if before is not None and lost and init == "preserve":
        raise ValueError(
            f"its heads interact already ({before.interaction}), and init='preserve' can't hold with {interaction}: "
            f"what {', '.join(lost)} learned has no place there; keep the options, or pass init='paper'"
        )
    if before is not None and again and before.init == "preserve":
        layer.init = (
            "preserve"  # what that brought is carried on, and whoever builds the layer again needs it
        )
    if token_grid is not None:
        token_grid.watch()
    return layer


def _check_kept(before: InteractingAttention, interaction: Interaction) -> None:
    """Raises ValueError where what ``before`` has learned would go, and the outputs with it."""
    old, width = before.interaction, before.head_dim
    if old.kind != interaction.kind:
        raise ValueError(
            f"its heads interact already ({old}), and init='preserve' can't hold where another kind takes their place; "
            "call restore_attention first, or pass init='paper'"
        )
    if interaction.head_width(width) < old.head_width(width):
        raise ValueError(
            f"its heads interact already ({old}), and init='preserve' can't hold where they borrow less; "
            "pass init='paper'"
        )


def _fit_projection(
    layer: InteractingAttention, before: InteractingAttention | None, *, preserve: bool
) -> None:
    """A projection of as many inputs as the interaction's heads have, from that of ``before`` where there is one."""
    source = layer if before is None else before
    old_width = layer.head_dim if before is None else before.interaction.head_width(layer.head_dim)
    width = layer.interaction.head_width(layer.head_dim)
    projection = source.get_submodule(layer.projection)
    if width != old_width:
        projection = resized(
            check_resizable(projection), layer.num_heads, old_width, width, preserve=preserve
        )
    _put_projection(layer, layer.projection, projection)


def _put_projection(attn: nn.Module, path: str, projection: nn.Module) -> None:
    """Into ``attn`` alone: what lies between it and the projection may belong to another module too."""
    *outer, name = path.split(".")
    for step in outer:
        inner = attn.get_submodule(step)
        own = nn.Module.__new__(type(inner))
        own.__dict__ = _parts(inner)
        setattr(attn, step, own)
        attn = own
    setattr(attn, name, projection)


def _parts(module: nn.Module) -> dict[str, Any]:
    """All that a module is, for another one that shares its parts."""
    return {k: copy.copy(v) if isinstance(v, dict | set) else v for k, v in vars(module).items()}
