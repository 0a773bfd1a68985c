"""Runs of tests whose pictures nobody looks at."""

from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image


def unrendered() -> Any:
    """A context in which matplotlib renders no picture, the third of a tiny run's time; files are written as ever."""
    blank = BytesIO()
    Image.new("RGB", (1, 1)).save(blank, "PNG")

    def save(self: Any, file: Any, **options: Any) -> None:
        write = Path(file).write_bytes if isinstance(file, str | Path) else file.write
        write(blank.getvalue())

    return patch("matplotlib.figure.Figure.savefig", save)
