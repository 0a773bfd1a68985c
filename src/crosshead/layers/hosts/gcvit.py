"""GCViT's window attention, whose queries may be one window of the whole image, and its bias of offsets."""

from timm.models.gcvit import WindowAttentionGlobal
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads
from .parts import head_bias

# Windows lie image by image. timm 1.0.26 gives them the queries of image 0, 1, 2 ... in turn, later versions those of
# their image; each model must stay what it is.
_IMAGE_BY_IMAGE = "repeat_interleave" in WindowAttentionGlobal.forward.__code__.co_names


def _of_every_window(queries: Tensor, windows: int) -> Tensor:
    if _IMAGE_BY_IMAGE:
        return queries.repeat_interleave(windows, dim=0)
    return queries.repeat(windows, *[1] * (queries.dim() - 1))


class GcVitHost(InteractingAttention, WindowAttentionGlobal):
    """``timm.models.gcvit.WindowAttentionGlobal`` whose heads interact; (images · windows, N, dim) in and out."""

    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    def read(self, x: Tensor, q_global: Tensor | None = None) -> Heads:
        heads = self.qkv(x).unflatten(-1, (-1, self.num_heads, self.head_dim))
        if self.use_global and q_global is not None:
            k, v = heads.unbind(2)
            q = _of_every_window(q_global, x.shape[0] // q_global.shape[0])
            q = q.reshape(*x.shape[:2], self.num_heads, self.head_dim)
        else:
            q, k, v = heads.unbind(2)
        return Heads(
            x,
            q,
            k,
            v,
            self.scale,
            bias=head_bias(self.rel_pos.get_bias()),
            grid=(self.window_size[0], self.window_size[1]),
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )
