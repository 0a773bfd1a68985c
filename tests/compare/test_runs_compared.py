"""Finished runs: grouped by recipe, paired by design, judged, told; and what is refused."""

import json

import pytest

from compare.fake_runs import fake_run, fake_sweep
from crosshead.compare.comparison import compare_runs, rows_of
from crosshead.compare.designs import unpaired_because
from crosshead.compare.differences import welch
from crosshead.compare.runs import differing_settings, group_runs, read_runs
from crosshead.compare.telling import as_data

A, B = [0.90, 0.92, 0.91, 0.93], [0.95, 0.97, 0.96, 0.985]


def test_a_sweep_is_grouped_by_recipe_and_paired_by_design(tmp_path):
    comparison = compare_runs([fake_sweep(tmp_path / "sweep", plain=A, wide=B)])
    assert [group.label for group in comparison.groups] == ["plain", "wide"]
    assert comparison.control.seeds == [0, 1, 2, 3]
    (against,) = comparison.against
    assert against.difference.method == "paired" and against.unpaired is None and against.correlation > 0.9
    assert against.difference.differs() and "higher, +5.12 [" in against.sentence
    assert "four paired seeds" in against.sentence and "nothing" not in against.sentence
    assert [*differing_settings(comparison.groups)] == ["optimizer.lr"]


def test_a_null_says_what_could_have_been_found(tmp_path):
    runs = fake_sweep(tmp_path / "sweep", plain=[0.90, 0.92, 0.91], other=[0.91, 0.915, 0.905])
    (against,) = compare_runs([runs]).against
    words = against.sentence
    assert "no difference shown: +0.00 [" in words and "three paired seeds that vary like these find" in words
    assert "points four times in five;" in words and "would be needed for" in words


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(design=False), "not recorded"),
        (dict(tensors={"a.weight": "2x2 other", "b.weight": "3 same"}), "1 of the 2 tensors"),
        (dict(tensors={"c.weight": "2x2 other"}), "no tensor in common"),
        (dict(seed=7), "seeds are not the same"),
    ],
)
def test_what_does_not_pair_by_design_is_judged_by_welch(tmp_path, change, reason):
    folder = fake_sweep(tmp_path / "sweep", plain=A[:3], wide=B[:2])
    given = {"seed": 2, "overrides": ["name=wide", "optimizer.lr=0.002"], **change}
    fake_run(folder / "wide" / "last", B[2], **given)
    groups = group_runs(read_runs([folder]))
    assert reason in unpaired_because(*groups)
    (against,) = compare_runs([folder]).against
    assert against.difference == welch(A[:3], B[:3], grain=1 / 359) and reason in against.unpaired
    assert any("not paired, since" in note for note in as_data(compare_runs([folder]))["notes"])


def test_other_shapes_of_a_tensor_are_not_shared(tmp_path):
    folder = fake_sweep(tmp_path / "sweep", plain=A[:3])
    for seed, value in enumerate(B[:3]):
        began = {"a.weight": "9x2 other", "b.weight": "3 same"}
        fake_run(
            folder / f"w{seed}", value, seed=seed, overrides=["name=w", "optimizer.lr=0.5"], tensors=began
        )
    assert unpaired_because(*group_runs(read_runs([folder]))) is None


def test_several_recipes_are_judged_together_against_the_first(tmp_path):
    folder = fake_sweep(tmp_path / "sweep", plain=A, up=B, same=[0.905, 0.915, 0.925, 0.92])
    comparison = compare_runs([folder / "plain", folder / "up", folder / "same"])
    assert {each.difference.method for each in comparison.against} == {"Dunnett"}
    assert [each.difference.differs() for each in comparison.against] == [True, False]
    rows = rows_of(comparison)
    assert rows[0]["difference"] == "-" and rows[1]["test"] == "Dunnett" and rows[0]["GMACs"] == "0.1"


def test_looks_that_were_planned_are_paid_for(tmp_path):
    folder = fake_sweep(tmp_path / "sweep", plain=A, wide=B)
    once, thrice = compare_runs([folder]), compare_runs([folder], looks=3)
    assert thrice.level == pytest.approx(1 - 0.05 / 3)
    assert thrice.against[0].difference.low < once.against[0].difference.low
    assert any("3 looks were planned" in note for note in as_data(thrice)["notes"])


def test_another_metric_has_its_own_unit(tmp_path):
    comparison = compare_runs([fake_sweep(tmp_path / "sweep", plain=A, wide=B)], "loss")
    assert (
        "lower, -0.0512 [" in comparison.against[0].sentence
        and "points" not in comparison.against[0].sentence
    )


def test_all_of_it_is_data(tmp_path):
    data = as_data(compare_runs([fake_sweep(tmp_path / "sweep", plain=A, wide=B)]))
    assert json.loads(json.dumps(data, allow_nan=False))["groups"][1]["values"] == B
    assert len(data["curves"]) == 8 and data["curves"][0]["points"][-1] == (2.0, pytest.approx(0.90))
    assert data["classes"][0]["class"] == "0" and data["settings"][0]["key"] == "optimizer.lr"


def test_trained_longer_is_said(tmp_path):
    folder = fake_sweep(tmp_path / "sweep", plain=A[:3])
    for seed in range(3):
        fake_run(
            folder / f"long{seed}", B[seed], seed=seed, overrides=["name=long", "train.epochs=50"], step=500
        )
    comparison = compare_runs([folder])
    assert any("other numbers of steps (long 500, plain 100)" in note for note in comparison.notes)


@pytest.fixture
def sweep(tmp_path):
    return fake_sweep(tmp_path / "sweep", plain=A[:3], wide=B[:3])


OTHER = ["name=other", "optimizer.lr=0.5"]
REFUSED = [
    (dict(seed=0, overrides=OTHER, count=100), "other numbers of test images (359 and 100)"),
    (dict(seed=0, overrides=OTHER, test="y"), "have other test images;"),
    (dict(seed=0, recipe="fashion_mnist"), "have other data sets (digits and fashion-mnist)"),
    (dict(seed=0, overrides=[*OTHER, "task.name=segment"]), "have other tasks (classify and segment)"),
    (dict(seed=0, overrides=OTHER), "other has 1 seed"),
    (dict(seed=0, overrides=["name=plain", "optimizer.lr=0.001"]), "are one recipe with one seed (0)"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_runs_that_can_not_be_compared(sweep, change, words):
    fake_run(sweep / "zz", 0.9, **change)
    with pytest.raises(ValueError) as refused:
        compare_runs([sweep])
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_folders_that_can_not_be_compared(sweep, tmp_path):
    cases = {
        "sweep/plain": "all 3 runs are of one recipe (plain); expected those of two or more",
        "nowhere": "is not there; expected the folder of a run or of a sweep",
    }
    for folder, words in cases.items():
        with pytest.raises(ValueError) as refused:
            compare_runs([tmp_path / folder])
        assert words in str(refused.value)
    with pytest.raises(ValueError, match="no metric 'miou'; expected one of accuracy, loss"):
        compare_runs([sweep], "miou")
    with pytest.raises(ValueError, match="looks must be at least 1"):
        compare_runs([sweep], looks=0)
    result = sweep / "wide" / "seed-1" / "result.json"
    whole = result.read_text()
    result.write_text(whole.replace('"accuracy": 0.97', '"accuracy": null'))
    with pytest.raises(ValueError, match="seed-1 has no accuracy on its test images"):
        compare_runs([sweep])
    result.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"result\.json can't be read"):
        compare_runs([sweep])
    result.unlink()
    with pytest.raises(ValueError, match="seed-1 is not finished"):
        compare_runs([sweep])


BROKEN_RESULTS = [
    {"test": None},
    {"validation": [1]},
    {"details": "x"},
    {"shown": []},
    {"images_per_second": None},
    {"test": {"accuracy": "0.9"}},
    {"weights": 3},
]


@pytest.mark.parametrize("change", BROKEN_RESULTS, ids=str)
def test_a_result_that_training_does_not_write_is_named(sweep, change):
    file = sweep / "wide" / "seed-1" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=rf"result\.json: {next(iter(change))}: expected") as refused:
        compare_runs([sweep])
    assert "leave the run out" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change", [{"tensors": 3}, {"tensors": {"a.weight": ""}}, {"test": []}, {"train": 1}]
)
def test_a_record_of_a_design_that_is_broken_pairs_nothing(sweep, change):
    file = sweep / "wide" / "seed-1" / "design.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    (sweep / "plain" / "seed-0" / "versions.json").write_text("null")
    comparison = compare_runs([sweep])
    assert comparison.against[0].unpaired == "how the runs began was not recorded"
    assert any("no whole record of their test images" in note for note in comparison.notes)


def test_memory_and_speed_stand_beside_quality_where_runs_have_them(tmp_path):
    assert "peak memory, MiB" not in rows_of(compare_runs([fake_sweep(tmp_path / "old", plain=A, wide=B)]))[0]
    for seed, (a, b) in enumerate(zip(A, B, strict=True)):
        fake_run(
            tmp_path / "new" / f"a{seed}",
            a,
            seed=seed,
            overrides=["name=a"],
            peak_memory_mib=500.0 + 2 * seed,
        )
        more = dict(peak_memory_mib=700.0, test_images_per_second=1000.0)
        fake_run(
            tmp_path / "new" / f"b{seed}", b, seed=seed, overrides=["name=b", "optimizer.lr=0.5"], **more
        )
    rows = rows_of(compare_runs([tmp_path / "new"]))
    assert [row["peak memory, MiB"] for row in rows] == ["503", "700"]
    assert [row["images/s in the test"] for row in rows] == ["-", "1,000"]


def test_measures_of_heads_are_told_where_all_runs_have_them(tmp_path):
    folder = fake_sweep(tmp_path / "sweep", plain=A, wide=B)
    runs = sorted(path.parent for path in folder.rglob("recipe.yaml"))
    assert as_data(compare_runs([folder]))["heads"] == []
    for number, run in enumerate(runs):
        values = {"entropy": [0.25 * (number % 4), 0.25 * (number % 4)], "cka_mean": 0.5}
        layers = [{"values": values}, {"values": values}]
        (run / "heads.json").write_text(
            json.dumps({"images": {"split": "test", "count": 9}, "layers": layers})
        )
    rows = as_data(compare_runs([folder]))["heads"]
    assert rows == [
        {"measure": "entropy", "plain": "0.375 (0 to 0.75)", "wide": "0.375 (0 to 0.75)"},
        {"measure": "CKA of outputs", "plain": "0.5 (0.5 to 0.5)", "wide": "0.5 (0.5 to 0.5)"},
    ]
    (runs[0] / "heads.json").write_text(
        json.dumps({"images": {"split": "train", "count": 9}, "layers": layers})
    )
    assert as_data(compare_runs([folder]))["heads"] == []
