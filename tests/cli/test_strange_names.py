"""Names in files may be anyone's: none steers a terminal, breaks a line or is a formula."""

import csv
import json

import pytest
from PIL import Image

from cli.conftest import SHORT
from coco_files import coco_folder
from crosshead.cli import main
from crosshead.files import printable

NAME = "\x1b[31mred\x07\n\u202egnp\x9b"


def test_what_steers_a_terminal_is_escaped_as_in_json():
    assert printable("a\x1b[2J\r\n\u202e\x85") == "a\\u001b[2J\\u000d\\u000a\\u202e\\u0085"
    assert printable("åß 日本 \u200d a\n", keep="\n") == "åß 日本 \u200d a\n"
    assert json.loads(f'"{printable(NAME)}"') == NAME


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_names_of_classes_and_files_are_printed_in_one_line(tmp_path, capsys, options):
    for name in (NAME, "plain"):
        folder = tmp_path / name.replace("/", "")
        folder.mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
    (tmp_path / NAME / f"{NAME}.png").write_bytes(b"broken")
    assert (
        main(["data", "check", "folder", "--data-path", str(tmp_path), "data.validation=0.4", *options]) == 1
    )
    out, err = capsys.readouterr()
    assert not set(out + err) & {"\x1b", "\x07", "\u202e", "\x9b"}
    said = (out + err).replace("\\\\", "\\")  # JSON doubles the stroke
    assert "\\u001b[31mred\\u0007\\u000a" in said


def test_names_of_categories_are_escaped(tmp_path, capsys):
    file = coco_folder(tmp_path) / "annotations.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = NAME
    file.write_text(json.dumps(content))
    assert main(["data", "check", "coco-folder", "--data-path", str(tmp_path), "data.validation=0.4"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and f"{printable(NAME)} " in out


def test_a_message_with_a_strange_name_is_one_line(tmp_path, capsys):
    assert main(["doctor", str(tmp_path / NAME)]) == 2
    assert main(["train", str(tmp_path / f"{NAME}.yaml")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_no_cell_of_a_table_is_a_formula(tmp_path, capsys):
    for name in ("=1+1", "@b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / "data" / name / f"{i}.png")
    words = ["digits", "data.name=folder", f"data.root={tmp_path / 'data'}", *SHORT, "data.batch_size=2"]
    assert main(["train", *words, "--output", str(tmp_path)]) == 0
    table = tmp_path / "table.csv"
    words = ["eval", str(tmp_path / "digits"), "--split", "validation", "--predictions", str(table)]
    assert main(words) == 0, capsys.readouterr().err
    with open(table, newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'=1+1" in cells and not any(cell.startswith(("=", "@")) for cell in cells)
