"""``crosshead export`` to ONNX, and ``crosshead predict`` on such a file where there is no PyTorch."""

import contextlib
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import crosshead
import crosshead.data.datasets.scenes as scenes
from crosshead.cli import main
from crosshead.data.coco.rle import decode, parse
from map_files import map_folder

# What a machine that runs exported files need not have.
ABSENT = (
    "torch", "torchvision", "timm", "pydantic", "yaml", "rich", "scipy", "sklearn", "matplotlib", "safetensors",
    "onnx", "onnxscript",
)  # fmt: skip
TINY = [
    "model.args.depths=[1,1,1]", "model.args.dims=[8,12,16]", "model.args.num_heads=[1,2,2]", "train.steps=2",
    "train.device=cpu", "log.tensorboard=false", "schedule.warmup_steps=0",
]  # fmt: skip


def without_torch(*words):
    """A command's exit code, output and messages in a process that has NumPy, Pillow and ONNX Runtime alone."""
    code = f"""
import sys
sys.argv = ["crosshead", *{[str(word) for word in words]}]
sys.modules |= dict.fromkeys({ABSENT})
from crosshead.cli import main
from crosshead.data.coco.rle import decode, parse
code = main(sys.argv[1:])
assert not any(name.partition(".")[0] in {ABSENT} and module for name, module in sys.modules.items())
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def answers(capsys, *words):
    capsys.readouterr()
    assert main(["predict", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Pictures that are resized, cut, grey, and in colour."""
    folder = tmp_path_factory.mktemp("digits")
    for i, values in enumerate(load_digits().images[:4]):
        picture = Image.fromarray(np.round(values * 255 / 16).astype(np.uint8))
        picture = picture.resize([(8, 8), (31, 20), (5, 9), (64, 64)][i])
        (picture.convert("RGB") if i == 3 else picture).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """A run's file, and what the command said."""
    file = tmp_path_factory.mktemp("exported") / "plain.onnx"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["export", str(run), "--out", str(file)]) == 0
    return file, said.getvalue()


def test_a_file_answers_as_the_run_does_without_torch(run, exported, digits, tmp_path, capsys):
    want = answers(capsys, run, digits, "--top", "10")
    options = ["--normalize", "--softmax", "--dynamic", "none"]
    assert main(["export", str(run), "--out", str(tmp_path / "whole.onnx"), *options]) == 0
    for file, told in (exported, (tmp_path / "whole.onnx", capsys.readouterr().out)):
        assert "validation pictures, in batches of 1" in told and "1 x 10" in told
        code, out, said = without_torch("predict", file, digits, "--top", "10", "--json")
        assert code == 0, said
        for got, expected in zip(json.loads(out), want, strict=True):
            assert got["image"] == expected["image"]
            found = {each["class"]: each["probability"] for each in got["predictions"]}
            assert found == pytest.approx(
                {each["class"]: each["probability"] for each in expected["predictions"]}, abs=1e-4
            )
    code, out, _ = without_torch("predict", exported[0], digits / "0.png", "--top", "2")
    assert code == 0 and out.splitlines()[1].split()[1] in "0123456789" and len(out.splitlines()) == 3


def test_int8_is_judged_on_the_validation_pictures(run, tmp_path, capsys):
    assert main(["export", str(run), "--out", str(tmp_path / "d.onnx"), "--precision", "int8"]) == 0
    told = capsys.readouterr().out
    assert "in int8: " in told and "on the validation pictures: accuracy " in told and "% in int8" in told


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmented")
    root = map_folder(folder / "data", count=8)
    (folder / "own.yaml").write_text(
        "base: shared/segment\nmodel:\n  segmenter: {name: semantic_fpn, width: 32, pyramid: {width: 8}}\n"
    )
    words = [
        "data.name=map-folder", "data.image_size=32", "data.eval_resize=40", "data.batch_size=4",
        "data.validation=0.25",
        "model.name=ivit_tiny", "model.args.attention_stages=[2]", "model.args.landmarks=2", f"data.root={root}",
    ]  # fmt: skip
    assert main(["train", str(folder / "own.yaml"), *TINY, *words, "--output", str(folder)]) == 0
    return folder / "own", root / "images"


@pytest.mark.soak
def test_a_segmenters_file_gives_the_runs_maps_of_any_size(segmented, tmp_path, capsys, fails):
    run, images = segmented
    (more := tmp_path / "more").mkdir()
    Image.open(images / "1.png").convert("RGB").resize((75, 41)).save(more / "wide.png")
    Image.open(images / "2.png").convert("RGB").resize((30, 97)).save(more / "tall.png")
    want = answers(capsys, run, more, images / "1.png")
    file = tmp_path / "s.onnx"
    assert main(["export", str(run), "--out", str(file), "--dynamic", "batch,size"]) == 0
    assert "height and width multiples of 16" in capsys.readouterr().out
    code, out, said = without_torch("predict", file, more, images / "1.png", "--json")
    assert code == 0, said
    for got, expected in zip(json.loads(out), want, strict=True):
        assert got["size"] == expected["size"]
        # Two classes that are alike likely, to the last bit, may change places in a pixel.
        shares = {each["class"]: each["share"] for each in got["segments"]}
        assert shares == pytest.approx(
            {each["class"]: each["share"] for each in expected["segments"]}, abs=2e-3
        )
    assert "padded" in fails("export", run, "--out", tmp_path / "n.onnx", "--dynamic", "size", "--normalize")
    assert "--softmax is for classifiers" in fails("export", run, "--out", tmp_path / "n.onnx", "--softmax")


@pytest.mark.soak
def test_a_dense_detectors_file_finds_the_runs_objects(tmp_path, capsys, monkeypatch, fails):
    monkeypatch.setattr(scenes, "LENGTHS", {"train": 8, "validation": 3, "test": 4})
    words = [*TINY, "data.batch_size=4", "task.score_threshold=0", "model.detector.pyramid.width=8"]
    words += ["model.detector.score_threshold=0.0", "model.detector.norm=true"]
    assert main(["train", "scenes_retinanet", *words, "--output", str(tmp_path)]) == 0
    run, file = tmp_path / "scenes_retinanet", tmp_path / "d.onnx"
    scene, _ = scenes.Scenes("test", (96, 96), 0).scene(0)
    scene.save(tmp_path / "a.png")
    scene.resize((130, 84)).save(tmp_path / "b.png")
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    want = answers(capsys, run, *pictures, "--top", "20")
    assert main(["export", str(run), "--out", str(file), "--dynamic", "batch,size"]) == 0
    code, out, said = without_torch("predict", file, *pictures, "--json", "--top", "20")
    assert code == 0, said
    for got, expected in zip(json.loads(out), want, strict=True):
        assert got["size"] == expected["size"] and len(got["objects"]) == len(expected["objects"]) > 0
        for one, other in zip(got["objects"], expected["objects"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)
            assert one["bbox"] == pytest.approx(other["bbox"], abs=0.05)
    capsys.readouterr()
    assert main(["export", str(run), "--out", str(tmp_path / "i.onnx"), "--precision", "int8"]) == 0
    told = capsys.readouterr().out
    assert "on the validation pictures: box AP " in told and "% in int8" in told, told


@pytest.mark.soak
def test_a_two_stage_detectors_file_finds_the_runs_objects_and_masks(tmp_path, capsys, monkeypatch, fails):
    monkeypatch.setattr(scenes, "LENGTHS", {"train": 8, "validation": 3, "test": 4})
    words = [*TINY, "data.batch_size=4", "task.score_threshold=0", "model.detector.pyramid.width=8"]
    words += ["model.detector.score_threshold=0.0", "model.detector.mask_layers=[8]"]
    assert main(["train", "scenes_mask_rcnn", *words, "--output", str(tmp_path)]) == 0
    run, file = tmp_path / "scenes_mask_rcnn", tmp_path / "d.onnx"
    scene, _ = scenes.Scenes("test", (96, 96), 0).scene(0)
    scene.save(tmp_path / "a.png")
    scene.resize((96, 84)).save(tmp_path / "b.png")
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    want = answers(capsys, run, *pictures, "--top", "20")
    assert "images of one size" in fails("export", run, "--out", file, "--dynamic", "batch,size")
    assert main(["export", str(run), "--out", str(file)]) == 0
    assert re.search(r"the same [1-9][\d,]* objects", capsys.readouterr().out)
    code, out, said = without_torch("predict", file, *pictures, "--json", "--top", "20")
    assert code == 0, said
    for got, expected in zip(json.loads(out), want, strict=True):
        assert got["size"] == expected["size"] and len(got["objects"]) == len(expected["objects"]) > 0
        for one, other in zip(got["objects"], expected["objects"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)
            assert one["bbox"] == pytest.approx(other["bbox"], abs=0.01)
            masks = [decode(parse(each["segmentation"], tuple(got["size"]))) for each in (one, other)]
            assert (masks[0] != masks[1]).sum() <= 2


def test_what_does_not_go_is_one_line(run, exported, digits, tmp_path, fails, capsys):
    file, picture = exported[0], digits / "0.png"
    for words, said in (
        (("export", run, "--out", tmp_path / "d.png"), "ends in .onnx or .pt2"),
        (("export", run, "--to", "pt2", "--out", tmp_path / "e.onnx"), "ends in .pt2"),
        (("export", run, "--out", file), "is there already"),
        (("export", run, "--out", tmp_path / "e.onnx", "--dynamic", "width"), "--dynamic: expected"),
        (("export", run, "--out", tmp_path / "e.onnx", "--size", "9x9"), "leave --size out"),
        (("export", run, "--out", tmp_path / "e.onnx", "--dynamic", "size"), "no size varies"),
        (("export", run, "--out", tmp_path / "e.pt2", "--softmax"), "are for ONNX files"),
        (("export", tmp_path, "--out", tmp_path / "e.onnx"), "no folder of a run"),
        (("predict", file, picture, "--out", tmp_path), "--out is for a run"),
        (("predict", file, picture, "data.eval_resize=9"), "used as it was exported"),
        (("predict", tmp_path / "no.onnx", picture), "no such file"),
    ):
        assert said in fails(*words)
    (tmp_path / "broken.onnx").write_bytes(file.read_bytes()[:1000])
    assert "can't be opened as an ONNX file" in fails("predict", tmp_path / "broken.onnx", picture)
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:40])
    code, out, said = without_torch("predict", file, tmp_path / "broken.png", picture, "--json")
    assert code == 2 and "1 of 2 pictures could not be read" in said and json.loads(out)[0]["error"]
    assert not (tmp_path / "e.onnx").exists()


def test_a_saved_model_goes_too(tmp_path, capsys):
    import timm

    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=2, num_classes=3
    )
    crosshead.swap_attention(model, "talking")
    crosshead.save(model, tmp_path / "mine", classes=["a", "b", "c"])
    assert main(["export", str(tmp_path / "mine"), "--out", str(tmp_path / "m.onnx")]) == 0
    assert "batch x 3 x 32 x 32" in capsys.readouterr().out
