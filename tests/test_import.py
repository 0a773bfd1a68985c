"""Importing the package puts the models into timm's registry; its command line brings in nothing heavy too early."""

import subprocess
import sys

import pytest

import crosshead
from crosshead import cli
from crosshead.cli import main
from crosshead.libraries import mismatch, need

ORDERS = [
    "import timm, crosshead",
    "import crosshead; from timm.models import vision_transformer; import timm",
    "from crosshead import swap_attention; import timm",
    "import crosshead.swap, timm",
    "import crosshead.models.vit, timm",
]


def said(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_models_are_registered_in_whatever_order_one_imports():
    """One process after another would take half a minute: each order is tried in a fork."""
    tries = "\n".join(
        f"""
if os.fork() == 0:
    {order}
    assert timm.is_model("mohsa_vit_tiny_patch16_224"), {order!r}
    os._exit(0)
assert os.wait()[1] == 0, {order!r}
"""
        for order in ORDERS
    )
    said(f"import os, sys, torch, torchvision\n{tries}")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["trian"], ["train", "digts"]])
def test_help_and_a_typo_need_no_torch(words):
    for program in ("/usr/bin/crosshead", "-m"):
        code = f"""
import sys
sys.argv = [{program!r}, *{words}]
from crosshead import cli
from crosshead.cli import main
try:
    main({words})
except SystemExit:
    pass
print("torch" in sys.modules, "timm" in sys.modules)
"""
        assert said(code).splitlines()[-1] == "False False"


def test_python_m_needs_no_torch():
    code = [sys.executable, "-X", "importtime", "-m", "crosshead", "--help"]
    run = subprocess.run(code, check=True, capture_output=True, text=True)
    assert "usage: crosshead" in run.stdout
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "crosshead.cli" in imported and not {"torch", "timm"} & imported


def test_nothing_watches_imports():
    """Whoever imports crosshead finds the import system as it was."""
    code = "import sys; before = list(sys.meta_path); import crosshead; print(sys.meta_path[: len(before)] == before)"
    assert said(code).split()[-1] == "True"


def test_every_public_name_is_there():
    for name in crosshead.__all__:
        assert getattr(crosshead, name).__name__ == name
        assert name in dir(crosshead)
    with pytest.raises(AttributeError, match="no attribute 'swap_atention'"):
        _ = crosshead.swap_atention


def test_a_name_that_goes_still_serves_and_warns():
    with pytest.warns(FutureWarning, match="overlapped_attention"):
        assert callable(crosshead.overlapped_window_attention)
    with pytest.warns(FutureWarning, match="overlapped_attention_layer"):
        assert callable(crosshead.OverlappedAttention)


def test_a_torchvision_of_another_torch_is_one_sentence(tmp_path, capsys, monkeypatch):
    """Both where a person imports the library and on the command line."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import crosshead"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = run.stderr.splitlines()[-1]
    assert last.startswith("ImportError: torch ") and "were not built for one another; install both" in last

    def broken(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("crosshead.cli.commands.models.run_command", broken)
    assert main(["models"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert mismatch(RuntimeError("CUDA error: out of memory")) is None


def test_a_library_that_is_missing_is_one_line_that_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        need("faster_coco_eval")
    said = cli._message(caught.value)
    assert said is not None and said.endswith("pip install 'crosshead[dense]'")
