"""``crosshead embed``: pooled features of a folder's pictures in files."""

import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from crosshead.cli import main
from crosshead.cli.embedding_files import write_embeddings
from crosshead.train.inference import load_run


@pytest.fixture
def pictures(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("b/one.png", "a/two.png", "a/three.png"):
        file = tmp_path / "pictures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), np.uint8)).save(file)
    return tmp_path / "pictures"


def test_a_runs_embeddings_are_what_its_classifier_gets(run, pictures, tmp_path, capsys):
    out = tmp_path / "found.npz"
    assert main(["embed", str(run), str(pictures), "--out", str(out), "--batch-size", "2"]) == 0
    assert "3 pictures, " in capsys.readouterr().out
    found = np.load(out)
    assert found["names"].tolist() == ["a/three.png", "a/two.png", "b/one.png"]
    assert found["labels"].tolist() == ["a", "a", "b"] and str(found["model"]) == str(run)
    trained = load_run(run)
    images = torch.stack([trained.task.preprocess(Image.open(pictures / name)) for name in found["names"]])
    with torch.inference_mode():
        wanted = trained.model(images)
        got = trained.model.head(torch.from_numpy(found["embeddings"]))
    assert torch.allclose(got, wanted, atol=1e-5)


def test_a_timm_model_with_weights_and_pictures_without_labels(pictures, tmp_path):
    name = "vit_tiny_patch16_224"
    save_file(timm.create_model(name).state_dict(), tmp_path / "weights.safetensors")
    words = ["embed", name, str(pictures / "a"), "--weights", str(tmp_path / "weights.safetensors")]
    assert main([*words, "--out", str(tmp_path / "found.npz")]) == 0
    found = np.load(tmp_path / "found.npz")
    assert found["embeddings"].shape == (2, 192) and "labels" not in found


def test_a_broken_picture_is_named_and_the_rest_written(run, pictures, tmp_path, capsys):
    (pictures / "a" / "broken.png").write_bytes(b"no picture")
    assert main(["embed", str(run), str(pictures), "--out", str(tmp_path / "found.npz")]) == 1
    assert "broken.png: " in capsys.readouterr().err
    assert len(np.load(tmp_path / "found.npz")["names"]) == 3


def test_parquet_has_a_row_a_picture(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is optional and not installed here")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_embeddings(tmp_path / "found.parquet", values, ["x.png", "y.png"], ["a", "b"], "m")
    table = parquet.read_table(tmp_path / "found.parquet")
    assert table.column_names == ["name", "label", "embedding"]
    assert table["embedding"].to_pylist() == values.tolist() and table.schema.metadata[b"model"] == b"m"


def test_mistakes_are_one_line(fails, run, pictures, tmp_path, monkeypatch):
    assert "--out: expected FILE.npz" in fails("embed", run, pictures)
    assert "ends in .npz or .parquet" in fails("embed", run, pictures, "--out", "x.csv")
    assert "there is no folder" in fails("embed", run, pictures, "--out", tmp_path / "no" / "x.npz")
    assert "expected a folder" in fails("embed", run, pictures / "a" / "two.png", "--out", tmp_path / "x.npz")
    assert "neither the folder of a run" in fails("embed", "nothing", pictures, "--out", tmp_path / "x.npz")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in fails("embed", run, pictures, "--out", tmp_path / "x.parquet")
    assert not list(tmp_path.glob("*x.*"))
