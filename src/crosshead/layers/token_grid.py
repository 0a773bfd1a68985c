"""How attention inside a timm ViT, whose blocks hand it nothing but tokens, learns where the tokens lie."""

from typing import Any

from torch import Tensor, nn


class TokenGrid:
    """The rows and columns of a model's patches, read from its patch embedding when attention asks.

    A model of one image size (``set_input_size`` included) answers with ``patch_embed.grid_size``. One that takes any
    size answers with the grid of the images that went through its patch embedding last.

    Args:
        patch_embed: timm's ``PatchEmbed`` or one like it (``grid_size``, ``dynamic_feat_size``).

    Raises:
        ValueError: for a patch embedding without a grid.
    """

    def __init__(self, patch_embed: nn.Module) -> None:
        for name in ("grid_size", "dynamic_feat_size"):
            if not hasattr(patch_embed, name):
                raise ValueError(
                    f"attention on a grid needs a patch embedding with {name}, as timm's PatchEmbed has it, "
                    f"got {type(patch_embed).__name__}"
                )
        self._patch_embed = patch_embed
        self._last: tuple[int, int] | None = None
        self._dynamic = not getattr(patch_embed, "strict_img_size", True)
        self._watching = False

    def watch(self) -> None:
        """From here on notes the grid of every batch of images, where it is not fixed."""
        if self._dynamic and not self._watching:
            self._patch_embed.register_forward_hook(self._note)
            self._watching = True

    def __call__(self) -> tuple[int, int] | None:
        """(rows, columns), or None before a model of any size has seen an image."""
        if self._dynamic:
            return self._last
        rows, columns = self._patch_embed.grid_size  # type: ignore[misc]
        return rows, columns

    def _note(self, module: nn.Module, images: tuple[Tensor, ...], tokens: Any) -> None:
        rows, columns = module.dynamic_feat_size(images[0].shape[-2:])  # type: ignore[operator]
        self._last = (rows, columns)

    def __repr__(self) -> str:
        return "of the images" if self._dynamic else "x".join(map(str, self() or ()))
