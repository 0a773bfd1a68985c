"""Packs a data set of files into shards, which move and read faster than a million files."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crosshead.data.base import ImageSet
from crosshead.data.datasets.dense import StoredMaps
from crosshead.data.datasets.dense_shards import describe_dense
from crosshead.data.datasets.registry import open_splits
from crosshead.data.datasets.shards import CLASSES, OBJECTS_SUFFIX, Sample, write_index
from crosshead.data.decode.images import BrokenImage
from crosshead.data.random import permutation
from crosshead.recipe.schema import Recipe

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PackReport:
    """``samples`` and ``shards`` by part; ``broken`` (name, reason) were left out; ``dataset`` reads them."""

    samples: dict[str, int]
    shards: dict[str, int]
    broken: tuple[tuple[str, str], ...]
    dataset: str = "shards"


def pack(
    recipe: Recipe,
    out: Path,
    *,
    shard_megabytes: float = 256.0,
    progress: Progress | None = None,
) -> PackReport:
    """Writes ``out/train-000000.tar`` and so on, an index beside each, and the class names.

    What a run of the recipe holds out for validation is packed as such. The files' bytes stay as they are; their
    order is shuffled, for readers that go through shards in a row. A shard is closed once it has ``shard_megabytes``
    (10⁶ bytes). Pictures that can't be read are left out and reported, up to ``data.max_broken``;
    ``progress(done, total)`` counts pictures.

    Raises:
        ValueError: ``out`` is not empty, the data set is not one of files, or too much of it is broken.
    """
    data, splits = recipe.data, open_splits(recipe)
    named = {"train": splits.train, "val": splits.validation, "test": splits.test}
    parts = {part: images for part, images in named.items() if images is not None}
    for images in parts.values():
        if not images.stored:
            raise ValueError(f"{data.name} is held in memory: only data sets of picture files can be packed")
    _make_empty(out)
    total, done = sum(len(images) for images in parts.values()), 0
    samples, shards, broken = {}, {}, []
    for part, images in parts.items():
        writers = [_ShardWriter(place, part, shard_megabytes * 1e6) for place in _places(out, images)]
        for i in permutation(f"pack {part}", recipe.split_seed, 0, len(images)).tolist():
            try:
                for writer, (suffix, body, target) in zip(writers, _members(images, i), strict=True):
                    writer.add(f"{i:08d}", suffix, body, target)
            except BrokenImage as error:
                broken.append((error.name, error.reason))
                if len(broken) > data.max_broken:
                    raise ValueError(
                        f"{len(broken)} pictures can't be read, above data.max_broken ({data.max_broken}); "
                        f"the last is {error}"
                    ) from None
            done += 1
            if progress is not None:
                progress(done, total)
        for writer in writers:
            writer.close()
        samples[part] = writers[0].samples_written
        shards[part] = sum(writer.shards_written for writer in writers)
    dataset, file, described = "shards", CLASSES, list(splits.info.class_names)
    if splits.train.counted != "images":
        dataset, file, described = describe_dense(splits)
    _write_whole(out / file, json.dumps(described, ensure_ascii=False).encode())
    return PackReport(samples, shards, tuple(broken), dataset)


def _make_empty(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = next(out.iterdir(), None)
    except OSError as error:
        raise ValueError(f"{out}: can't be written ({error.strerror}); choose another folder") from error
    if taken is not None:
        raise ValueError(f"{out}: has {taken.name} in it already; choose an empty folder")


def _places(out: Path, images: ImageSet) -> list[Path]:
    """Where the shards lie: those of pictures with maps or with objects in two folders."""
    if images.counted == "images":
        return [out]
    places = [out / "images", out / ("maps" if images.counted == "pixels" else "objects")]
    for place in places:
        place.mkdir(exist_ok=True)
    return places


def _members(images: ImageSet, i: int) -> list[tuple[str, bytes, int]]:
    """(suffix, bytes, class) of what is written of a picture, one for each of ``_places``."""
    if images.counted != "images":
        other = _suffix(images.map_name(i)) if isinstance(images, StoredMaps) else OBJECTS_SUFFIX
        picture, belonging = images.encoded(i)
        return [(_suffix(images.name(i)), picture, 0), (other, belonging, 0)]
    if not isinstance(images.targets[i], int):
        raise ValueError(
            "shards have one class a picture, and these pictures have several labels or a number: keep them with their "
            "labels.csv"
        )
    return [(_suffix(images.name(i)), images.encoded(i)[0], images.targets[i])]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


class _ShardWriter:
    """One shard after another, each written aside and renamed when it is whole."""

    def __init__(self, out: Path, part: str, most_bytes: float) -> None:
        self.out, self.part, self.most_bytes = out, part, most_bytes
        self.samples_written = self.shards_written = 0
        self._members: list[Sample] = []
        self._tar: tarfile.TarFile | None = None

    def add(self, key: str, suffix: str, body: bytes, target: int) -> None:
        if self._tar is None:
            self._tar = tarfile.open(self._aside, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # closed below
        offset = self._add_member(key + suffix, body)
        self._members.append((key + suffix, target, offset, len(body)))
        self._add_member(f"{key}.cls", str(target).encode())
        self.samples_written += 1
        if self._tar.offset >= self.most_bytes:
            self.close()

    def close(self) -> None:
        """Ends the shard that is being written, if any."""
        if self._tar is None:
            return
        self._tar.close()
        shard = self.out / f"{self.part}-{self.shards_written:06d}.tar"
        _flushed(self._aside)
        os.replace(self._aside, shard)
        write_index(shard, self._members)
        self.shards_written += 1
        self._tar, self._members = None, []

    @property
    def _aside(self) -> Path:
        return self.out / f"{self.part}.tar.partial"

    def _add_member(self, name: str, body: bytes) -> int:
        """Gives where the body begins."""
        assert self._tar is not None
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(body), 0o644
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(body))
        return offset


def _flushed(file: Path) -> None:
    with open(file, "rb") as written:
        os.fsync(written.fileno())


def _write_whole(file: Path, body: bytes) -> None:
    aside = file.with_name(file.name + ".partial")
    aside.write_bytes(body)
    _flushed(aside)
    os.replace(aside, file)
