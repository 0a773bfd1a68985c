"""Judging a classifier image by image, so that it does not matter which process saw which image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crosshead.data.loading.batch import Batch
from crosshead.tasks.protocol import Judgement


class ClassifyEvaluation:
    """A row an image: its index, its loss, whether its class came first, whether it was among the first five.

    Sums run over rows sorted by index, so they do not depend on the order of arrival either.
    """

    def __init__(self, classes: int) -> None:
        self.places = min(5, classes)
        self._rows: list[Tensor] = []

    def update(self, predictions: Tensor, batch: Batch) -> None:
        logits = predictions.float()
        losses = F.cross_entropy(logits, batch.targets, reduction="none")
        places = logits.topk(self.places).indices == batch.targets[:, None]
        # To the CPU before it becomes float64, which some devices don't have (Apple's MPS); in one transfer.
        figures = torch.stack([losses, places[:, 0].float(), places.any(1).float()], 1).cpu()
        self._rows.append(torch.cat([batch.index.cpu()[:, None].double(), figures.double()], 1))

    def sums(self) -> Tensor:
        return torch.zeros(0)

    def rows(self) -> Tensor:
        """What this process saw, (images, 4) float64."""
        return torch.cat(self._rows) if self._rows else torch.zeros(0, 4, dtype=torch.float64)

    def compute(self, sums: Tensor, rows: list[Tensor]) -> Judgement:
        """Accuracy, top-5 accuracy and mean cross entropy over the rows of all processes, and their count."""
        table = torch.cat(rows)
        table = table[table[:, 0].argsort()]
        count = len(table)
        loss, first, five = table[:, 1:].sum(0).div(max(count, 1)).tolist()
        return Judgement({"accuracy": first, "top5": five, "loss": loss, "count": float(count)})
