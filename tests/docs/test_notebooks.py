"""The notebooks run to the last cell, with three steps in place of a dozen epochs and nothing fetched."""

import pytest

from doc_blocks import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))

SHORT = {
    "KEYS": "train.steps=3 schedule.warmup_steps=1 model.args.depth=2",
    "SEEDS": "0",
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "agg",
}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, monkeypatch, capsys):
    for name, value in SHORT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read when it was imported
    exec(compile(notebook.read_text(), str(notebook), "exec"), {"__name__": "__main__"})
    assert "attention modules replaced" in capsys.readouterr().out
