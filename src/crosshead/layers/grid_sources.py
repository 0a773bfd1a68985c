"""Which part of a model tells attention where its tokens lie: found from the modules around it, innermost first."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from timm.models.metaformer import MetaFormerStage
from timm.models.mobilevit import MobileVitBlock
from timm.models.pit import Transformer
from torch import Tensor, nn

from .token_grid import Grid, TokenGrid


class Where(NamedTuple):
    """A source of grids, and the number of tokens before those on the grid."""

    token_grid: TokenGrid
    num_prefix_tokens: int


class GridSources:
    """One ``TokenGrid`` for each part of a model that tells of one."""

    def __init__(self) -> None:
        self._found: dict[nn.Module, TokenGrid] = {}

    def around(self, parents: Sequence[nn.Module]) -> Where:
        """The source for attention inside ``parents``, innermost first.

        Raises ValueError where none of them knows a grid, or where one drops tokens from it.
        """
        for depth, parent in enumerate(parents):
            if (stage := _stage(parent)) is not None:
                module, read, before = stage
                prefix = _class_tokens(parents[depth:]) if isinstance(parent, Transformer) else 0
                return Where(self._grid(module, read, before), prefix)
            embedding = getattr(parent, "patch_embed", None)
            if hasattr(embedding, "grid_size"):
                if getattr(getattr(parent, "patch_drop", None), "prob", 0.0):
                    raise ValueError(
                        "attention on a grid wants whole grids of tokens; build the model with patch_drop_rate=0"
                    )
                return Where(self._grid(embedding), getattr(parent, "num_prefix_tokens", 0))  # type: ignore
            if (patches := patches_of(parent)) is not None:
                return Where(self._grid(patches[0], _result), patches[1])
        embedding = next((p.patch_embed for p in parents if hasattr(p, "patch_embed")), parents[-1])
        raise ValueError(
            f"attention on a grid has to know where its tokens lie, and {type(embedding).__name__} does not tell: "
            "expected a patch_embed with grid_size and dynamic_feat_size, as timm's has them, or one whose patches "
            "come of a convolution that is called proj; or call the layers with grid=(rows, columns)"
        )

    def _grid(self, module: nn.Module, read: Any = None, before: bool = False) -> TokenGrid:
        if module not in self._found:
            self._found[module] = TokenGrid(module, read, before=before)
        return self._found[module]


def prefix_of(model: nn.Module, path: str) -> int:
    """The tokens before those on the grid, for the attention at ``path`` of a model: as the outermost module around it
    says, or else the first part of the model that does."""
    steps = path.split(".")[:-1]
    around = [model.get_submodule(".".join(steps[:end])) for end in range(len(steps) + 1)]
    told = (_told(part) for part in (*around, *model.modules()))
    return next((count for count in told if count is not None), 0)


def _told(part: nn.Module) -> int | None:
    if isinstance(told := getattr(part, "num_prefix_tokens", None), int):
        return told
    patches = patches_of(part)
    return None if patches is None else patches[1]


# Tokens before the grid, as timm, torchvision and transformers call them, in the order in which they stand.
_BEFORE_GRID = {
    "cls_token": "class token",
    "class_token": "class token",
    "class_embedding": "class token",
    "dist_token": "distillation token",
    "distillation_token": "distillation token",
    "reg_token": "register",
    "register_tokens": "register",
}


def prefix_names(model: nn.Module, count: int) -> tuple[str, ...]:
    """What the first ``count`` tokens of a model's attention are: ``class token``, ``register 1`` ...

    Those that no part of the model has by a name that is known are ``token 0`` and so on.
    """
    for part in model.modules():
        found = [
            name for attr, name in _BEFORE_GRID.items() for _ in range(_length(getattr(part, attr, None)))
        ]
        if found and len(found) >= count:
            numbered = (f"register {i}" for i in range(1, count + 1))
            return tuple(next(numbered) if name == "register" else name for name in found[:count])
    return tuple(f"token {i}" for i in range(count))


def _length(tokens: object) -> int:
    if not isinstance(tokens, Tensor):
        return 0
    return tokens.shape[1] if tokens.dim() == 3 else 1


# Of torchvision's ViT, of transformers' models, and of the user's own that are written as most are.
_PATCHES = (
    "conv_proj",
    "embeddings.patch_embeddings.projection",
    "embeddings.patch_embeddings",
    "embeddings.patch_embedding",
    "patch_embed.proj",
    "patch_embed",
)


def patches_of(parent: nn.Module) -> tuple[nn.Module, int] | None:
    """What makes a map of patches in a ViT, and the tokens before those of it; None for timm's, which tell more."""
    for name in _PATCHES:
        steps = name.split(".")
        if name.startswith("patch_embed") and hasattr(getattr(parent, "patch_embed", None), "grid_size"):
            continue
        module: Any = parent
        for step in steps:
            module = getattr(module, step, None)
        own_stem = name == "conv_proj" and isinstance(
            module, nn.Module
        )  # torchvision's may be several layers
        if own_stem or (isinstance(module, nn.Conv2d) and module.kernel_size == module.stride):
            holder = parent.embeddings if steps[0] == "embeddings" else parent
            return module, sum(_length(getattr(holder, each, None)) for each in _BEFORE_GRID)
    return None


def _stage(parent: nn.Module) -> tuple[nn.Module, Any, bool] | None:
    """Of a stage on maps: the module to watch, how to read the grid from its call, and whether before the call."""
    if isinstance(parent, Transformer):  # of PiT
        return (parent, _first_map, True) if parent.pool is None else (parent.pool, _first_of_result, False)
    if isinstance(parent, MobileVitBlock):
        return parent.conv_1x1, partial(_patches_of_result, tuple(parent.patch_size)), False
    if isinstance(parent, MetaFormerStage):
        return parent.downsample, _result, False
    return None


def _first_map(module: nn.Module, args: tuple[Any, ...], result: Any) -> Grid:
    return args[0][0].shape[-2], args[0][0].shape[-1]


def _first_of_result(module: nn.Module, args: tuple[Any, ...], result: Any) -> Grid:
    return result[0].shape[-2], result[0].shape[-1]


def _result(module: nn.Module, args: tuple[Any, ...], result: Any) -> Grid:
    return result.shape[-2], result.shape[-1]


def _patches_of_result(patch: Grid, module: nn.Module, args: tuple[Any, ...], result: Any) -> Grid:
    """Patches of a map, which is enlarged where they don't divide it."""
    return -(-result.shape[-2] // patch[0]), -(-result.shape[-1] // patch[1])


def _class_tokens(parents: Sequence[nn.Module]) -> int:
    tokens = (getattr(parent, "cls_token", None) for parent in parents)
    return next((t.shape[1] for t in tokens if isinstance(t, Tensor)), 0)
