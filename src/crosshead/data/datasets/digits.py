"""``digits``: 1,797 handwritten digits, 8 x 8, that come with scikit-learn (Alpaydin, Kaynak, 1998)."""

import numpy as np
import torch

from crosshead.data.base import ArrayImages, Splits, dataset_info
from crosshead.data.datasets.held_out import HoldOut, stratified_split
from crosshead.recipe.schema import DataConfig

TEST_SHARE = 0.2
MEAN, STD = (0.3055,), (0.3761,)


def open_digits(data: DataConfig, *, hold: HoldOut) -> Splits:
    """A fifth of every class is the test set whatever the seed; the validation split follows the seed of ``hold``."""
    from sklearn.datasets import load_digits  # here: half a second that other data sets need not wait for

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    images = ArrayImages(torch.from_numpy(pixels)[:, None], bunch.target.astype(np.int64), "digits")
    rest, test = stratified_split(images.targets, TEST_SHARE, purpose="digits test split", seed=0)
    kept = images.subset(rest)
    train, validation = hold.split(kept, data, strata=kept.targets, fixed=True)
    names = [str(name) for name in bunch.target_names]
    info = dataset_info(data, names, MEAN, STD)
    return Splits(train, validation, images.subset(test), info, held_out=True)
