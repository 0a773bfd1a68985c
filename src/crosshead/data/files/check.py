"""Reads every picture of a data set and says what is there and what is broken."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from crosshead.data.files.images import BrokenImage
from crosshead.data.sets.catalog import open_splits
from crosshead.data.sets.common import DatasetInfo, ImageSet
from crosshead.recipe.schema import DataConfig

CHUNK = 64


@dataclass(frozen=True)
class SplitReport:
    """``counts`` whole pictures by class index; ``broken`` (name, reason), in the order of the split."""

    counts: tuple[int, ...]
    broken: tuple[tuple[str, str], ...]

    @property
    def total(self) -> int:
        return sum(self.counts) + len(self.broken)


@dataclass(frozen=True)
class CheckReport:
    """What ``check_images`` found: the data set and a report for each of its splits, by name."""

    info: DatasetInfo
    splits: dict[str, SplitReport]

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        return tuple(entry for split in self.splits.values() for entry in split.broken)


def check_images(
    data: DataConfig, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Decodes every picture of every split, in ``data.num_workers`` processes; ``progress(done, total)``.

    Raises:
        ValueError: the data set as a whole can't be opened.
    """
    splits = open_splits(data, seed=seed)
    found = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    parts = {name: images for name, images in found.items() if images is not None}
    total, done = sum(len(images) for images in parts.values()), 0
    reports = {}
    for name, images in parts.items():
        counts, broken = [0] * len(splits.info.class_names), []
        for i, reason in _verdicts(images, data.num_workers):
            if reason is None:
                counts[images.targets[i]] += 1
            else:
                broken.append((images.name(i), reason))
            done += 1
            if progress is not None:
                progress(done, total)
        reports[name] = SplitReport(tuple(counts), tuple(broken))
    return CheckReport(splits.info, reports)


class _Chunks(Dataset[list[tuple[int, str | None]]]):
    """Runs of ``CHUNK`` pictures, each with what is wrong with it."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return -(-len(self.images) // CHUNK)

    def __getitem__(self, chunk: int) -> list[tuple[int, str | None]]:
        begin = chunk * CHUNK
        return [(i, self._reason(i)) for i in range(begin, min(begin + CHUNK, len(self.images)))]

    def _reason(self, i: int) -> str | None:
        try:
            self.images.load(i)
        except BrokenImage as broken:
            return broken.reason
        return None


def _verdicts(images: ImageSet, workers: int) -> Iterator[tuple[int, str | None]]:
    for chunk in DataLoader(_Chunks(images), batch_size=None, num_workers=workers):
        yield from chunk
