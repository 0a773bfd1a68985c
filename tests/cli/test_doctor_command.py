"""``crosshead doctor`` on a whole and on a damaged run."""

import json
import shutil

from crosshead.cli import main


def test_a_whole_run_is_healthy(run, capsys):
    capsys.readouterr()
    assert main(["doctor", str(run), "--images"]) == 0
    said = capsys.readouterr().out
    assert "newest good checkpoint: " in said and "the run is finished" in said


def test_damage_is_named_and_the_code_says_so(run, tmp_path, capsys):
    hurt = shutil.copytree(run, tmp_path / "hurt", symlinks=True)
    newest = sorted((hurt / "checkpoints").iterdir())[-1]
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    capsys.readouterr()
    assert main(["doctor", str(hurt), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    errors = [finding for finding in report["findings"] if finding["level"] == "error"]
    assert any(str(newest) == finding["subject"] and "damaged" in finding["message"] for finding in errors)
    assert report["newest_good"] != str(newest)


def test_what_is_no_run_is_one_clean_line(fails, tmp_path):
    assert "holds no run" in fails("doctor", tmp_path)
    assert "is not a folder" in fails("doctor", tmp_path / "nowhere")
    assert "nothing to examine" in fails("doctor")
