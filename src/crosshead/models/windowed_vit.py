"""A plain ViT on large images: attention in windows, and over the whole grid in a few blocks (ViTDet).

"Exploring Plain Vision Transformer Backbones for Object Detection", Li, Mao, Girshick, He, arXiv 2203.16527, section 3.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..layers.token_grid import TokenGrid


class WindowedViT(nn.Module):
    """The last map of a timm ``VisionTransformer``, its attention swapped or not; (B, C, H, W) -> (B, dim, H/p, W/p).

    Prefix tokens (class token, registers) go into every window and come out of it as their mean over the windows. A
    grid that windows don't divide is padded with zeros below and to the right, as ViTDet does.

    Args:
        vit: built with ``dynamic_img_size=True``; its final norm and its classifier are dropped.
        window: the side of a window in tokens, or None for none: every block attends over the whole grid.
        global_blocks: blocks that do so in any case; of four equal parts of the network the last ones unless given.

    Raises:
        ValueError: for another kind of model, or blocks that are not there.
    """

    def __init__(
        self, vit: nn.Module, *, window: int | None = 14, global_blocks: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if not isinstance(vit, VisionTransformer):
            raise ValueError(
                f"windows are for timm's VisionTransformer, got {type(vit).__name__}; set window to null, "
                "or take a hierarchical backbone"
            )
        if window is not None and window < 2:
            raise ValueError(f"window must be at least 2 tokens, or null for none, got {window}")
        depth = len(vit.blocks)
        chosen = (
            {(i + 1) * depth // 4 - 1 for i in range(4)} - {-1}
            if global_blocks is None
            else set(global_blocks)
        )
        if absent := sorted(chosen - set(range(depth))):
            raise ValueError(f"global_blocks must name blocks from 0 to {depth - 1}, got {absent}")
        vit.prune_intermediate_layers(1, prune_norm=True, prune_head=True)
        self.vit, self.window, self.global_blocks = vit, window, frozenset(chosen)

    def forward(self, images: Tensor) -> Tensor:
        tokens, grid = self._embedded(images)
        for i in range(len(self.vit.blocks)):
            tokens = self._step(i, tokens, grid, self.vit.num_prefix_tokens)
        return self._as_map(tokens[:, self.vit.num_prefix_tokens :], grid)

    def with_queries(self, images: Tensor, queries: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
        """The map, and what became of ``queries`` (1, n, dim), which are among the tokens in the last ``blocks``:
        (B, n, dim). Windows treat them as prefix tokens."""
        tokens, grid = self._embedded(images)
        depth, own = len(self.vit.blocks), self.vit.num_prefix_tokens
        for i in range(depth - blocks):
            tokens = self._step(i, tokens, grid, own)
        begin = own + queries.shape[1]
        tokens = torch.cat([tokens[:, :own], queries.expand(tokens.shape[0], -1, -1), tokens[:, own:]], 1)
        for i in range(depth - blocks, depth):
            tokens = self._step(i, tokens, grid, begin)
        return self._as_map(tokens[:, begin:], grid), tokens[:, own:begin]

    def asks_for_grids(self, first: int) -> bool:
        """Whether attention in the blocks from ``first`` on asks where tokens lie, and counts those before them."""
        return any(_token_grids(block) for block in self.vit.blocks[first:])

    def _embedded(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        tokens = self.vit.patch_embed(images)
        height, width = self.vit.patch_embed.dynamic_feat_size(images.shape[-2:])
        return self.vit.norm_pre(self.vit._pos_embed(tokens)), (height, width)

    def _as_map(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        # Not len(images): it would bind an exported program to that number.
        out: Tensor = patches.transpose(1, 2).reshape(patches.shape[0], -1, *grid)
        return out

    def _step(self, i: int, tokens: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
        """Block ``i``; of the tokens the first ``prefix`` lie on no grid."""
        block, window = self.vit.blocks[i], None if i in self.global_blocks else self.window
        if self.vit.grad_checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(self._block, block, tokens, grid, window, prefix, use_reentrant=False)
            return out
        return self._block(block, tokens, grid, window, prefix)

    def _block(
        self, block: nn.Module, tokens: Tensor, grid: tuple[int, int], window: int | None, before: int
    ) -> Tensor:
        if window is None or max(grid) <= window:
            found: Tensor = block(tokens)
            return found
        prefix = tokens[:, :before]
        windows, counts = partition_windows(tokens[:, before:], grid, window)
        number = counts[0] * counts[1]
        windows = torch.cat([prefix.repeat_interleave(number, 0), windows], 1)
        with ExitStack() as stack:
            for token_grid in _token_grids(block):
                stack.enter_context(token_grid.in_windows(window, window))
            windows = block(windows)
        out = windows[:, :before].unflatten(0, (-1, number)).mean(1)
        return torch.cat([out, _join(windows[:, before:], grid, window, counts)], 1)


def _token_grids(block: nn.Module) -> set[TokenGrid]:
    found = (getattr(module, "token_grid", None) for module in block.modules())
    return {grid for grid in found if isinstance(grid, TokenGrid)}


def partition_windows(tokens: Tensor, grid: tuple[int, int], window: int) -> tuple[Tensor, tuple[int, int]]:
    """Tokens (B, H W, C) -> windows (B rows columns, window², C), and how many (rows, columns) of them."""
    batch, _, channels = tokens.shape
    height, width = grid
    padded = F.pad(
        tokens.view(batch, height, width, channels), (0, 0, 0, -width % window, 0, -height % window)
    )
    rows, columns = padded.shape[1] // window, padded.shape[2] // window
    cut = padded.view(batch, rows, window, columns, window, channels).transpose(2, 3)
    return cut.reshape(-1, window * window, channels), (rows, columns)


def _join(windows: Tensor, grid: tuple[int, int], window: int, counts: tuple[int, int]) -> Tensor:
    """The way back from ``partition_windows``: (B, H W, C)."""
    rows, columns = counts
    height, width = grid
    cut = windows.view(-1, rows, columns, window, window, windows.shape[-1]).transpose(2, 3)
    whole = cut.reshape(-1, rows * window, columns * window, windows.shape[-1])
    return whole[:, :height, :width].flatten(1, 2)
