"""Batches: the same for any number of workers, resumable anywhere, robust against broken pictures."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_files import write_class_folders

from crosshead.data.base import ArrayImages, Batch, DatasetInfo, FileImages, ImageSet, Splits
from crosshead.data.batching.labelled import EvaluationBatches, TrainingBatches
from crosshead.data.batching.loader import Loader, evaluation_loader, training_loader, worker_advice
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import BrokenImage
from crosshead.recipe.schema import AugmentConfig, DataConfig
from opening import open_data

WHOLE_RECIPE = AugmentConfig()
BATCHED = AugmentConfig(randaugment=None, color_jitter=None, affine_degrees=10)


@pytest.fixture(scope="module")
def digits() -> Splits:
    return open_data(DataConfig(), seed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_class_folders(tmp_path / "train", {"a": 9, "b": 8})
    write_class_folders(tmp_path / "val", {"a": 3, "b": 4})
    return tmp_path


def folder_data(folder: Path, **changes: object) -> DataConfig:
    values = {"name": "folder", "root": str(folder), "image_size": 10, "batch_size": 4, **changes}
    return DataConfig(**values)  # type: ignore[arg-type]


def training(splits: Splits, data: DataConfig, augment: AugmentConfig, **place: int) -> Loader:
    keyed = {name: place.pop(name, default) for name, default in (("seed", 5), ("epoch", 0))}
    return training_loader(TrainingBatches(splits.train, data, augment, splits.info, **keyed), **place)


def evaluation(images: ImageSet, data: DataConfig, info: DatasetInfo, **place: int) -> Loader:
    return evaluation_loader(EvaluationBatches(images, data, info), **place)


def assert_same(got: list[Batch], want: list[Batch]) -> None:
    assert len(got) == len(want) > 0
    for a, b in zip(got, want, strict=True):
        assert a.images.equal(b.images) and a.targets.equal(b.targets) and a.index.equal(b.index)
        assert a.names == b.names and a.skipped == b.skipped


@pytest.mark.parametrize("augment", [WHOLE_RECIPE, BATCHED], ids=["one by one", "batched"])
def test_the_number_of_workers_changes_no_bit(digits: Splits, augment: AugmentConfig) -> None:
    few = Splits(digits.train.subset(np.arange(90)), digits.validation, digits.test, digits.info)
    here = list(training(few, DataConfig(batch_size=16), augment))
    for workers in (1, 2):
        assert_same(list(training(few, DataConfig(batch_size=16, num_workers=workers), augment)), here)


def test_workers_read_files_as_this_process_does(folder: Path) -> None:
    data = folder_data(folder)
    splits = open_data(data, seed=0)
    spread = data.model_copy(update={"num_workers": 2})
    assert_same(list(training(splits, spread, WHOLE_RECIPE)), list(training(splits, data, WHOLE_RECIPE)))
    assert_same(
        list(evaluation(splits.validation, spread, splits.info)),
        list(evaluation(splits.validation, data, splits.info)),
    )


@pytest.mark.filterwarnings("error")
def test_more_workers_than_cores_are_spoken_of_once(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3, 4})
    assert worker_advice(5, 1) is None and worker_advice(2, 2) is None and worker_advice(0, 9) is None
    assert worker_advice(6, 1) == (
        "data.num_workers=6 is more than this machine's 5 cores; data.num_workers=5 asks less of them"
    )
    assert (worker_advice(3, 2) or "").startswith("data.num_workers=3 for each of 2 processes is more than")
    data = DataConfig(num_workers=7)  # no warning of PyTorch's beside it
    assert len(next(iter(evaluation(digits.validation, data, digits.info))).images) == data.batch_size


@pytest.mark.parametrize("augment", [WHOLE_RECIPE, BATCHED], ids=["one by one", "batched"])
def test_a_start_in_the_middle_gives_the_rest_bitwise(digits: Splits, augment: AugmentConfig) -> None:
    few = Splits(digits.train.subset(np.arange(100)), digits.validation, digits.test, digits.info)
    data = DataConfig(batch_size=16)
    whole = list(training(few, data, augment))
    assert_same(list(training(few, data, augment, start=48)), whole[3:])


def test_epochs_and_seeds_differ(digits: Splits) -> None:
    first, again, epoch, seed = (
        next(iter(training(digits, DataConfig(), BATCHED, **place)))
        for place in ({}, {}, {"epoch": 1}, {"seed": 6})
    )
    assert_same([first], [again])
    assert not first.index.equal(epoch.index) and not first.index.equal(seed.index)


def test_two_processes_see_the_unmixed_views_that_one_sees(digits: Splits) -> None:
    augment = BATCHED.model_copy(update={"mixup": 0.0, "cutmix": 0.0})
    alone = list(training(digits, DataConfig(batch_size=32), augment))
    half = DataConfig(batch_size=16)
    parts = [list(training(digits, half, augment, rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == len(alone)
    for whole, left, right in zip(alone, *parts, strict=True):
        assert torch.cat([left.images, right.images]).equal(whole.images)
        assert torch.cat([left.targets, right.targets]).equal(whole.targets)


def test_the_global_generators_are_left_alone(digits: Splits) -> None:
    few = Splits(digits.train.subset(np.arange(40)), digits.validation, digits.test, digits.info)
    for workers in (0, 1):
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[union-attr]
        for _ in training(few, DataConfig(batch_size=8, num_workers=workers), WHOLE_RECIPE):
            pass
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[union-attr]
        assert torch.get_rng_state().equal(before[2])


def test_in_memory_evaluation_is_that_of_the_pictures_one_by_one(digits: Splits) -> None:
    data = DataConfig(eval_batch_size=100)
    assert isinstance(digits.validation, ArrayImages)
    batched = list(evaluation(digits.validation, data, digits.info))

    class OneByOne:
        targets, load, name = digits.validation.targets, digits.validation.load, digits.validation.name
        subset = digits.validation.subset
        __len__ = lambda self: len(digits.validation)  # noqa: E731

    assert_same(list(evaluation(OneByOne(), data, digits.info)), batched)
    assert [len(batch) for batch in batched] == [100, len(digits.validation) - 100]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_evaluation_shares_every_picture_out_once(digits: Splits, world_size: int) -> None:
    loaders = [
        evaluation(digits.validation, DataConfig(), digits.info, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    every = sorted(i for loader in loaders for batch in loader for i in batch.index.tolist())
    assert every == list(range(len(digits.validation)))


def test_too_few_pictures_for_a_batch_are_an_error(folder: Path) -> None:
    data = folder_data(folder, batch_size=18)
    with pytest.raises(ValueError, match=r"17 training images are fewer than one step of 18"):
        training(open_data(data, seed=0), data, WHOLE_RECIPE)


def ruin(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"no picture")


def test_skipping_a_broken_picture_changes_no_other(folder: Path) -> None:
    data = folder_data(folder)
    splits = open_data(data, seed=0)
    augment = WHOLE_RECIPE.model_copy(update={"mixup": 0.0, "cutmix": 0.0})
    whole = list(training(splits, data, augment))
    gone = {whole[1].names[2], whole[3].names[0]}
    ruin(Path("/"), *(name.lstrip("/") for name in gone))
    for workers in (0, 2):
        rest = list(training(splits, data.model_copy(update={"num_workers": workers}), augment))
        assert [len(batch) for batch in rest] == [4, 3, 4, 3]
        assert {name for batch in rest for name, _ in batch.skipped} == gone
        for now, then in zip(rest, whole, strict=True):
            kept = [i for i, name in enumerate(then.names) if name not in gone]
            assert now.images.equal(then.images[kept]) and now.index.equal(then.index[kept])
            assert now.targets.equal(then.targets[kept])


def test_skipping_keeps_the_shares_of_two_processes(folder: Path) -> None:
    data = folder_data(folder, batch_size=2)
    splits = open_data(data, seed=0)
    ruin(folder, "train/a/0.png", "train/b/3.png")
    both = [
        batch for rank in (0, 1) for batch in training(splits, data, WHOLE_RECIPE, rank=rank, world_size=2)
    ]
    assert len(both) == 8
    seen = [name for batch in both for name in (*batch.names, *(name for name, _ in batch.skipped))]
    assert len(seen) == len(set(seen)) == 16


def test_evaluation_fails_at_the_first_broken_picture_and_names_it(folder: Path) -> None:
    ruin(folder, "val/a/1.png")
    for workers in (0, 1):
        data = folder_data(folder, num_workers=workers)
        splits = open_data(data, seed=0)
        with pytest.raises(BrokenImage, match=r"val/a/1\.png: not a picture .*data\.on_broken_eval=skip"):
            list(evaluation(splits.validation, data, splits.info))


def test_policies_can_be_turned_round(folder: Path) -> None:
    ruin(folder, "train/a/1.png", "val/a/1.png")
    data = folder_data(folder, on_broken_train="fail", on_broken_eval="skip", batch_size=17)
    splits = open_data(data, seed=0)
    with pytest.raises(BrokenImage, match=r"train/a/1\.png.*data\.on_broken_train=skip"):
        list(training(splits, data, WHOLE_RECIPE))
    (batch,) = evaluation(splits.validation, data, splits.info)
    assert len(batch) == 6 and batch.skipped[0][0].endswith("val/a/1.png")


def test_more_broken_pictures_than_the_limit_end_the_iteration(folder: Path) -> None:
    ruin(folder, "train/a/0.png", "train/a/1.png", "train/b/2.png")
    data = folder_data(folder, max_broken=3, batch_size=1)
    splits = open_data(data, seed=0)
    assert sum(len(batch) for batch in training(splits, data, WHOLE_RECIPE)) == 14
    strict = data.model_copy(update={"max_broken": 2})
    with pytest.raises(ValueError, match=r"3 broken pictures, above data.max_broken \(2\): .*not a picture"):
        list(training(splits, strict, WHOLE_RECIPE))


def test_a_batch_of_broken_pictures_is_empty_and_keeps_its_place(folder: Path) -> None:
    ruin(folder, *(f"train/a/{i}.png" for i in range(9)), *(f"train/b/{i}.png" for i in range(8)))
    data = folder_data(folder)
    splits = open_data(data, seed=0)
    batches = list(training(splits, data, WHOLE_RECIPE))
    assert [len(batch) for batch in batches] == [0] * 4
    assert batches[0].images.shape == (0, 3, 10, 10) and batches[0].targets.shape == (0,)


class SignalsItself(FileImages):
    """A set whose first pictures send the signals that a whole group would get."""

    def load(self, i: int):  # type: ignore[no-untyped-def]
        if i == 0:
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
        return super().load(i)


def test_workers_outlive_signals_to_the_group(folder: Path) -> None:
    data = folder_data(folder, num_workers=1)
    splits = open_data(data, seed=0)
    assert isinstance(splits.validation, FileImages)
    images = SignalsItself(splits.validation.paths, splits.validation.targets, Decoding())
    assert sum(len(batch) for batch in evaluation(images, data, splits.info)) == 7
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


LEFT = """
import sys
from crosshead.data.datasets.registry import open_splits
from crosshead.data.batching.labelled import EvaluationBatches
from crosshead.data.batching.loader import evaluation_loader
from crosshead.recipe.schema import DataConfig
from crosshead.data.datasets.registry import open_splits
from crosshead.data.batching.labelled import EvaluationBatches
from crosshead.data.batching.loader import evaluation_loader
from crosshead.recipe.schema import DataConfig, Recipe

data = DataConfig(num_workers=2, batch_size=16)
splits = open_splits(Recipe(data=data))
held = iter(evaluation_loader(EvaluationBatches(splits.validation, data, splits.info)))
next(held)
sys.exit(3)
"""


def test_a_loader_left_in_the_middle_keeps_no_process_from_its_end() -> None:
    assert subprocess.run([sys.executable, "-c", LEFT], timeout=60).returncode == 3
