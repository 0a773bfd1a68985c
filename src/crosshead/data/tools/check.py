"""Reads every picture of a data set: what is there, what is broken, and what a recipe should know of it."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from crosshead.data.base import IGNORED, DatasetInfo, ImageSet, Splits
from crosshead.data.batching.workers import Workers, WorkersLost
from crosshead.data.datasets.contents import BINARY, contents, label_counts, object_counts
from crosshead.data.datasets.dense import BeyondClasses, ObjectDataset, SegmentationDataset
from crosshead.data.decode.decoding import Bands, Decoding
from crosshead.data.decode.images import BrokenImage
from crosshead.data.tools.box_statistics import BoxStatistics, box_statistics
from crosshead.recipe.schema import DataConfig

CHUNK = 64
# Of objects: by their area in pixels as COCO's numbers part them, and those that are in no class's count.
KINDS = ("small", "medium", "large", "crowds")


@dataclass(frozen=True)
class Facts:
    """Of one whole picture: pixels, whether it has colours, mean and mean square a channel in 0 ... 1, a digest, and
    how much there is of each class: the one picture, or its pixels where there is a map, or its objects; and ``kinds``
    of objects, see ``KINDS``, and their ``boxes`` (n, 4), crowds left out; EXIF's ``orientation``; the ``highest``
    value where there are 16 bits."""

    width: int
    height: int
    grey: bool
    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    digest: bytes
    counts: NDArray[np.int64]
    kinds: NDArray[np.int64] | None = None
    boxes: NDArray[np.float64] | None = None
    orientation: int = 1
    highest: int | None = None


@dataclass(frozen=True)
class SplitReport:
    """``counts`` by class index of ``counted``: whole pictures, pixels of their maps, or their objects;
    ``readable`` is how many pictures are whole; ``broken`` (name, reason), in the order of the split.

    ``sizes`` counts (width, height), ``grey`` the pictures without colours; ``mean`` and ``std`` are of pixels in
    0 ... 1, red, green, blue, every picture weighing the same. ``objects`` counts by ``KINDS``, and pictures without
    any. ``turned`` counts pictures that EXIF turns, ``wide`` those of 16 bits, whose ``highest`` value it is; and
    ``beyond_white`` those of them that reach above the white level. ``boxes`` are of objects.
    """

    counts: tuple[int, ...]
    broken: tuple[tuple[str, str], ...]
    origin: str = ""
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    grey: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    readable: int = 0
    counted: str = "images"
    objects: dict[str, int] = field(default_factory=dict)
    turned: int = 0
    wide: int = 0
    highest: int = 0
    beyond_white: int = 0
    boxes: BoxStatistics | None = None

    @property
    def total(self) -> int:
        return self.readable + len(self.broken)


@dataclass(frozen=True)
class CheckReport:
    """What ``check_images`` found: the data set and a report for each of its splits, by name.

    ``duplicates`` are groups of (split, name) that hold the same pixels and lie in more than one split;
    ``repeated`` counts pictures that another one of their own split equals. ``decoding`` is how they were read, and
    ``exif_stated`` whether the recipe says what becomes of EXIF rotations.
    """

    info: DatasetInfo
    splits: dict[str, SplitReport]
    notes: tuple[str, ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()
    duplicates: tuple[tuple[tuple[str, str], ...], ...] = ()
    repeated: dict[str, int] = field(default_factory=dict)
    decoding: Decoding = field(default_factory=Decoding)
    exif_stated: bool = False

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        return tuple(entry for split in self.splits.values() for entry in split.broken)


def check_images(
    splits: Splits, *, workers: int = 0, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Decodes every picture of every split, in so many processes beside this one; ``progress(done, total)``."""
    data = splits.data or DataConfig()
    decoding = Decoding.of(data)
    parts = splits.parts()
    total, done = sum(len(images) for images in parts.values()), 0
    reports = {}
    places: dict[bytes, list[tuple[str, int]]] = {}
    for name, images in parts.items():
        tally = _Tally(len(splits.info.class_names), decoding)
        for i, verdict in _verdicts(images, len(splits.info.class_names), workers):
            if isinstance(verdict, str):
                tally.broken.append((images.name(i), verdict))
            else:
                tally.add(verdict)
                places.setdefault(verdict.digest, []).append((name, i))
            done += 1
            if progress is not None:
                progress(done, total)
        reports[name] = tally.report(splits.origin(name), images.counted)
    shared = [group for group in places.values() if len({split for split, _ in group}) > 1]
    repeated = Counter({name: 0 for name in parts})
    for group in places.values():
        repeated.update({name: count - 1 for name, count in Counter(split for split, _ in group).items()})
    return CheckReport(
        splits.info,
        reports,
        (*splits.notes, *_binary(parts, len(splits.info.class_names))),
        splits.passed_over,
        tuple(tuple((split, parts[split].name(i)) for split, i in group) for group in shared),
        dict(repeated),
        decoding,
        "exif" in data.model_fields_set,
    )


def _binary(parts: dict[str, ImageSet], classes: int) -> list[str]:
    held = {name: contents(images, classes) for name, images in parts.items()}
    return [f"{name}: {BINARY}" for name, each in held.items() if each is not None and each.two_valued]


class _Tally:
    """Adds up the pictures of one split."""

    def __init__(self, classes: int, decoding: Decoding) -> None:
        channels, white = 3 if decoding.channels == 1 else decoding.channels, decoding.white
        self.counts, self.broken = np.zeros(classes, np.int64), list[tuple[str, str]]()
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.grey = self.empty = 0
        self.kinds = np.zeros(len(KINDS), np.int64)
        self.mean, self.square = np.zeros(channels), np.zeros(channels)
        self.turned = self.wide = self.highest = self.beyond_white = 0
        self.white = white
        self.boxes: list[NDArray[np.float64]] = []

    def add(self, facts: Facts) -> None:
        self.counts += facts.counts
        self.sizes[facts.width, facts.height] += 1
        self.grey += facts.grey
        self.mean += facts.mean
        self.square += facts.square
        self.turned += 2 <= facts.orientation <= 8
        if facts.highest is not None:
            self.wide += 1
            self.highest = max(self.highest, facts.highest)
            self.beyond_white += self.white is not None and facts.highest > self.white
        if facts.kinds is not None:
            self.kinds += facts.kinds
            self.empty += not facts.kinds.any()
        if facts.boxes is not None:
            self.boxes.append(facts.boxes)

    def report(self, origin: str, counted: str) -> SplitReport:
        readable = sum(self.sizes.values())
        count = max(readable, 1)
        mean = self.mean / count
        std = np.sqrt(np.maximum(self.square / count - mean**2, 0))
        return SplitReport(
            tuple(self.counts.tolist()),
            tuple(self.broken),
            origin,
            dict(self.sizes),
            self.grey,
            tuple(mean.tolist()),
            tuple(std.tolist()),
            readable,
            counted,
            dict(zip(KINDS, self.kinds.tolist(), strict=True)) | {"empty pictures": self.empty}
            if counted == "objects"
            else {},
            self.turned,
            self.wide,
            self.highest,
            self.beyond_white,
            box_statistics(self.boxes),
        )


class _Chunks(Dataset[list[tuple[int, str | Facts]]]):
    """Runs of ``CHUNK`` pictures: of each its facts, or what is wrong with it."""

    def __init__(self, images: ImageSet, classes: int) -> None:
        self.images, self.classes = images, classes
        # Objects without a mask count as well.
        self.objects = images.boxes_alone() if isinstance(images, ObjectDataset) and images.partly else images

    def __len__(self) -> int:
        return -(-len(self.images) // CHUNK)

    def __getitem__(self, chunk: int) -> list[tuple[int, str | Facts]]:
        begin = chunk * CHUNK
        return [(i, self._verdict(i)) for i in range(begin, min(begin + CHUNK, len(self.images)))]

    def _verdict(self, i: int) -> str | Facts:
        try:
            image, counts, kinds, boxes = self._read(i)
        except BrokenImage as broken:
            return broken.reason
        except BeyondClasses as beyond:
            return str(beyond)
        pixels = image.bands if isinstance(image, Bands) else np.asarray(image)
        digest = hashlib.blake2b(repr((image.mode, image.size)).encode() + pixels.tobytes(), digest_size=16)
        flat = pixels.reshape(-1, 1 if pixels.ndim == 2 else pixels.shape[-1])
        levels = [np.bincount(channel, minlength=256) / len(flat) for channel in flat.T]
        values = (
            np.arange(256) / 255
        )  # a picture has 256 levels: their counts give its mean and its mean square
        mean, square = (np.array([level @ powers for level in levels]) for powers in (values, values**2))
        grey = image.mode == "L" or bool((flat == flat[:, :1]).all())
        if flat.shape[-1] == 1 and not isinstance(image, Bands):
            mean, square = mean.repeat(3), square.repeat(3)
        found = image.info.get("orientation", 1), image.info.get("highest")
        return Facts(*image.size, grey, mean, square, digest.digest(), counts, kinds, boxes, *found)

    def _read(
        self, i: int
    ) -> tuple[Image.Image, NDArray[np.int64], NDArray[np.int64] | None, NDArray[np.float64] | None]:
        if isinstance(self.images, SegmentationDataset):
            image, classes = self.images.sample(i)
            return image, np.bincount(classes[classes != IGNORED], minlength=self.classes), None, None
        if isinstance(self.objects, ObjectDataset):
            image, objects = self.objects.sample(i)
            return image, *object_counts(objects, self.classes), objects.boxes[~objects.crowd]
        return self.images.load(i), label_counts(self.images.targets[i], self.classes), None, None


def _verdicts(images: ImageSet, classes: int, workers: int) -> Iterator[tuple[int, str | Facts]]:
    chunks, done, processes = _Chunks(images, classes), 0, Workers(workers)
    try:
        for chunk in processes.make(chunks, range(len(chunks))) if workers else ():
            done += 1
            yield from chunk
    except WorkersLost as lost:
        warnings.warn(f"{lost}. The rest is read without them", RuntimeWarning, stacklevel=2)
    finally:
        processes.end(at_once=True)
    for i in range(done, len(chunks)):
        yield from chunks[i]
