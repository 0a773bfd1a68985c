"""Which training pictures are held out for validation, where a data set has no such split of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from crosshead.data.base import Splits
from crosshead.data.datasets.groups import deal, groups_of, names_below, shared_groups
from crosshead.data.random import Indices, uniforms
from crosshead.data.random import keys as keyed
from crosshead.recipe.schema import DataConfig

PURPOSE = "validation split"
FOLDS = "folds"


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
    did that kept nothing of the sort. With ``data.folds`` one fold is set aside first; it lies in ``aside`` then.
    """

    seed: int
    kept: Kept | None = None
    by_place: bool = False
    aside: list[Any] = field(default_factory=list, compare=False)

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
        if data.folds is not None:
            images, strata = self.set_fold_aside(images, data, strata)
        by_place = self.by_place or fixed
        if data.groups is not None:
            return self._whole_groups(images, data, strata)
        digests = None if by_place and self.kept is None else name_digests(images, data.root)
        rest, held = stratified_split(
            [0] * len(images) if strata is None else strata,
            data.validation,
            purpose=PURPOSE,
            seed=self.seed,
            ids=None if by_place else digests,
            class_names=class_names,
            fewest=2 if self.kept is None else 1,  # where a run's pictures are was decided when it began
        )
        if self.kept is not None:
            assert digests is not None
            chosen = np.isin(np.arange(len(images)), held) | np.isin(digests, self.kept.validation)
            chosen &= ~self.kept.trained(digests)
            rest, held = np.flatnonzero(~chosen), np.flatnonzero(chosen)
            self._check_left(rest, held, data)
        return images.subset(rest), images.subset(held)

    def _check_left(self, rest: Indices, held: Indices, data: DataConfig) -> None:
        if not (len(rest) and len(held)):
            what = "validated" if len(rest) else "trained"
            raise ValueError(
                f"{data.name}: no picture is there any more that this run has {what} on, and no new one in its "
                "place; put them back under the names that they had, or start a new run (model.init_from)"
            )

    def _whole_groups(
        self, images: Images, data: DataConfig, strata: Sequence[int] | None
    ) -> tuple[Images, Images]:
        """As ``split``, groups left whole: about ``data.validation`` of the pictures, as near as their sizes allow. A
        group of which the run knows a picture stays where that is."""
        if not 0 < data.validation < 1:
            raise ValueError(
                f"data.validation is {data.validation:g}: hold out a share above 0 and below 1 (0.1, say)"
            )
        groups = groups_of(images, data)
        assert groups is not None
        digests = name_digests(images, data.root)
        parts = max(2, min(round(1 / data.validation), len(set(groups))))
        known = dict[str, bool]()  # whether it was validated on
        if self.kept is not None:
            trained = {group for group, its in zip(groups, self.kept.trained(digests), strict=True) if its}
            judged = np.isin(digests, self.kept.validation)
            known = {group: True for group, its in zip(groups, judged, strict=True) if its}
            known |= dict.fromkeys(trained, False)
        dealt = deal(parts, purpose=PURPOSE, seed=self.seed, ids=digests, labels=strata, groups=groups)
        chosen = np.array(
            [known.get(group, bool(part == 0)) for group, part in zip(groups, dealt, strict=True)]
        )
        rest, held = np.flatnonzero(~chosen), np.flatnonzero(chosen)
        self._check_left(rest, held, data)
        return images.subset(rest), images.subset(held)

    def set_fold_aside(
        self, images: Images, data: DataConfig, strata: Sequence[int] | None
    ) -> tuple[Images, Sequence[int] | None]:
        """``images`` without fold ``data.fold`` of ``data.folds``, which is put into ``aside``, and their strata. Of a
        run's pictures the fold are all that it has neither trained nor validated on."""
        assert data.folds is not None
        digests = name_digests(images, data.root)
        if self.kept is None:
            dealt = deal(
                data.folds,
                purpose=FOLDS,
                seed=self.seed,
                ids=digests,
                labels=strata,
                groups=groups_of(images, data),
            )
            inside = dealt == data.fold
        else:
            inside = ~np.isin(digests, np.concatenate([self.kept.train, self.kept.validation]))
        if not inside.any():
            raise ValueError(f"{data.name}: no picture of fold {data.fold} is there any more")
        self.aside[:] = [images.subset(np.flatnonzero(inside))]
        others = np.flatnonzero(~inside)
        return images.subset(others), None if strata is None else [strata[i] for i in others.tolist()]

    def finish(self, splits: Splits, data: DataConfig) -> Splits:
        """``splits`` with the fold as their test split, where there is one; of groups in more than one split a note."""
        if data.folds is not None:
            train: Any = splits.train
            if (
                not splits.held_out
            ):  # the data has its own validation pictures, and nothing was set aside so far
                labels = train.targets if getattr(train, "counted", "images") == "images" else []
                train, _ = self.set_fold_aside(
                    train, data, labels if len(labels) and isinstance(labels[0], int) else None
                )
            told = f"fold {data.fold} (of 0 to {data.folds - 1}) of the training pictures"
            more = "" if splits.test is None else "; the data's own test pictures are left alone"
            splits = replace(
                splits, train=train, test=self.aside[0], origins={**splits.origins, "test": told + more}
            )
        if data.groups is not None:
            parts = {name: groups_of(images, data) or [] for name, images in splits.parts().items()}
            if (note := shared_groups(parts)) is not None:
                splits = replace(splits, notes=(*splits.notes, note), seen=(*splits.seen, note))
        return splits


def name_digests(images: Named, root: str | None) -> Indices:
    """64 bits of each picture's name below ``root``, (N,)."""
    names = (name.encode() for name in names_below(images, root))
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
