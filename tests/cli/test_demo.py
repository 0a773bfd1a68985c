"""``crosshead demo``: both models are trained, and what is printed is what the runs hold."""

import json
import re

from crosshead.cli import main
from crosshead.cli.commands.demo import free_folder

QUICK = ["train.epochs=1", "schedule.warmup_epochs=0", "data.batch_size=256", "log.tensorboard=false"]


def test_the_demo_compares_what_it_trained(tmp_path, capsys):
    assert main(["demo", *QUICK, "--device", "cpu", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    demo = tmp_path / "demo-1"
    results = {}
    for heads, name in (("plain heads", "digits"), ("overlapped heads", "digits_mohsa")):
        results[heads] = json.loads((demo / name / "result.json").read_text())
        row = next(line for line in said.splitlines() if line.startswith(heads) and "%" in line)
        parameters, _, _, validation, test = row.removeprefix(heads).split()
        assert int(parameters.replace(",", "")) == results[heads]["parameters"]
        assert validation == f"{results[heads]['validation']['accuracy']:.2%}"
        assert test == f"{results[heads]['test']['accuracy']:.2%}"
        assert str(demo / name / "checkpoints") in said
    difference = results["overlapped heads"]["parameters"] - results["plain heads"]["parameters"]
    assert re.search(rf"adds {difference:,} parameters \(\+\d+\.\d%\)", said)
    assert (demo / "curves.png").read_bytes().startswith(b"\x89PNG") and str(demo / "curves.png") in said


def test_a_second_demo_finds_a_folder_of_its_own(tmp_path):
    (tmp_path / "demo-1").mkdir()
    assert free_folder(tmp_path) == tmp_path / "demo-2"


def test_a_mistake_is_one_clean_line(fails, tmp_path):
    assert "the nearest one is 'optimizer.lr'" in fails("demo", "optimizer.lrr=1", "--output", tmp_path)
