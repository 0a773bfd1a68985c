"""Runs that many tests compare with are made once."""

import ledger
import pytest
import torch
from runs import tiny_recipe

from crosshead.train import train


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def unstopped(tmp_path_factory):
    """The folder of the tiny run, never interrupted."""
    folder = tmp_path_factory.mktemp("unstopped") / "run"
    assert train(tiny_recipe(), folder=folder).status == "finished"
    return folder


def pytest_terminal_summary(terminalreporter):
    if ledger.FAULTS:
        terminalreporter.section("faults")
        terminalreporter.write_line(ledger.table())
