"""How attention that is handed nothing but tokens learns where on the image they lie."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.private_torch import backward_is_running, remove_hooks_of

Grid = tuple[int, int]


class TokenGrid:
    """The rows and columns of a model's tokens, read where the model has them, when attention asks.

    A patch embedding of one image size (``set_input_size`` included) answers with its ``grid_size``. Where images may
    have any size, and inside stages of maps, the grids of what went through are noted, by their numbers of tokens: two
    sizes of images may go through before either's backward pass forms its activations again.

    Args:
        source: timm's ``PatchEmbed`` or one like it (``grid_size``, ``dynamic_feat_size``); or any module, with
            ``read``.
        read: the grid, from (module, its arguments, its result) of a call of ``source``.
        before: note it before ``source`` runs, with no result yet.

    Raises:
        ValueError: for a patch embedding without a grid.
    """

    def __init__(
        self,
        source: nn.Module,
        read: Callable[[nn.Module, tuple[Any, ...], Any], Grid] | None = None,
        *,
        before: bool = False,
    ) -> None:
        wanted = "grid_size", "dynamic_feat_size"
        if read is None and not all(hasattr(source, name) for name in wanted):
            raise ValueError(
                f"attention on a grid needs a patch embedding with {' and '.join(wanted)}, as timm's PatchEmbed has "
                f"them, got {type(source).__name__}"
            )
        self._source, self._read, self._before = source, read or _of_images, before
        self._dynamic = read is not None or not getattr(source, "strict_img_size", True)
        self._watching = False
        self._grids: dict[int, Grid] = {}
        self._last: Grid | None = None
        self._window: Grid | None = None
        # Grids that were noted for a gradient since the last backward pass asked, by number of tokens.
        self._pending: dict[int, set[Grid]] = {}
        self._replayed = False

    def watch(self) -> None:
        """From here on notes the grid of every batch, where it is not fixed."""
        if self._dynamic and not self._watching:
            if self._before:
                self._source.register_forward_pre_hook(self._note)
            else:
                self._source.register_forward_hook(self._note)
            self._watching = True

    def unwatch(self) -> None:
        """From here on notes nothing."""
        remove_hooks_of(self._source, self)
        self._watching = False

    def __call__(self, tokens: int | None = None) -> Grid | None:
        """(rows, columns) of ``tokens`` tokens, or of those that came last; None before anything came.

        Raises:
            RuntimeError: in a backward pass that forms activations again, where two grids of equally many tokens wait.
        """
        if self._window is not None:
            return self._window
        if not self._dynamic:
            rows, columns = self._source.grid_size  # type: ignore[misc]
            return rows, columns
        if tokens is None or (not torch.compiler.is_compiling() and not backward_is_running()):
            return self._last
        return self._of_backward(tokens)

    @contextmanager
    def in_windows(self, rows: int, columns: int) -> Iterator[None]:
        """Within it the tokens are those of windows, (rows, columns) each, whatever the images' grid."""
        before, self._window = self._window, (rows, columns)
        try:
            yield
        finally:
            self._window = before

    def _of_backward(self, tokens: int) -> Grid | None:
        if torch.compiler.is_compiling():
            return self._last
        self._replayed = True
        if len(waiting := self._pending.get(tokens, set())) > 1:
            raise RuntimeError(
                f"grids {sorted(waiting)} have {tokens} tokens each, and gradient checkpointing can't tell which it "
                "forms again; run backward after each size of images, or checkpoint nothing"
            )
        return self._grids.get(tokens)

    def _note(self, module: nn.Module, args: tuple[Any, ...], result: Any = None) -> None:
        rows, columns = self._last = self._read(module, args, result)
        if torch.compiler.is_compiling():
            return
        self._grids[rows * columns] = self._last
        if torch.is_grad_enabled() and not backward_is_running():
            if self._replayed:
                self._pending, self._replayed = {}, False
            self._pending.setdefault(rows * columns, set()).add(self._last)

    def __repr__(self) -> str:
        return "of the images" if self._dynamic else "x".join(map(str, self() or ()))


def _of_images(module: nn.Module, args: tuple[Tensor, ...], result: Any) -> Grid:
    rows, columns = module.dynamic_feat_size(args[0].shape[-2:])  # type: ignore[operator]
    return rows, columns
