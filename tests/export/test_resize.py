"""Pictures resized in NumPy: the bits that PyTorch gives."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional._geometry import _do_native_uint8_resize_on_cpu

from crosshead.export.prepare import resized


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_every_bit_is_pytorchs(interpolation, channels):
    mode = InterpolationMode(interpolation)
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 47, 61), np.uint8)
    # Where PyTorch resizes in float32 a value may be rounded the other way.
    apart = 0 if interpolation == "nearest" or _do_native_uint8_resize_on_cpu(mode) else 1
    for size in ((20, 30), (47, 99), (110, 61), (1, 1), (95, 122), (46, 62)):
        if size == (1, 1) and channels == 3:
            continue  # PyTorch's own kernel fails there
        want = F.resize(torch.from_numpy(pixels), list(size), mode, antialias=True).numpy()
        got = resized(pixels, size, interpolation)
        assert np.abs(got.astype(int) - want.astype(int)).max() <= apart, size
