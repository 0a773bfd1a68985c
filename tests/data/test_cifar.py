"""CIFAR's pickles, as Python 2 wrote them and as Python 3 does; and hostile ones."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from crosshead.data.base import ArrayImages
from crosshead.data.datasets.cifar import read_pickle
from crosshead.recipe.schema import DataConfig
from opening import open_data


def python2_pickle(content: dict[bytes, Any]) -> bytes:
    """What cPickle of Python 2 writes at protocol 2, opcode by opcode: byte strings, NumPy 1's module names."""

    def value(item: Any) -> bytes:
        if isinstance(item, bytes):
            return b"U" + bytes([len(item)]) + item
        if isinstance(item, int):
            return b"K" + bytes([item])
        if isinstance(item, list):
            return b"](" + b"".join(map(value, item)) + b"e"
        assert isinstance(item, np.ndarray)
        raw = item.tobytes()
        shape = b"".join(b"M" + struct.pack("<H", size) for size in item.shape)
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            + b"(K\x01" + shape + b"\x86"
            + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            + b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb"
        )  # fmt: skip

    return b"\x80\x02}(" + b"".join(value(key) + value(item) for key, item in content.items()) + b"u."


def python3_pickle(content: dict[bytes, Any]) -> bytes:
    return pickle.dumps({key.decode(): item for key, item in content.items()}, protocol=2)


WRITERS = {"python 2": python2_pickle, "python 3": python3_pickle}


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar10(root: Path, write: Any = python2_pickle) -> np.ndarray:
    """Five batches of 20 and a test batch of 20, in CIFAR-10's layout; gives the training rows."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    labels = [i % 10 for i in range(20)]
    for i in range(1, 7):
        name = f"data_batch_{i}" if i < 6 else "test_batch"
        files = [b"x_%d.png" % i] * 20
        body = {b"batch_label": name.encode(), b"labels": labels, b"data": rows(20, i), b"filenames": files}
        (folder / name).write_bytes(write(body))
    names = [b"class %d" % i for i in range(10)]
    (folder / "batches.meta").write_bytes(write({b"num_cases_per_batch": 20, b"label_names": names}))
    return np.concatenate([rows(20, i) for i in range(1, 6)])


def write_cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, count in {"train": 200, "test": 100}.items():
        fine = [i % 100 for i in range(count)]
        body = {b"fine_labels": fine, b"coarse_labels": [i // 5 for i in fine], b"data": rows(count, 1)}
        (folder / name).write_bytes(python2_pickle(body))
    names = [b"fine %d" % i for i in range(100)]
    (folder / "meta").write_bytes(
        python2_pickle({b"fine_label_names": names, b"coarse_label_names": names[:20]})
    )


def config(root: Path, name: str = "cifar10") -> DataConfig:
    return DataConfig(name=name, root=str(root), image_size=32, validation=0.2)


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_cifar10_is_read_as_torchvision_reads_it(
    tmp_path: Path, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, WRITERS[writer])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda self: None)
    want = torchvision.datasets.CIFAR10(str(tmp_path), train=True)
    splits = open_data(config(tmp_path), seed=0)
    assert splits.test is not None and isinstance(splits.train, ArrayImages)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (80, 20, 20)
    for i, number in enumerate(splits.train.ids):
        image, target = want[number]
        assert splits.train.targets[i] == target
        assert (np.asarray(splits.train.load(i)) == np.asarray(image)).all()
    assert splits.info.class_names == tuple(f"class {i}" for i in range(10))


def test_cifar100_has_its_fine_classes(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    splits = open_data(config(tmp_path / "cifar-100-python", "cifar100"), seed=0)
    assert len(splits.info.class_names) == 100 and splits.info.class_names[7] == "fine 7"
    assert splits.test is not None and list(splits.test.targets) == list(range(100))


def test_missing_files_are_named_with_the_layout(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3 missing; expected ROOT/cifar-10-batches-py/"):
        open_data(config(tmp_path), seed=0)
    with pytest.raises(ValueError, match="train, test, meta missing"):
        open_data(config(tmp_path, "cifar100"), seed=0)


class Evil:
    """Creates a file when it is unpickled by anything that obeys."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, protocol: int) -> None:
    trap, file = tmp_path / "trap", tmp_path / "data_batch_1"
    file.write_bytes(pickle.dumps({"data": Evil(trap)}, protocol=protocol))
    with pytest.raises(ValueError, match=r"data_batch_1: .* asks for posix.mkdir.* may be hostile"):
        read_pickle(file)
    assert not trap.exists()
    pickle.loads(file.read_bytes())
    assert trap.exists(), "the trap works where it is obeyed"


def test_other_ways_to_reach_code_are_closed_too(tmp_path: Path) -> None:
    file = tmp_path / "data_batch_1"
    for module, name in (
        ("builtins", "eval"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "scalar"),
        ("os", "system"),
    ):
        file.write_bytes(b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x01\x00\x00\x001\x85R.")
        with pytest.raises(ValueError, match=f"asks for {module}.{name}"):
            read_pickle(file)


def test_arrays_that_lie_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "data_batch_1"
    honest = python2_pickle({b"data": rows(2, 0)})
    cases = {
        "larger than its bytes": honest.replace(b"M\x02\x00M\x00\x0c", b"M\xff\xffM\x00\x0c"),
        "of objects": honest.replace(b"U\x02u1", b"U\x02O8"),
        "cut short": honest[:-500],
        "no dictionary": b"\x80\x02]q\x00.",
        "empty": b"",
    }
    for body in cases.values():
        file.write_bytes(body)
        with pytest.raises(ValueError, match=r"data_batch_1: "):
            read_pickle(file)


def test_labels_and_pixels_that_disagree_are_an_error(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    for labels, message in (
        ([1] * 19, r"\(20, 3072\) pixels and 19 labels"),
        ([10] * 20, "not classes 0 ... 9"),
    ):
        file.write_bytes(python2_pickle({b"labels": labels, b"data": rows(20, 0)}))
        with pytest.raises(ValueError, match=message):
            open_data(config(tmp_path), seed=0)
    file.write_bytes(python2_pickle({b"fine_labels": [1] * 20, b"data": rows(20, 0)}))
    with pytest.raises(ValueError, match="no 'labels' in it"):
        open_data(config(tmp_path), seed=0)
