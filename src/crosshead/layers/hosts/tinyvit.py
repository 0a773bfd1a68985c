"""TinyViT's attention: a norm before it inside the module, a learned bias of distances, in windows."""

from timm.models.tiny_vit import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class TinyVitHost(InteractingAttention, Attention):
    """``timm.models.tiny_vit.Attention`` whose heads interact; (images · windows, N, dim) in and out."""

    gives_grid = True  # of windows that are square

    @classmethod
    def refusal(cls, attn: nn.Module) -> str | None:
        if attn.val_dim != attn.key_dim:
            return (
                f"its values are {attn.val_dim} wide and its keys {attn.key_dim}; heads have one width here"
            )
        return None

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.key_dim  # type: ignore[return-value]

    def read(self, x: Tensor) -> Heads:
        tokens = self.norm(x)
        q, k, v = self.qkv(tokens).unflatten(-1, (self.num_heads, 3, self.head_dim)).unbind(3)
        return Heads(tokens, q, k, v, self.scale, bias=self.get_attention_biases(x.device))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        found: Tensor = self.proj(out)
        return found
