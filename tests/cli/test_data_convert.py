"""``crosshead data convert``: what it prints, and what it refuses."""

import json

import pytest

import tool_files
from crosshead.cli import main


def test_it_names_what_was_read_what_is_left_out_and_what_comes_next(tmp_path, capsys):
    source, dest = tool_files.labelme(tmp_path / "in"), tmp_path / "out"
    assert main(["data", "convert", str(source), str(dest)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "LabelMe's JSON: 2 pictures, 5 objects, 3 classes"
    assert "left out: 1 shapes of type line" in "\n".join(lines) and str(source / "p0.json") in "\n".join(
        lines
    )
    assert "all: 2 pictures, 5 objects" in lines and lines[-1].endswith(f"detect_folder data.root={dest}")
    assert main(["data", "check", "coco-folder", "--data-path", str(dest)]) == 0


def test_it_speaks_json(tmp_path, capsys):
    words = [str(tool_files.masks(tmp_path / "in")), str(tmp_path / "out"), "--json", "--validation", "0.4"]
    assert main(["data", "convert", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["to"] == "maps" and told["pictures"] == {"train": 2, "val": 1}
    assert told["left_out"][0]["what"].startswith("grey pixels")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "voce"], "expected one of yolo"),
        (["--tile", "8"], "at least 32"),
        (["--tile", "64", "--overlap", "1"], "a share from 0"),
        (["--to", "maps", "--validation", "0.1"], "has a validation split"),
        (["--classes", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, fails, words, said):
    assert said in fails("data", "convert", tool_files.yolo(tmp_path / "in"), tmp_path / "out", *words)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, fails):
    source = tool_files.yolo(tmp_path / "in")
    assert "in it already" in fails("data", "convert", source, source)
