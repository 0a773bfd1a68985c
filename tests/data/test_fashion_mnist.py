"""IDX files as published: gzipped or not, whole or damaged."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision

from crosshead.data.base import ArrayImages
from crosshead.data.datasets import fashion_mnist
from crosshead.data.datasets.fashion_mnist import FILES, read_idx
from crosshead.recipe.schema import DataConfig
from opening import open_data


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write(folder: Path, *, packed: bool = False, train: int = 40, test: int = 20) -> np.ndarray:
    """The four files with random pictures; gives those of the training part."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pixels = {"train": rng.integers(0, 256, (train, 28, 28)), "test": rng.integers(0, 256, (test, 28, 28))}
    for part, (images, labels) in FILES.items():
        bodies = {images: idx(pixels[part].astype(np.uint8)), labels: idx(np.arange(len(pixels[part])) % 10)}
        bodies[labels] = idx((np.arange(len(pixels[part])) % 10).astype(np.uint8))
        for name, body in bodies.items():
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(body))
            else:
                (folder / name).write_bytes(body)
    return pixels["train"]


def config(root: Path | None) -> DataConfig:
    return DataConfig(
        name="fashion-mnist", root=None if root is None else str(root), image_size=28, validation=0.25
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inside", ["", "FashionMNIST/raw"])
def test_files_are_read_as_published_and_as_torchvision_leaves_them(
    tmp_path: Path, packed: bool, inside: str
) -> None:
    pixels = write(tmp_path / inside, packed=packed)
    splits = open_data(config(tmp_path), seed=0)
    assert splits.test is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (30, 10, 20)
    assert isinstance(splits.train, ArrayImages)
    for i, number in enumerate(splits.train.ids):
        assert (splits.train.pixels[i, 0].numpy() == pixels[number]).all()
        assert splits.train.targets[i] == number % 10
    assert splits.info.class_names[9] == "Ankle boot"


def test_missing_files_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / FILES["test"][1]).unlink()
    with pytest.raises(ValueError, match=r"no Fashion-MNIST, t10k-labels-idx1-ubyte missing"):
        open_data(config(tmp_path), seed=0)


def test_the_packaged_folder_is_found_under_the_system_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / fashion_mnist.PACKAGED)
    monkeypatch.setattr(fashion_mnist.sys, "prefix", str(tmp_path))
    assert len(open_data(config(None), seed=0).train) == 30


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(root: str, download: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    monkeypatch.setattr(fashion_mnist, "PACKAGED", Path("nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"download failed \(no route to host\): install Debian's"):
        open_data(config(None), seed=0)


def test_damaged_files_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    whole = idx(np.zeros((3, 2, 2), dtype=np.uint8))
    cases = {
        "short": (whole[:-1], "shorter than the 12 bytes"),
        "long": (whole + b"\0", "longer than the 12 bytes"),
        "labels": (idx(np.zeros(3, dtype=np.uint8)), "with 3 dimensions"),
        "cut.gz": (gzip.compress(whole)[:-9], "can't be read"),
        "plain.gz": (whole, "can't be read"),
        "empty": (b"", "not an IDX file"),
        "huge": (whole[:4] + b"\xff" * 12, "above the limit"),
    }
    for name, (body, message) in cases.items():
        path = tmp_path / name
        path.write_bytes(body)
        with pytest.raises(ValueError, match=message) as caught:
            read_idx(path, dimensions=3)
        assert str(path) in str(caught.value)


def test_pictures_and_labels_of_different_number_are_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / FILES["train"][1]).write_bytes(idx(np.zeros(39, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"40 pictures and .* 39 labels"):
        open_data(config(tmp_path), seed=0)
