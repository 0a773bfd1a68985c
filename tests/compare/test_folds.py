"""Runs on folds share training pictures: what is said of them allows for it."""

import numpy as np
import pytest
from fake_runs import fake_run
from scipy import stats

from crosshead.compare.comparison import FOLDS, compare_runs
from crosshead.compare.differences import paired, resampled
from crosshead.compare.telling import as_data
from crosshead.pages.reports import compare_page


def test_it_is_the_papers_formula():
    a, b = [0.80, 0.82, 0.79, 0.85, 0.81], [0.83, 0.84, 0.80, 0.86, 0.86]
    found = resampled(a, b, 0.25)
    d = np.array(b) - np.array(a)
    t = d.mean() / np.sqrt((1 / 5 + 0.25) * d.var(ddof=1))  # Nadeau and Bengio's (9)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 4)) and found.difference == pytest.approx(0.024)
    assert found.low < paired(a, b).low < paired(a, b).high < found.high
    assert found.p > 2 * paired(a, b).p


def test_it_claims_falsely_less_often_than_folds_taken_for_seeds():
    """Nearest centroids on either half of exchangeable features: as good as each other over all training sets."""
    rng = np.random.default_rng(0)
    naive = corrected = 0
    for _ in range(300):
        y, fold = np.arange(60) % 2, rng.permutation(60) % 5
        x = rng.normal(size=(60, 8)) + 0.5 * y[:, None]
        shares = [[], []]
        for k in range(5):
            learned, judged = fold != k, fold == k
            for found, half in zip(shares, (x[:, :4], x[:, 4:]), strict=True):
                ones, zeros = (half[learned & (y == label)].mean(0) for label in (1, 0))
                said = (half[judged] - (ones + zeros) / 2) @ (ones - zeros) > 0
                found.append(float((said == y[judged]).mean()))
        naive += paired(*shares, grain=1 / 12).differs()
        corrected += resampled(*shares, 0.25, grain=1 / 12).differs()
    assert corrected < naive and corrected / 300 <= 0.05


def folded(folder, values, *, name, lr, folds=5, count=72, **more):
    for fold, value in enumerate(values):
        over = [f"name={name}", f"optimizer.lr={lr}", f"data.folds={folds}", f"data.fold={fold}"]
        fake_run(
            folder / name / f"fold-{fold}", value, overrides=over, count=count, test=f"fold {fold}", **more
        )
    return folder / name


def test_a_comparison_of_folds_is_told_as_one(tmp_path):
    values = [0.80, 0.82, 0.79, 0.85, 0.81]
    runs = [
        folded(tmp_path, values, name="a", lr=1e-3),
        folded(tmp_path, [v + 0.05 + 0.002 * i for i, v in enumerate(values)], name="b", lr=2e-3),
        folded(tmp_path, values[::-1], name="c", lr=3e-3),
    ]
    comparison = compare_runs(runs)
    higher, none = comparison.against
    assert "b against a, test accuracy: higher" in higher.sentence
    assert "five folds, corrected resampled t test, p" in higher.sentence
    assert "no difference shown" in none.sentence and "five folds that vary like these find" in none.sentence
    assert higher.difference.p_adjusted > higher.difference.p, "two were compared"
    assert FOLDS in comparison.notes
    data = as_data(comparison)
    assert data["rows"][0]["folds"] == "5" and data["over"] == "fold"
    assert "Every fold" in compare_page(data) and "2 recipes against a are judged together: Holm's" in str(
        data
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 6}, "not of one cross-validation"),
        ({"seed": 1}, "not of one cross-validation"),
        ({"values": [0.8] * 4}, "fold 4 of 5 is missing"),
        ({"test": "elsewhere"}, "have other test images"),
    ],
)
def test_what_is_of_other_folds_is_refused(tmp_path, change, message):
    one = folded(tmp_path, [0.8, 0.81, 0.82, 0.83, 0.84], name="a", lr=1e-3)
    values = change.pop("values", [0.8] * 5)
    if "test" in change:
        for fold, value in enumerate(values):
            over = ["name=b", "optimizer.lr=2e-3", "data.folds=5", f"data.fold={fold}"]
            fake_run(tmp_path / "b" / f"fold-{fold}", value, overrides=over, count=72, **change)
        other = tmp_path / "b"
    else:
        other = folded(tmp_path, values, name="b", lr=2e-3, **change)
    with pytest.raises(ValueError, match=message):
        compare_runs([one, other])
