"""Names of classes in the confusion matrix: whole, and to be told apart whatever fonts there are."""

import numpy as np
import pytest
from PIL import Image

from crosshead.train.logging import confusion


@pytest.mark.filterwarnings("error")
def test_labels_are_whole_and_letters_without_a_font_are_escaped(tmp_path, monkeypatch, rendered):
    monkeypatch.setattr(confusion, "_families", lambda: ["DejaVu Sans"])
    confusion._characters.cache_clear()
    assert confusion._written("a猫ß") == "a\\u732bß"
    names = ["猫" * 12, "ネコ", "a" * 30]
    details = {
        "confusion": np.arange(9).reshape(3, 3).tolist(),
        "classes": [{"class": name} for name in names],
        "split": "test",
    }
    drawn = np.asarray(Image.open(confusion.draw_confusion(details, tmp_path / "drawn.png")).convert("L"))
    for border in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert (border == 255).all()
    assert (drawn[:, :60] < 128).any(), "the label of the rows"
    confusion._characters.cache_clear()
