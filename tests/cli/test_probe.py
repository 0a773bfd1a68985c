"""``crosshead probe`` as a person runs it."""

import json

import pytest

from crosshead.cli import main
from crosshead.cli.commands.probe import numbers

RENDERED = True  # pictures are looked at

TINY = ["keys=4", "--attributes", "1", "--width", "8", "--heads", "4,2", "--steps", "5", "--jobs", "1"]


def test_a_table_a_picture_data_and_a_page(tmp_path, capsys):
    words = ["probe", "recall", *TINY, "--kinds", "plain,talking", "--seeds", "0-1", "--no-controls"]
    assert main([*words, "--page", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "talking, 2 heads" in said and "steps to 90 %" in said and "nothing of photographs" in said
    data = json.loads((tmp_path / "probe.json").read_text())
    assert [len(cell["runs"]) for cell in data["cells"]] == [2] * 4 and data["options"]["attributes"] == 1
    assert (tmp_path / "probe.png").stat().st_size > 5000
    assert (tmp_path / "probe.html").stat().st_size < 1e6


def test_without_a_name_it_lists_the_probes(capsys):
    assert main(["probe"]) == 0
    assert capsys.readouterr().out.startswith("bandwidth")


def test_numbers_are_lists_and_ranges():
    assert numbers("--seeds", "0-2,7") == [0, 1, 2, 7]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recal"], "no probe 'recal'; expected one of"),
        (["recall", "pairs"], "expected one probe, got recall and pairs"),
        (["recall", "--heads", "3"], "3 heads don't divide a width of 16"),
        (["recall", "--seeds", "1-0"], "--seeds: expected numbers like 0-4"),
        (["recall", "keys=many"], "keys=many: expected a whole number"),
        (["recall", "--kinds", "tallking"], "no interaction 'tallking'"),
        (["recall", "--import", "no_such_module_here"], "no_such_module_here"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys):
    assert main(["probe", *words, "--jobs", "1"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
