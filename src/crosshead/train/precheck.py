"""What is refused before a run begins, before its time is measured, and by ``crosshead data check`` alike."""

from collections.abc import Sequence

from crosshead.data.base import DatasetInfo, ImageSet, Splits
from crosshead.data.datasets.contents import BINARY, LOOKED, Contents, contents
from crosshead.data.datasets.looking import spread
from crosshead.data.decode.images import BrokenImage
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Task, open_task

_NAMED = 8
_TRIED = 32  # pictures, before a split counts as one that can't be read
_KINDS = {"images": "picture", "pixels": "pixel", "objects": "object"}


def precheck(recipe: Recipe, splits: Splits, info: DatasetInfo | None = None) -> Task:
    """The task of ``recipe``, which can learn from ``splits`` and be judged by them; ``info`` is what a run keeps of
    its data. Takes a second or two.

    Raises:
        ValueError: it can't.
    """
    splits.refuse_known_faults(recipe.data)
    task = open_task(recipe, info or splits.info)
    task.training_batches(splits.train, seed=0, epoch=0)
    for images in splits.parts().values():
        task.evaluation_batches(images)
    return task


def check_contents(task: Task, splits: Splits) -> tuple[str, ...]:
    """What a reader of the run should know of its splits: classes without an example, maps that look wrong, pictures
    with more objects than are judged. Of maps and packed objects up to ``LOOKED`` of a split are read.

    Raises:
        ValueError: no picture can be read, there is nothing to learn from, or the metric that selects can't be told of
            the validation split.
    """
    names = splits.info.class_names
    notes = []
    for name, images in splits.parts().items():
        split = "training" if name == "train" else name
        if split != "test":
            _refuse_unreadable(images, split)
        held = contents(images, len(names))
        if held is None:
            continue
        lacking = _nothing(task, held, split)
        if lacking is not None and held.whole and split != "test":  # which decides nothing
            raise ValueError(lacking)
        notes += [lacking] if lacking is not None else _missing(held, names, split)
        if held.two_valued:
            notes.append(f"{split}: {BINARY}")
        notes += [f"{split}: {note}" for note in task.limits(held)]
    return tuple(notes)


def _refuse_unreadable(images: ImageSet, split: str) -> None:
    """One that can be read is enough, and as a rule the first: the others are named where they are used."""
    first: BrokenImage | None = None
    places = spread(len(images), _TRIED)
    for i in places:
        try:
            images.load(i)
            return
        except BrokenImage as broken:
            first = first or broken
    if first is not None:
        raise ValueError(f"{split}: none of the {len(places)} pictures looked at can be read. {first}")


def _nothing(task: Task, held: Contents, split: str) -> str | None:
    """Why nothing can be learned, or nothing selected; None where it can, as far as was looked."""
    hint = f". {BINARY[0].upper()}{BINARY[1:]}" if held.two_valued else ""
    if split == "training":
        one = held.two_valued and len(held.counts) > 1
        if held.values == 1:
            return f"training: {_where(held)} one and the same number: there is nothing to learn"
        if held.values or (held.counts.any() and not one):
            return None
        what = _KINDS[held.counted]
        found = f"{what}s of one class alone" if one else f"no {what} of any class"
        crowds = ", crowds left out" if held.counted == "objects" else ""
        return f"training: {_where(held)} {found}{crowds}: there is nothing to learn{hint}"
    why = task.undefined(held)
    if why is None:
        return None
    undefined = f"{split}: {_where(held)} {why}, so that {task.primary.label} is undefined there"
    if split == "test":
        return undefined + hint
    return (
        f"{undefined} and no weights could be selected: give validation pictures that have some, or select by another "
        f"metric (task.select_by){hint}"
    )


def _missing(held: Contents, names: Sequence[str], split: str) -> list[str]:
    if not len(held.counts):
        return []
    missing = [name for name, count in zip(names, held.counts.tolist(), strict=True) if not count]
    if not missing:
        return []
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    said = f"{split}: {_where(held)} no {_KINDS[held.counted]} of class {', '.join(missing[:_NAMED])}{more}"
    return [said + (": nothing is learned of it" if split == "training" else ": nothing is judged of it")]


def _where(held: Contents) -> str:
    return f"the {held.pictures} pictures have" if held.whole else f"the {LOOKED} pictures looked at have"
