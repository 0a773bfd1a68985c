"""What Hugging Face's models do with a swap: their own way of saving knows nothing of interactions, and says so."""

from typing import Any, NoReturn

from torch import nn

from ..layers.attention import InteractingAttention


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
