"""``crosshead.save`` and ``crosshead.load``: a model to a folder and back, out of a run's folder, or from a hub."""

import os
from pathlib import Path

from torch import nn

from .hub.repository import PREFIX, fetch
from .models.saved import CONFIG, load_saved, save

__all__ = ["load", "save"]


def load(folder: str | os.PathLike[str]) -> nn.Module:
    """The model of a folder that ``crosshead.save`` wrote, or of a run, in evaluation mode; or, as
    ``"hf-hub:owner/name"`` or ``"hf-hub:owner/name@revision"``, one that ``push_to_hub`` wrote to Hugging Face's hub.

    Its ``pretrained_cfg`` has the classes' names (``label_names``) and how pictures are prepared (``mean``, ``std``,
    ``input_size``), as ``timm.data.resolve_model_data_config`` reads it. Of a run it is the best checkpoint, averaged
    weights where the run keeps an average; that needs what training needs (``crosshead[train]``).

    Raises:
        ValueError: where none of these is there, or what is there is damaged; a hub that can't be reached.
    """
    if isinstance(folder, str) and folder.startswith(PREFIX):
        return load_saved(fetch(folder))
    if (Path(folder) / CONFIG).exists():
        return load_saved(folder)
    from .train.inference import (  # the library alone loads saved models without it
        load_run,
        preparation_of,
    )

    trained = load_run(Path(folder), device="cpu")
    cfg = getattr(trained.model, "pretrained_cfg", None) or {}
    trained.model.pretrained_cfg = {**cfg, **preparation_of(trained)}  # type: ignore[assignment]
    return trained.model
