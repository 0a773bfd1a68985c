"""Which training pictures are held out for validation, where a data set has no such split of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from crosshead.data.decode.images import display_name
from crosshead.data.random import Indices, uniforms
from crosshead.data.random import keys as keyed
from crosshead.recipe.schema import DataConfig

PURPOSE = "validation split"


class Named(Protocol):
    """What is asked of pictures here; see ``ImageSet``."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str: ...

    def subset(self, indices: Indices) -> Self: ...


Images = TypeVar("Images", bound=Named)


@dataclass(frozen=True)
class Kept:
    """What a run has trained on and what it has validated on: ``name_digests``, each ascending."""

    train: Indices
    validation: Indices

    @classmethod
    def of(cls, train: Named, validation: Named, root: str | None) -> "Kept":
        return cls(*(np.unique(name_digests(images, root)) for images in (train, validation)))

    def and_also(self, other: "Kept") -> "Kept":
        """Of a run that went on with the pictures of ``other``."""
        return Kept(
            np.union1d(self.train, other.train),
            np.union1d(np.setdiff1d(self.validation, other.train), other.validation),
        )

    def trained(self, digests: Indices) -> NDArray[np.bool_]:
        """Which of them were trained on, and never validated on."""
        return np.isin(digests, self.train) & ~np.isin(digests, self.validation)


@dataclass(frozen=True)
class HoldOut:
    """How validation pictures are held out: by ``seed`` and each picture's name below the root, class by class, so that
    neither its place in a list nor where the data lies decides.

    Of the data of a run ``kept`` says where its pictures are, and only new ones are dealt out. ``by_place`` is how runs
    did that kept nothing of the sort.
    """

    seed: int
    kept: Kept | None = None
    by_place: bool = False

    def split(
        self,
        images: Images,
        data: DataConfig,
        *,
        strata: Sequence[int] | None = None,
        fixed: bool = False,
        class_names: Sequence[str] = (),
    ) -> tuple[Images, Images]:
        """(the rest, the held out) of ``images``, each in the order that they have, ``data.validation`` of each of
        ``strata`` (their classes). ``fixed``: the data set never changes, and a picture's place in it is its name.

        Raises:
            ValueError: as ``stratified_split``; or the run has no validation picture left.
        """
        by_place = self.by_place or fixed
        digests = None if by_place and self.kept is None else name_digests(images, data.root)
        rest, held = stratified_split(
            [0] * len(images) if strata is None else strata,
            data.validation,
            purpose=PURPOSE,
            seed=self.seed,
            ids=None if by_place else digests,
            class_names=class_names,
            fewest=2 if self.kept is None else 1,  # where a run's pictures are was settled when it began
        )
        if self.kept is not None:
            assert digests is not None
            chosen = np.isin(np.arange(len(images)), held) | np.isin(digests, self.kept.validation)
            chosen &= ~self.kept.trained(digests)
            rest, held = np.flatnonzero(~chosen), np.flatnonzero(chosen)
            if not (len(rest) and len(held)):
                what = "validated" if len(rest) else "trained"
                raise ValueError(
                    f"{data.name}: no picture is there any more that this run has {what} on, and no new one in its "
                    "place; put them back under the names that they had, or start a new run (model.init_from)"
                )
        return images.subset(rest), images.subset(held)


def name_digests(images: Named, root: str | None) -> Indices:
    """64 bits of each picture's name below ``root``, (N,)."""
    above = "" if root is None else display_name(Path(root).expanduser()) + "/"
    names = (images.name(i).removeprefix(above).encode() for i in range(len(images)))
    found = b"".join(blake2b(name, digest_size=8).digest() for name in names)
    return np.frombuffer(found, dtype="<i8").astype(np.int64)


def stratified_split(
    targets: Sequence[int],
    share: float,
    *,
    purpose: str,
    seed: int,
    ids: Indices | None = None,
    class_names: Sequence[str] = (),
    fewest: int = 2,
) -> tuple[Indices, Indices]:
    """Indices (rest, held out), each ascending: ``share`` of every class is held out, at least one of two and more.

    Which they are depends on ``ids`` (N,), what each is known by; its place where they are None.

    Raises:
        ValueError: ``share`` is not between 0 and 1, or a class has less than ``fewest`` pictures.
    """
    if not 0 < share < 1:
        raise ValueError(
            f"data.validation is {share:g}: this data set has no validation split of its own, "
            "so hold out a share above 0 and below 1 (0.1, say)"
        )
    labels = np.asarray(targets, dtype=np.int64)
    draw = uniforms(keyed(purpose, seed, 0, np.arange(len(labels)) if ids is None else ids), 1)[:, 0]
    names, sizes = np.unique(labels, return_counts=True)
    if len(sizes) and sizes.min() < fewest:
        rare = int(names[sizes.argmin()])
        raise ValueError(
            f"class {class_names[rare] if class_names else rare} has 1 picture: two at least, to train and validate"
        )
    counts = np.minimum(np.maximum(np.rint(share * sizes).astype(np.int64), 1), sizes - 1)
    order = np.lexsort((draw, labels))  # class by class, each in the order of its draws
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    held = np.zeros(len(labels), dtype=bool)
    held[order] = place < np.repeat(counts, sizes)
    return np.flatnonzero(~held), np.flatnonzero(held)
