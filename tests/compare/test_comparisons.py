import math

import numpy as np
import pytest

from crosshead.compare.checkpoints import compare_checkpoints
from crosshead.compare.recipes import compare_recipes, holm, mean_interval


def test_an_interval_covers_as_often_as_it_says():
    """2,000 pairs of recipes without a difference, three seeds each."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        a, b = rng.normal(size=3), rng.normal(size=3)
        found = compare_recipes({"x": a}, {"x": b})["x"]
        covered += found.low <= 0 <= found.high
    assert 0.94 <= covered / 2000 <= 0.99


def test_a_difference_has_its_direction_and_its_size():
    found = compare_recipes({"x": [1.0, 1.1, 0.9]}, {"x": [2.0, 2.1, 1.9]})["x"]
    assert found.difference == pytest.approx(1.0) and found.low < 1.0 < found.high
    assert found.differs() and found.seeds == (3, 3)


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_measures_that_were_compared_together_are_judged_together():
    rng = np.random.default_rng(1)
    a = {f"m{i}": rng.normal(size=3) for i in range(20)}
    b = {name: values + rng.normal(size=3) for name, values in a.items()}
    found = compare_recipes(a, b)
    assert all(each.p_adjusted >= each.p for each in found.values())


def test_two_seeds_allow_no_claim():
    with pytest.raises(ValueError, match=r"2 and 3 seeds.*at least 3.*train more seeds"):
        compare_recipes({"x": [1, 2]}, {"x": [1, 2, 3]})
    with pytest.raises(ValueError, match="same measures"):
        compare_recipes({"x": [1, 2, 3]}, {"y": [1, 2, 3]})


def test_where_nothing_varies_there_is_no_test():
    for values in ([1, 1, 1], [2, 2, 2], [0.1 + 0.2, 0.3, 0.3]):
        found = compare_recipes({"x": [1, 1, 1]}, {"x": values})["x"]
        assert math.isnan(found.p) and math.isnan(found.low) and not found.differs()
    both = compare_recipes(
        {"x": [1, 1, 1], "y": [1.0, 1.1, 0.9]}, {"x": [2, 2, 2], "y": [2.0, 2.1, 1.9]}
    )  # what could not be tested is not counted among the comparisons either
    assert both["y"].p_adjusted == both["y"].p and both["y"].differs()


def test_a_mean_of_one_seed_has_no_interval():
    found = mean_interval([3.0])
    assert found.mean == 3.0 and math.isnan(found.low)
    assert mean_interval([1.0, 2.0, 3.0]).high == pytest.approx(2 + 4.303 / math.sqrt(3), abs=1e-3)


def test_checkpoints_are_compared_image_by_image():
    rng = np.random.default_rng(2)
    a = rng.normal(size=200)
    found = compare_checkpoints(a, a + 0.1 + 0.01 * rng.normal(size=200))
    assert 0.09 < found.low < found.difference < found.high < 0.11
    assert "not of their recipes" in str(found)
    assert compare_checkpoints([1, 2], [2, 3]).low == 1.0
    with pytest.raises(ValueError, match="got 2 and 3"):
        compare_checkpoints([1, 2], [1, 2, 3])
