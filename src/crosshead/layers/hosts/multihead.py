"""PyTorch's ``nn.MultiheadAttention``, as torchvision's ViT and ``nn.TransformerEncoderLayer`` have it."""

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from .parts import weights_beside

_CROSSING = re.compile("cross|pool", re.IGNORECASE)


class MultiheadHost(InteractingAttention, nn.MultiheadAttention):
    """``torch.nn.MultiheadAttention`` whose heads interact; tokens and results laid out as that class has them.

    Queries, keys and values may come of different tensors (DETR adds positions to two of them), of equally many tokens.
    """

    projection = "out_proj"
    calls_projection = False

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """Never: ``nn.TransformerEncoderLayer`` takes the weights past this module into a fused kernel otherwise."""
        return False

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    @classmethod
    def refusal(cls, attn: nn.Module) -> str | None:
        if attn.in_proj_weight is None:
            return "its keys or values have a width of their own (kdim, vdim)"
        if attn.bias_k is not None or attn.add_zero_attn:
            return "it adds a token to the keys (add_bias_kv, add_zero_attn)"
        return None

    @classmethod
    def attends_to_itself(cls, attn: nn.Module, parent: nn.Module, name: str) -> bool:
        if name == "multihead_attn" and hasattr(parent, "self_attn"):  # PyTorch's decoder layer, and DETR's
            return False
        return not _CROSSING.search(f"{type(parent).__name__} {name}")

    def read(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> Heads:
        if query.is_nested:
            raise ValueError(
                "heads that interact take no nested tensors, which nn.TransformerEncoder makes of padded batches; "
                "set encoder.use_nested_tensor = False"
            )
        if is_causal and attn_mask is None:
            raise ValueError("is_causal is a hint about attn_mask, which must be given with it")
        alike = query is key and key is value
        first, *others = (self._batched(x) for x in ((query,) if alike else (query, key, value)))
        if any(x.shape[1] != first.shape[1] for x in others):
            raise ValueError(
                f"attention from {first.shape[1]} tokens to {others[0].shape[1]}: heads that interact attend among the "
                "same tokens; leave this module out with swap_attention(..., blocks=...)"
            )
        qkv = None
        if alike:
            qkv = F.linear(first, self.in_proj_weight, self.in_proj_bias).unflatten(
                -1, (3, self.num_heads, self.head_dim)
            )
            q, k, v = qkv.unbind(2)
        else:
            biases = 3 * [None] if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
            q, k, v = (
                F.linear(x, weight, bias).unflatten(-1, (self.num_heads, self.head_dim))
                for x, weight, bias in zip(
                    (first, *others), self.in_proj_weight.chunk(3), biases, strict=True
                )
            )
        return Heads(
            first,
            q,
            k,
            v,
            self.head_dim**-0.5,
            qkv=qkv,
            attn_mask=self._mask(first, key_padding_mask, attn_mask),
            dropout_p=self.dropout if self.training else 0.0,
            shape=query.shape,
            weights=("mean" if average_attn_weights else "each") if need_weights else None,
        )

    def write(  # type: ignore[override]
        self, out: Tensor, heads: Heads
    ) -> tuple[Tensor, Tensor | None]:
        found, weights = self.out_proj(out), weights_beside(self, heads)
        if heads.shape is not None and len(heads.shape) == 2:
            return found.squeeze(0), weights if weights is None else weights.squeeze(0)
        return found if self.batch_first else found.transpose(0, 1), weights

    def _batched(self, x: Tensor) -> Tensor:
        """(B, N, dim) of tokens in any of the layouts of the class."""
        if x.dim() == 2:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _mask(self, x: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Both masks, True or added where a token is left out, as one that is added; (B, h, N, N) or like it."""
        total: Any = None
        if mask is not None:
            mask = _additive(mask, x.dtype)
            total = mask.unflatten(0, (-1, self.num_heads)) if mask.dim() == 3 else mask[None, None]
        if padding is not None:
            padding = _additive(padding, x.dtype).view(-1, 1, 1, padding.shape[-1])
            total = padding if total is None else total + padding
        found: Tensor | None = total
        return found


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)
