"""What the documents show in Python runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def examples():
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for number, code in enumerate(
            re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL), start=1
        ):
            yield pytest.param(code, id=f"{path.name} {number}")


@pytest.mark.parametrize("code", examples())
def test_an_example_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what an example saves
    exec(code, {})
