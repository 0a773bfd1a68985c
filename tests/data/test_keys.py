"""Keys are a fixed function, well spread, and leave the global generators as they were."""

import random

import numpy as np
import torch

from crosshead.data.random import key, keys, permutation, seeded_globals, uniforms


def test_the_first_bits_are_those_of_splitmix64() -> None:
    # The reference generator from state 0 gives these numbers first.
    stream = uniforms(np.zeros(1, dtype=np.uint64), 3)[0]
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert stream.tolist() == [(value >> 11) * 2.0**-53 for value in known]


def test_a_key_depends_on_each_of_its_parts_and_on_no_neighbour() -> None:
    whole = keys("a", 1, 2, [3, 4, 5])
    assert whole[1] == keys("a", 1, 2, [4])[0] == key("a", 1, 2, 4)
    others = {key("b", 1, 2, 3), key("a", 2, 2, 3), key("a", 1, 3, 3), key("a", 1, 2, 4), key("a", 3, 2, 1)}
    assert len(others) == 5 and key("a", 1, 2, 3) not in others


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    drawn = uniforms(keys("u", 0, 0, np.arange(20_000)), 4)
    assert drawn.min() >= 0 and drawn.max() < 1
    # Standard errors: 0.0041 for a decile's share of 20,000 is 0.0021; for a correlation 0.0071.
    for column in drawn.T:
        shares = np.histogram(column, bins=10, range=(0, 1))[0] / len(column)
        assert np.abs(shares - 0.1).max() < 0.012
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.04
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.04


def test_a_permutation_holds_every_index_once_and_changes_with_the_epoch() -> None:
    first, second = (permutation("order", 0, epoch, 1000) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(1000))
    assert (first != second).mean() > 0.9
    assert permutation("order", 0, 0, 0).tolist() == []


def test_global_generators_are_seeded_inside_and_restored_outside() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    undisturbed = [draw(), draw()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draw()
    with seeded_globals() as seed_all:
        seed_all(2**64 - 1)
        inside = draw()
        seed_all(2**64 - 1)
        assert draw() == inside
        seed_all(5)
        assert all(a != b for a, b in zip(draw(), inside, strict=True))
    assert [first, draw()] == undisturbed
