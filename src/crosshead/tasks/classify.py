"""Classification: predictions are logits (B, classes)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crosshead.data.loading.batch import Batch
from crosshead.recipe.schema import TaskConfig


class ClassifyTask:
    """Cross entropy to train with, accuracy to judge by.

    ``primary`` names the metric that selects a checkpoint; more is better.
    """

    primary = "accuracy"

    def __init__(self, config: TaskConfig, classes: int) -> None:
        if classes < 2:
            raise ValueError(
                f"the data has {classes} class, and there is nothing to tell apart: wanted one folder a class, two at "
                "least; data.root is to be the folder above them"
            )
        self.label_smoothing = config.label_smoothing
        self.classes = classes

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy over the batch, in float32, against indices (B,) or probabilities (B, classes).

        Label smoothing applies to both; it moves its share of the target evenly onto all classes.
        """
        return F.cross_entropy(predictions.float(), batch.targets, label_smoothing=self.label_smoothing)

    def hits(self, predictions: Tensor, batch: Batch) -> Tensor | None:
        """The number of images classified right, a scalar; None where targets are mixed and no one class is."""
        if batch.targets.ndim > 1:
            return None
        return (predictions.argmax(-1) == batch.targets).sum()

    def evaluation(self) -> "ClassifyEvaluation":
        return ClassifyEvaluation(self.classes)


class ClassifyEvaluation:
    """Judges a data set image by image, so that it does not matter which process saw which image.

    A row an image: its index, its loss, whether its class came first, whether it was among the first five.
    Sums run over rows sorted by index, so they do not depend on the order of arrival either.
    """

    def __init__(self, classes: int) -> None:
        self.places = min(5, classes)
        self._rows: list[Tensor] = []

    def update(self, predictions: Tensor, batch: Batch) -> None:
        logits = predictions.float()
        losses = F.cross_entropy(logits, batch.targets, reduction="none")
        places = logits.topk(self.places).indices == batch.targets[:, None]
        columns = [batch.index.to(losses.device), losses, places[:, 0], places.any(1)]
        self._rows.append(torch.stack([column.double() for column in columns], 1).cpu())

    def rows(self) -> Tensor:
        """What this process saw, (images, 4) float64."""
        return torch.cat(self._rows) if self._rows else torch.zeros(0, 4, dtype=torch.float64)

    def compute(self, rows: list[Tensor]) -> dict[str, float]:
        """Accuracy, top-5 accuracy and mean cross entropy over the rows of all processes, and their count."""
        table = torch.cat(rows)
        table = table[table[:, 0].argsort()]
        count = len(table)
        loss, first, five = table[:, 1:].sum(0).div(max(count, 1)).tolist()
        return {"accuracy": first, "top5": five, "loss": loss, "count": float(count)}
