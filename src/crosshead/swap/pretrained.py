"""Others' own ways of saving a swapped model: timm's is told of the interactions, transformers' is refused."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from torch import nn

from ..layers.attention import InteractingAttention

SWAPPED = "crosshead_swapped"  # in timm's registry, see ``crosshead.models.saved``


def remember_swap(model: nn.Module, interactions: Sequence[Mapping[str, Any]]) -> None:
    """Has timm's ``save_for_hf`` and ``push_to_hf_hub`` write what builds ``model`` as it is now: they take name and
    arguments from ``pretrained_cfg`` and ``_model_args``, which tell of the model before any swap.

    Args:
        model: with ``interactions`` in it (as ``interactions_of`` gives them), or none; changed in those attributes
            alone, and not at all where timm did not make it.
    """
    cfg, remembered = getattr(model, "pretrained_cfg", None), dict(getattr(model, "_model_args", {}))
    if not isinstance(cfg, Mapping) or not cfg.get("architecture"):
        return
    name = cfg["architecture"]
    if name == SWAPPED:
        name, _ = remembered.pop("name", name), remembered.pop("interactions", None)
    # Models of this library may have heads that interact from the start: without any they are other ones.
    if interactions or hasattr(model, "created_with"):
        remembered |= {"name": name, "interactions": [dict(each) for each in interactions]}
        name = SWAPPED
    model.pretrained_cfg = {**cfg, "architecture": name}  # type: ignore[assignment]
    model._model_args = remembered  # type: ignore[assignment]


class RefusedSaving:
    """In the place of ``save_pretrained`` of a model whose heads interact."""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            "save_pretrained writes the weights without the interactions, and from_pretrained would build the model "
            "without them; call crosshead.save(model, folder), and crosshead.load(folder) to have it back"
        )

    @classmethod
    def watch(cls, model: nn.Module) -> None:
        """From here on ``save_pretrained`` of ``model`` and of its parts with interacting heads is refused."""
        for part in model.modules():
            interacting = any(isinstance(module, InteractingAttention) for module in part.modules())
            if hasattr(type(part), "save_pretrained") and interacting:
                part.save_pretrained = cls()  # type: ignore[assignment]

    @classmethod
    def unwatch(cls, model: nn.Module) -> None:
        for part in model.modules():
            if isinstance(vars(part).get("save_pretrained"), cls):
                del part.save_pretrained
