"""Which part of a model is given the pictures: the transformer, wherever in a user's own modules it lies."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..models.pyramid import Maps
from .attention_layers import HeadLayer


class Pictures:
    """How many pictures, and how large, the part of a model around each attention layer was given last.

    That part is the outermost module around the layer whose first tensor, by place or by name, is (B, C, H, W): the
    model, where it takes images, or a backbone in a module that takes a dictionary, videos or several crops. Of a
    detector or segmenter, or of a part with a backbone for maps, it is the backbone: the images with their padding.
    """

    def __init__(self, model: nn.Module, layers: Sequence[HeadLayer]) -> None:
        self._model = model
        maps = next(((p, m) for p, m in model.named_modules() if isinstance(m, Maps)), None)
        self._around = {layer.path: _around(layer.path) for layer in layers}
        if maps is not None:
            body = f"{maps[0]}.body".removeprefix(".")
            self._around = {path: [body] for path in self._around}
        self._modules = {path: model.get_submodule(path) for each in self._around.values() for path in each}
        self._paths = {module: path for path, module in self._modules.items()}
        self._given: dict[str, tuple[int, tuple[int, int]]] = {}

    def watch(self) -> list[RemovableHandle]:
        """Hooks that note what is given; to be removed."""

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            first = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
            path = self._paths[module]
            self._given.pop(path, None)
            if first is not None and first.dim() == 4:
                self._given[path] = len(first), (first.shape[-2], first.shape[-1])

        return [module.register_forward_pre_hook(note, with_kwargs=True) for module in self._modules.values()]

    def given(self, layer: HeadLayer) -> tuple[int, tuple[int, int], nn.Module]:
        """Pictures, their (height, width), and the module that took them.

        Raises:
            ValueError: nothing around the layer was given pictures.
        """
        for path in self._around[layer.path]:
            if path in self._given:
                return *self._given[path], self._modules[path]
        raise ValueError(
            f"block {layer.block} ({layer.path}) can't be laid onto a picture: neither {type(self._model).__name__} "
            "nor a module in it around this one was given pictures, a tensor (B, C, H, W) before all others"
        )

    def path_of(self, taker: nn.Module) -> str:
        """Where a module that took pictures lies in the model, with a point at its end, or nothing for the model."""
        path = self._paths[taker]
        return f"{path}." if path else ""


def _around(path: str) -> list[str]:
    """Paths of the modules around one, the model, "", first."""
    steps = path.split(".")[:-1]
    return [".".join(steps[:end]) for end in range(len(steps) + 1)]
