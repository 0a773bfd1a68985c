"""The report of every picture."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_files import encoded, picture, write_class_folders
from PIL import Image

from crosshead.data.tools.check import check_images
from crosshead.recipe.schema import DataConfig
from opening import open_data


def test_digits_are_whole() -> None:
    report = check_images(open_data(DataConfig()))
    assert report.broken == ()
    assert sum(part.total for part in report.splits.values()) == 1797
    assert set(report.splits) == {"train", "validation", "test"}


def test_statistics_are_those_of_all_pixels(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 6, "b": 6})
    grey = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a" / "grey.png")
    report = check_images(open_data(DataConfig(name="folder", root=str(tmp_path), validation=0.5)))
    for name, part in report.splits.items():
        images = open_data(DataConfig(name="folder", root=str(tmp_path), validation=0.5), seed=0).parts()[
            name
        ]
        pixels = np.stack([np.asarray(images.load(i).convert("RGB")) for i in range(len(images))]) / 255
        assert np.allclose(part.mean, pixels.mean((0, 1, 2))) and np.allclose(part.std, pixels.std((0, 1, 2)))
        assert part.sizes == {(16, 12): len(images)}
    assert sum(part.grey for part in report.splits.values()) >= 1
    assert "held out of" in report.splits["validation"].origin


def test_broken_pictures_are_listed_by_path_and_reason_and_the_others_counted(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", {"a": 70, "b": 5})
    write_class_folders(tmp_path / "val", {"a": 2, "b": 2})
    cut = encoded(picture(), "PNG")[:-40]
    (tmp_path / "train" / "a" / "7.png").write_bytes(b"")
    (tmp_path / "train" / "b" / "1.png").write_bytes(cut)
    (tmp_path / "val" / "b" / "0.png").write_bytes(b"text")
    for workers in (0, 1):
        calls: list[tuple[int, ...]] = []
        data = DataConfig(name="folder", root=str(tmp_path), num_workers=workers)
        report = check_images(open_data(data), progress=lambda *now, calls=calls: calls.append(now))
        assert report.splits["train"].counts == (69, 4) and report.splits["validation"].counts == (2, 1)
        assert report.splits["train"].total == 75
        assert [Path(name).relative_to(tmp_path).as_posix() for name, _ in report.broken] == [
            "train/a/7.png",
            "train/b/1.png",
            "val/b/0.png",
        ]
        assert "empty" in report.broken[0][1] and "decoded" in report.broken[1][1]
        assert calls[-1] == (79, 79) and len(calls) == 79


def test_a_worker_that_dies_costs_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path, {"a": 70, "b": 70})
    splits = open_data(DataConfig(name="folder", root=str(tmp_path), validation=0.5))
    whole, own = check_images(splits), os.getpid()
    load = type(splits.train).load

    def load_or_die(images: Any, i: int) -> Image.Image:
        if os.getpid() != own and i == 65:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(images, i)

    monkeypatch.setattr(type(splits.train), "load", load_or_die)
    with pytest.warns(RuntimeWarning, match="was killed.*The rest is read without them"):
        assert check_images(splits, workers=1) == whole
