"""Interactive attention as a module that takes the place of timm's ``Attention``."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor, nn

from ..ops.checks import check_dropout, check_head_width
from ..ops.interactive import AttentionFactors, Mode, attention_factors, interactive_attention
from .overlapped import Init
from .token_grid import TokenGrid

PRESERVES_NOTHING = (
    "init='preserve' can't hold for interactive attention: it attends through averages of queries and keys, and no "
    "choice of weights gives the outputs of full attention; pass init='paper' and fine-tune"
)


class InteractiveAttention(nn.Module):
    """Interactive multi-head self-attention at linear cost, iMHSA (arXiv 2402.17507, section 3).

    The constructor's contract is that of ``timm.layers.Attention``; what follows ``dtype`` is new.
    Tokens (B, N, dim) in, tokens (B, N, dim_out) out; N may change between calls.

    Args:
        dim: width of the tokens.
        num_heads: heads h.
        attn_head_dim: head width d; ``dim / num_heads`` unless given.
        dim_out: width of the result; ``dim`` unless given.
        qkv_bias, proj_bias: whether the projections have biases.
        qk_norm: normalise each head's queries and keys with ``norm_layer(head_dim)``.
        scale_norm: normalise the heads' output with ``norm_layer(num_heads * head_dim)``.
        gated: multiply the heads' output by a sigmoid of a projection of the input.
        attn_drop, proj_drop: dropout rates of A_Q and A_K, and of the result.
        norm_layer: the class that ``qk_norm`` and ``scale_norm`` use.
        landmarks: cells per side, or (rows, columns), that queries and keys are averaged over.
        interaction: let the heads exchange their attention through two learned (h, h) matrices, which start as the
            identity. Without it the layer is the plain decomposition.
        num_prefix_tokens: tokens before those on the grid, such as a class token.
        token_grid: answers with the grid where ``forward`` is not given one; a square is assumed without it.
        mode: of ``crosshead.ops.interactive.interactive_attention``.

    Raises:
        ValueError: for widths that the heads don't divide, landmarks below 1, a rate out of range, or a norm without
            its class.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        attn_head_dim: int | None = None,
        dim_out: int | None = None,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        gated: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm_layer: type[nn.Module] | None = None,
        device: Any = None,
        dtype: Any = None,
        *,
        landmarks: int | tuple[int, int] = 7,
        interaction: bool = True,
        num_prefix_tokens: int = 0,
        token_grid: TokenGrid | None = None,
        mode: Mode = "auto",
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        head_dim = check_head_width(dim, num_heads) if attn_head_dim is None else attn_head_dim
        if (qk_norm or scale_norm) and norm_layer is None:
            raise ValueError(
                "qk_norm and scale_norm need norm_layer, the class of the norm; pass torch.nn.LayerNorm"
            )
        sides = (landmarks, landmarks) if isinstance(landmarks, int) else tuple(landmarks)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(
                f"landmarks must be one or two counts of at least 1 (rows, columns), got {landmarks}"
            )
        if num_prefix_tokens < 0:
            raise ValueError(f"num_prefix_tokens must be at least 0, got {num_prefix_tokens}")
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.scale = head_dim**-0.5
        self.landmarks = sides
        self.num_prefix_tokens = num_prefix_tokens
        self.token_grid = token_grid
        self.mode: Mode = mode

        inner = num_heads * head_dim
        norm = norm_layer or nn.Identity
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias, **factory)
        self.q_norm = norm(head_dim, **factory) if qk_norm else nn.Identity()
        self.k_norm = norm(head_dim, **factory) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(check_dropout(attn_drop))
        self.mix_query = nn.Parameter(torch.eye(num_heads, **factory)) if interaction else None
        self.mix_key = nn.Parameter(torch.eye(num_heads, **factory)) if interaction else None
        self.norm = norm(inner, **factory) if scale_norm else nn.Identity()
        self.gate = nn.Linear(dim, inner, bias=qkv_bias, **factory) if gated else None
        self.proj = nn.Linear(inner, dim_out or dim, bias=proj_bias, **factory)
        self.proj_drop = nn.Dropout(check_dropout(proj_drop))
        if token_grid is not None:
            token_grid.watch()

    @classmethod
    def from_attention(
        cls, attn: "Attention | InteractiveAttention", *, init: Init = "paper", **options: Any
    ) -> "InteractiveAttention":
        """Interactive attention in place of ``attn``, whose projections and norms go on serving.

        Args:
            init: ``paper`` only. Landmarks change the outputs whatever the weights, so nothing can be preserved.
            options: the keyword arguments after ``dtype``.
        """
        if init == "preserve":
            raise ValueError(PRESERVES_NOTHING)
        weight = attn.qkv.weight
        layer = cls(
            attn.qkv.in_features,
            attn.num_heads,
            attn_head_dim=attn.head_dim,
            dim_out=attn.proj.out_features,
            device=weight.device,
            dtype=weight.dtype,
            **options,
        )
        layer.scale = attn.scale
        for name in ("qkv", "q_norm", "k_norm", "attn_drop", "proj", "proj_drop"):
            setattr(layer, name, getattr(attn, name))
        layer.norm, layer.gate = getattr(attn, "norm", layer.norm), getattr(attn, "gate", None)
        return layer.train(attn.training)

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Tokens (B, N, dim) -> (B, N, dim_out).

        Args:
            grid: rows and columns of the tokens after the prefix; unless given, what ``token_grid`` says, or a square.

        Raises:
            ValueError: for a mask, which attention through landmarks can't apply, or a grid that doesn't fit.
        """
        if attn_mask is not None or is_causal:
            raise ValueError(
                "attention through landmarks takes no mask: a landmark averages over queries or keys that a mask "
                "would tell apart; call without attn_mask and is_causal"
            )
        q, k, v = self._projected(x)
        heads = interactive_attention(
            q,
            k,
            v,
            self._grid(x, grid),
            landmarks=self.landmarks,
            mix_query=self.mix_query,
            mix_key=self.mix_key,
            num_prefix_tokens=self.num_prefix_tokens,
            scale=self.scale,
            dropout_p=self.attn_drop.p if self.training else 0.0,
            mode=self.mode,
        )
        heads = self.norm(heads.transpose(1, 2).flatten(2))
        if self.gate is not None:
            heads = heads * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(heads))

    def attention_factors(self, x: Tensor, *, grid: tuple[int, int] | None = None) -> AttentionFactors:
        """A_Q and A_K for tokens (B, N, dim), before and after the heads were mixed; linear in N."""
        q, k, _ = self._projected(x)
        return attention_factors(
            q,
            k,
            self._grid(x, grid),
            landmarks=self.landmarks,
            mix_query=self.mix_query,
            mix_key=self.mix_key,
            num_prefix_tokens=self.num_prefix_tokens,
            scale=self.scale,
        )

    def attention_weights(
        self,
        x: Tensor,
        *,
        grid: tuple[int, int] | None = None,
        heads: Sequence[int] | None = None,
        queries: Sequence[int] | None = None,
    ) -> Tensor:
        """Rows of the map Â_Q Â_K that ``forward`` applies and never forms: (B, len(heads), len(queries), N).

        All heads and all N queries unless chosen; that is quadratic in N.
        """
        return self.attention_factors(x, grid=grid).effective_map(heads, queries)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v (B, h, N, d), views of one tensor unless they are normalised."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v

    def _grid(self, x: Tensor, given: tuple[int, int] | None) -> tuple[int, int]:
        if given is None and self.token_grid is not None:
            given = self.token_grid()
        if given is not None:
            return given
        tokens = x.shape[1] - self.num_prefix_tokens
        side = math.isqrt(max(tokens, 0))
        if side * side != tokens or side == 0:
            raise ValueError(
                f"{x.shape[1]} tokens, {self.num_prefix_tokens} of them before the grid, make no square; "
                "pass grid=(rows, columns)"
            )
        return side, side

    def extra_repr(self) -> str:
        rows, columns = self.landmarks
        return (
            f"num_heads={self.num_heads}, head_dim={self.head_dim}, landmarks={rows}x{columns}, "
            f"interaction={self.mix_query is not None}, num_prefix_tokens={self.num_prefix_tokens}"
        )
