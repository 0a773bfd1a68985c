"""How well a file does on a run's validation pictures: by the run's own task, with the file in the model's place."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crosshead.data.base import Splits
from crosshead.export.runtime import OnnxModel
from crosshead.tasks import METRICS
from crosshead.train.inference import LoadedRun, evaluate_on


class Ran(nn.Module):
    """An exported file as a model: normalised images (B, C, H, W) -> logits."""

    def __init__(self, file: OnnxModel, stride: int | None) -> None:
        super().__init__()
        self.file = file
        self.stride = stride
        self.on = nn.Parameter(torch.zeros(()))  # asked for its device

    def forward(self, images: Tensor) -> Tensor:
        about = self.file.about
        given: Any = images.numpy()
        if about.input == "pixels":
            mean, std = (np.asarray(each, np.float32)[:, None, None] for each in (about.mean, about.std))
            given = np.rint((given * std + mean) * 255).clip(0, 255).astype(np.uint8)
        parts = [given] if "batch" in about.varying else [image[None] for image in given]
        out = torch.from_numpy(np.concatenate([self.file.run(part)[0] for part in parts]))
        if about.outputs == "probabilities":
            return out.logit() if about.answers == "labels" else out.log()
        return out


def judge(trained: LoadedRun, splits: Splits, file: OnnxModel | None = None) -> str:
    """What the task shows first on the validation split ("accuracy 98.33%"): of the run's model, or of a file in its
    place."""
    metric = METRICS[trained.task.shown[0]]
    if file is not None:
        trained = replace(trained, model=Ran(file, file.about.stride))
    found = evaluate_on(trained, splits, "validation")
    return f"{metric.label} {metric.text(found.metrics[metric.name])}"
