"""Overlap schedules: the paper's formula, the ways to write one, and what is refused."""

import pytest

from crosshead.layers.schedule import PARADIGMS, OverlapSchedule


@pytest.mark.parametrize("name", PARADIGMS)
@pytest.mark.parametrize("depth", [1, 5, 12])
def test_paradigms_follow_the_formula(name, depth):
    base, divisor = (1 if name.endswith("+1") else 0), (2 if "/2" in name else 1)
    want = []
    for b in range(depth):
        i = depth - 1 - b if name.startswith("reversed") else b
        want.append(i // divisor + base)
    assert OverlapSchedule.parse(name).overlaps(depth, 16) == want


def test_the_eight_paradigms_differ():
    assert len({tuple(OverlapSchedule.parse(name).overlaps(6, 16)) for name in PARADIGMS}) == 8


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        (None, [0, 0, 0, 0]),
        ("none", [0, 0, 0, 0]),
        (3, [3, 3, 3, 3]),
        ("3", [3, 3, 3, 3]),
        ("constant:3", [3, 3, 3, 3]),
        (0.5, [8, 8, 8, 8]),
        ("fraction:0.3", [4, 4, 4, 4]),
        ([0, 2, 4, 16], [0, 2, 4, 16]),
        ("[0, 2, 4, 16]", [0, 2, 4, 16]),
        ("0,2,4,16", [0, 2, 4, 16]),
        (OverlapSchedule.parse("reversed"), [3, 2, 1, 0]),
    ],
)
def test_ways_to_write_one(spec, want):
    schedule = OverlapSchedule.parse(spec)
    assert schedule.overlaps(4, 16) == want
    assert OverlapSchedule.parse(str(schedule)) == schedule


def test_head_width_may_differ_by_block():
    assert OverlapSchedule.parse("fraction:0.5").overlaps(3, [8, 16, 32]) == [4, 8, 16]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("indx", "did you mean 'index'"),
        ("index/3", "one of index, index\\+1"),
        ("constant:-1", "0 or more"),
        (-2, "0 or more"),
        ("constant:two", "got 'constant:two'"),
        ("fraction:1.5", "between 0 and 1, got 1.5"),
        (True, "got True"),
        ([1, "a"], "list of one overlap a block"),
        ("", "got ''"),
    ],
)
def test_what_is_no_schedule(spec, message):
    with pytest.raises(ValueError, match=message):
        OverlapSchedule.parse(spec)


def test_schedule_for_another_depth():
    with pytest.raises(ValueError, match="lists 3 blocks and the model has 4"):
        OverlapSchedule.parse([0, 1, 2]).overlaps(4, 16)


def test_overlap_past_the_head_width():
    with pytest.raises(ValueError, match=r"overlap of 17 in block 17 of 24, whose heads are 16 wide"):
        OverlapSchedule.parse("index").overlaps(24, 16)
