"""``roc_auc``: how well a class's pictures are told from the others, whatever threshold."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crosshead.tasks.classify.evaluation import ClassificationOutputs
from crosshead.tasks.metrics import register_metric


@register_metric("roc_auc", "ROC AUC", of=ClassificationOutputs, form="number")
def roc_auc(outputs: ClassificationOutputs) -> float:
    """The area under the receiver operating characteristic: the chance that a picture of the class is given a higher
    probability of it than one of another class. Of two classes it is one number; of more the mean over the classes
    that some pictures have and others have not (one against the rest). scikit-learn computes it."""
    probabilities = outputs.probabilities
    assert probabilities is not None, (
        "an evaluation keeps them where a metric beyond the task's own is asked for"
    )
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    return mean_auc([outputs.target == k for k in classes], [probabilities[:, k] for k in classes])


def mean_auc(there: Sequence[NDArray[np.bool_]], scores: Sequence[NDArray[np.float64]]) -> float:
    """Over the classes that some pictures have and others have not; NaN where there is none."""
    from sklearn.metrics import roc_auc_score

    areas = [
        float(roc_auc_score(own, score))
        for own, score in zip(there, scores, strict=True)
        if own.any() and not own.all()
    ]
    return sum(areas) / len(areas) if areas else math.nan
