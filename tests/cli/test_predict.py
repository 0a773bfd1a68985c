"""``crosshead eval`` and ``crosshead predict`` on a run."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from crosshead.cli import main
from crosshead.tasks import ClassifyTask


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with three digits as pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, pixels in enumerate(load_digits().images[:3]):
        Image.fromarray(np.round(pixels * 255 / 16).astype(np.uint8)).save(folder / f"digit-{i}.png")
    return folder


def test_several_views_of_a_classifier(run, pictures, capsys):
    capsys.readouterr()
    assert main(["eval", str(run), "--tta", "scales"]) == 0
    assert "3 views a picture, 3 times the pixels" in capsys.readouterr().out
    assert main(["predict", str(run), str(pictures), "task.tta=[flip]", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_judge_chooses_a_temperature_and_eval_and_predict_take_it(run, pictures, capsys, fails):
    capsys.readouterr()
    assert "nothing was chosen for this run so far" in fails("predict", run, pictures, "--judged")
    assert main(["judge", str(run), "--pictures", "3"]) == 0
    said = capsys.readouterr().out
    temperature = json.loads((run / "judging.json").read_text())["temperature"]
    assert (
        f"Temperature {temperature:g}, chosen on validation pictures" in said
        and said.count(", taken for") == 3
    )
    found = []
    for words in ([], [f"task.temperature={temperature}"]):
        assert main(["eval", str(run), "--json", *words]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["accuracy"] == found[1]["accuracy"] and found[0]["loss"] != found[1]["loss"]
    assert main(["predict", str(run), str(pictures), "--judged", "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert main(["predict", str(run), str(pictures), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    classes = [
        [each["class"] for each in answer["predictions"]] for answers in (judged, plain) for answer in answers
    ]
    assert classes[:3] == classes[3:] and judged != plain
    assert "task.threshold is 0.5, which is for two classes, and there are 10" in fails(
        "eval", run, "task.threshold=0.5"
    )
    (run / "judging.json").unlink()


def test_eval_repeats_what_the_run_found(run, capsys):
    capsys.readouterr()
    assert main(["eval", str(run), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    found = json.loads((run / "result.json").read_text())["test"]
    assert metrics["accuracy"] == found["accuracy"] and metrics["count"] == 359
    assert main(["eval", str(run), "--split", "validation", "--checkpoint", "last"]) == 0
    assert "validation: accuracy" in capsys.readouterr().out


def test_eval_of_a_checkpoint_is_of_that_checkpoint(run, capsys):
    step = sorted((run / "checkpoints").glob("step-*"))[0]
    number = int(step.name[5:])
    capsys.readouterr()
    assert main(["eval", str(step), "--json"]) == 0
    of_path = json.loads(capsys.readouterr().out)
    assert of_path["checkpoint"] == str(number)
    assert main(["eval", str(run), "--checkpoint", str(number), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == of_path


def test_predict_names_the_classes(run, pictures, capsys):
    capsys.readouterr()
    assert main(["predict", str(run), str(pictures / "digit-0.png"), "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(pictures / "digit-0.png")
    assert len(lines) == 4 and all(line.split()[1] in "0123456789" for line in lines[1:])


def test_predict_searches_folders_and_prints_json(run, pictures, capsys):
    capsys.readouterr()
    assert main(["predict", str(run), str(pictures), "--json", "--top", "99", "--batch-size", "2"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["image"] for answer in answers] == [str(pictures / f"digit-{i}.png") for i in range(3)]
    for answer in answers:
        probabilities = [p["probability"] for p in answer["predictions"]]
        assert len(probabilities) == 10 and probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)  # each is rounded to six digits


def test_predict_goes_on_after_a_broken_picture_and_says_so(run, pictures, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes((pictures / "digit-0.png").read_bytes()[:40])
    capsys.readouterr()
    words = ["predict", str(run), str(broken), str(pictures / "digit-1.png")]
    assert main([*words, "--json"]) == 2
    captured = capsys.readouterr()
    first, second = json.loads(captured.out)
    assert first["image"] == str(broken) and first["error"] and "predictions" in second
    assert "1 of 2 pictures could not be read" in captured.err
    assert main(words) == 2
    assert f"{broken}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predict",), "expected the folder of a run and at least one picture"),
        (("predict", "RUN"), "expected the folder of a run and at least one picture"),
        (("predict", "RUN", "nowhere.png"), "nowhere.png: no such file or folder"),
        (("predict", "RUN", "EMPTY"), "no pictures in this folder"),
        (("predict", "EMPTY", "nowhere.png"), "holds no recipe.yaml; expected the folder of a run"),
        (("predict", "RUN", "PICTURES", "--top", "0"), "--top: expected at least 1, got 0"),
        (("predict", "RUN", "PICTURES", "--checkpoint", "worst"), "'worst'"),
        (("predict", "RUN", "PICTURES", "--device", "cdua"), "'cdua'"),
        (("eval",), "expected the folder of one run, got 0"),
        (("eval", "nowhere"), "nowhere is not there"),
        (("eval", "RUN", "--checkpoint", "99999"), "99999"),
        (("eval", "RUN", "--split", "tset"), "invalid choice: 'tset'"),
    ],
)
def test_a_mistake_is_one_clean_line(words, message, fails, run, pictures, tmp_path):
    places = {"RUN": run, "EMPTY": tmp_path, "PICTURES": pictures}
    assert message in fails(*(places.get(word, word) for word in words))


def test_outputs_that_are_no_numbers_are_no_prediction(run, pictures, monkeypatch, capsys):
    said = ClassifyTask.outputs_of
    monkeypatch.setattr(ClassifyTask, "outputs_of", lambda *given: said(*given) * math.nan)
    assert main(["predict", str(run), str(pictures)]) == 65
    shown = capsys.readouterr()
    assert shown.out.count("\n  -\n") == 3 and "of 3 of 3 pictures nothing can be said" in shown.err
    assert main(["predict", str(run), str(pictures), "--json"]) == 65
    assert [answer["predictions"] for answer in json.loads(capsys.readouterr().out)] == [[], [], []]
