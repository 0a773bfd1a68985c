"""One short run that the tests of the command line look at."""

from contextlib import nullcontext

import pytest

from crosshead.cli import main
from rendering import unrendered

SHORT = [
    "train.epochs=2",
    "data.validation=0.1",
    "schedule.warmup_epochs=0",
    "train.device=cpu",
    "log.every_steps=1",
]


@pytest.fixture(autouse=True, scope="module")
def _unrendered(request):
    """Pictures are rendered in files that look at them, and say so by ``RENDERED``."""
    with nullcontext() if getattr(request.module, "RENDERED", False) else unrendered():
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a finished run on digits, two epochs long."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["train", "digits_mohsa", *SHORT, "--output", str(runs)]) == 0
    return runs / "digits_mohsa"


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail as a user's mistake does, and returns its message."""

    def fails(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:
            code = exit.code
        message = capsys.readouterr().err
        assert code == 2, message
        assert message.count("\n") == 1 and message.startswith("crosshead"), message
        return message

    return fails
