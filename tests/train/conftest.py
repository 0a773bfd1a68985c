"""Runs that many tests compare with are made once."""

from contextlib import nullcontext

import ledger
import numpy as np
import pytest
import torch
from PIL import Image
from runs import tiny_recipe

from crosshead.train import train
from rendering import unrendered


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _unrendered(request):
    """Runs of tests draw no curves, but for those that ask for ``rendered``, and for the ``unstopped`` run."""
    with nullcontext() if "rendered" in request.fixturenames else unrendered():
        yield


@pytest.fixture
def rendered():
    """Pictures are rendered as they are for users."""


@pytest.fixture(scope="session")
def unstopped(tmp_path_factory):
    """The folder of the tiny run, never interrupted."""
    folder = tmp_path_factory.mktemp("unstopped") / "run"
    assert train(tiny_recipe(), folder=folder).status == "finished"
    return folder


@pytest.fixture(scope="session")
def few_pictures(tmp_path_factory):
    """A ``data`` section of 24 pictures to train on, 8 pixels a side, and 8 each to validate and to test."""
    root = tmp_path_factory.mktemp("few_pictures")
    pixels = np.random.default_rng(0).integers(256, size=(40, 8, 8, 3), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        split = "train" if i < 24 else "val" if i < 32 else "test"
        (folder := root / split / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")
    return {"name": "folder", "root": str(root), "validation": 0.1}


def pytest_terminal_summary(terminalreporter):
    if ledger.FAULTS:
        terminalreporter.section("faults")
        terminalreporter.write_line(ledger.table())
