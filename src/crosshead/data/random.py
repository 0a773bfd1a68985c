"""Randomness as a pure function of what it is for, the seed, the epoch and the index.

Nothing here has a state to save: a resumed run, another number of workers or another order of evaluation draw
the same numbers. The hash is the finalizer of SplitMix64 (Steele, Lea, Flood, 2014), vectorised over indices.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Indices = NDArray[np.int64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: Keys) -> Keys:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def keys(purpose: str, seed: int, epoch: int, index: NDArray[np.int64] | list[int]) -> Keys:
    """64 well mixed bits for each entry of ``index``, (B,). Other purposes give unrelated bits."""
    key = _mix(np.array([zlib.crc32(purpose.encode())], dtype=np.uint64))
    for number in (seed, epoch, index):
        key = _mix(key + (np.atleast_1d(number).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return key


def key(purpose: str, seed: int, epoch: int, index: int = 0) -> int:
    """:func:`keys` of one index, as a Python integer."""
    return int(keys(purpose, seed, epoch, [index])[0])


def uniforms(drawn: Keys, count: int) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1) for each key, (B, count): the SplitMix64 stream that starts at the key."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return (_mix(drawn[:, None] + steps) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(purpose: str, seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """0 ... length − 1 in the order of their keys, so that no library's version decides the order."""
    return np.argsort(keys(purpose, seed, epoch, np.arange(length)), kind="stable")


@contextmanager
def seeded_globals() -> Iterator[Callable[[int], None]]:
    """For libraries that draw from the global generators of Python, NumPy and PyTorch (CPU).

    Yields a function that seeds all three with a key; their states come back on the way out.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def seed_all(key: int) -> None:
        random.seed(key)
        np.random.seed(key & 0xFFFFFFFF)
        torch.default_generator.manual_seed(key & 0x7FFFFFFFFFFFFFFF)

    try:
        yield seed_all
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
