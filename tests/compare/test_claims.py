"""What the tests claim, simulated: false claims where there is nothing, and how often planted differences are found."""

import numpy as np
import pytest

from crosshead.compare.differences import paired, spread, welch
from crosshead.compare.recipes import _alike, against_control, detectable, seeds_needed

SOAK = [pytest.param(200, id="200"), pytest.param(2000, id="2000", marks=pytest.mark.soak)]


def allowed(most, repeats):
    """``most`` and what chance adds to a share of so many repeats, 99.9 times in 100."""
    return most + 3.1 * np.sqrt(most * (1 - most) / repeats) * (repeats < 1000)


def claims(test, draw, repeats, seeds, planted=0.0):
    rng = np.random.default_rng(0)
    made = [test(draw(rng, seeds), draw(rng, seeds) + planted).differs() for _ in range(repeats)]
    return float(np.mean(made))


def normal(rng, seeds):
    return rng.normal(size=seeds)


def heavy(rng, seeds):
    return rng.standard_t(3, size=seeds)


@pytest.mark.parametrize("repeats", SOAK)
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("test", [welch, paired])
def test_two_groups_of_one_recipe_are_rarely_told_apart(test, seeds, repeats):
    assert claims(test, normal, repeats, seeds) <= allowed(0.06, repeats)
    assert claims(test, heavy, repeats, seeds) <= allowed(0.07, repeats)


@pytest.mark.parametrize("repeats", SOAK)
@pytest.mark.parametrize("seeds", [3, 5, 8, 10])
def test_what_is_detectable_is_found_four_times_in_five(seeds, repeats):
    apart = detectable(seeds, 1.0, paired=False)
    assert claims(welch, normal, repeats, seeds, apart) == pytest.approx(
        0.8, abs=0.1 if repeats < 1000 else 0.03
    )
    apart = detectable(seeds, 2**0.5, paired=True)  # of two independent sides
    found = claims(paired, normal, repeats, seeds, apart)
    assert found == pytest.approx(0.8, abs=0.13 if repeats < 1000 else 0.1)


@pytest.mark.parametrize(("seeds", "deviations"), [(3, 3.5), (4, 2.5), (5, 2.1), (8, 1.5), (10, 1.34)])
def test_detectable_differences_are_those_that_simulations_gave(seeds, deviations):
    assert detectable(seeds, 1.0, paired=False) == pytest.approx(deviations, rel=0.02)


def test_seeds_that_a_difference_takes():
    for paired_design in (False, True):
        for wanted in (0.2, 0.5, 1.0, 2.0):
            seeds = seeds_needed(wanted, 1.0, paired=paired_design)
            assert detectable(seeds, 1.0, paired=paired_design) <= wanted
            assert seeds == 3 or detectable(seeds - 1, 1.0, paired=paired_design) > wanted
    assert seeds_needed(1e-9, 1.0, paired=True) is None
    assert detectable(5, 1.0, paired=False, level=1 - 0.05 / 3) > detectable(5, 1.0, paired=False)


def test_seeds_that_agree_to_the_image_prove_nothing():
    """Three seeds of 99.16 % against three of 99.44 % on 359 images: one image."""
    image = 1 / 359
    a, b = [356 * image] * 3, [357 * image] * 3
    found = welch(a, b, grain=image)
    assert found.difference == pytest.approx(image) and found.p > 0.01
    assert found.low < 0.5 * image and found.high > 1.5 * image
    assert not welch(a, a, grain=image).differs() and welch(a, a, grain=image).low < 0


def test_the_grain_adds_its_variance_and_leaves_the_mean():
    for values in ([0.5, 0.5, 0.5], [0.1 + 0.2, 0.3, 0.3], [0.1, 0.4, 0.9]):
        found = spread(values, 0.1)
        assert found.mean() == pytest.approx(np.mean(values))
        assert found.var(ddof=1) == pytest.approx(np.var(values, ddof=1) + 0.01 / 12)


def test_pairs_are_judged_by_their_differences():
    a = np.array([0.1, 0.5, 0.9])
    b = a + np.array([0.10, 0.11, 0.09])
    assert paired(a, b).differs() and not welch(a, b).differs()
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired(a, a[:2])
    with pytest.raises(ValueError, match="2 and 2 seeds say nothing"):
        paired(a[:2], a[:2])


def test_several_against_a_control_by_dunnett_or_by_holm():
    rng = np.random.default_rng(3)
    control = rng.normal(size=5)
    alike = {f"v{i}": rng.normal(size=5) for i in range(3)}
    found = against_control(control, alike)
    assert {each.method for each in found.values()} <= {"Dunnett", "Welch"}
    even = {name: control[::-1] + shift for name, shift in (("same", 0.0), ("up", 4.0))}
    found = against_control(control, even)
    assert found["up"].method == "Dunnett" and found["up"].differs() and not found["same"].differs()
    assert found["up"].low < 4 < found["up"].high
    uneven = {"wide": 30 * control, "up": control + 4.0}
    found = against_control(control, uneven)
    assert {each.method for each in found.values()} == {"Welch"}
    assert found["up"].p_adjusted == pytest.approx(2 * found["up"].p)


@pytest.mark.soak
def test_dunnett_finds_more_than_holm_and_claims_no_more_than_it_may():
    """Eight variants against a control, one 2.5 deviations above, five seeds: Holm over Welch finds it in 53 of 100."""
    rng = np.random.default_rng(5)
    hits = false = 0
    for _ in range(400):
        others = {str(i): rng.normal(size=5) + 2.5 * (i == 0) for i in range(8)}
        found = against_control(rng.normal(size=5), others)
        hits += found["0"].differs()
        false += any(each.differs() for name, each in found.items() if name != "0")
    assert hits / 400 > 0.75
    assert false / 400 <= 0.07


def test_groups_that_vary_alike_are_told_from_one_that_does_not():
    """Of nine groups of five the largest variance is several times the smallest, by chance."""
    rng = np.random.default_rng(0)
    alike = [_alike([rng.normal(size=5) for _ in range(9)]) for _ in range(200)]
    apart = [_alike([rng.normal(size=5) * (5 if i == 0 else 1) for i in range(9)]) for _ in range(200)]
    assert np.mean(alike) > 0.9 and np.mean(apart) < 0.1
