"""What a run took from its data and goes on with, whatever the data says later: its scale, and which pictures it has
trained on and which it has validated on."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from crosshead.data.base import DatasetInfo, Splits, dataset_statistics
from crosshead.data.datasets.fingerprint import other_pictures
from crosshead.data.datasets.held_out import Kept, name_digests
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe.schema import Recipe
from crosshead.train.checkpoint.resume import Start
from crosshead.train.checkpoint.store import run_of
from crosshead.train.events import EventRecord
from crosshead.train.files import replace_file
from crosshead.train.run_folder.folder import info_of, read_info

PICTURES_FILE = "pictures.safetensors"


@dataclass(frozen=True)
class Memory:
    """Of a run that begins nothing is known. ``by_place``: it is one of a version that kept no pictures."""

    info: DatasetInfo | None = None
    kept: Kept | None = None
    by_place: bool = False

    def open(self, recipe: Recipe) -> Splits:
        """The data as the run knows it.

        Raises:
            ValueError: as ``open_splits``; or what it would be judged on are pictures that it has trained on.
        """
        splits = open_splits(recipe, self.kept, by_place=self.by_place)
        if self.kept is not None:
            _refuse_trained(splits, self.kept, recipe.data.root)
        return splits

    def info_with(self, recipe: Recipe, data: DatasetInfo) -> DatasetInfo:
        """What the run's numbers mean; where nothing was learned yet, what ``data``, which is today's, says."""
        return data if self.info is None else seen_by(recipe, self.info)

    def pictures(self, splits: Splits, root: str | None) -> Kept:
        """What the run will have trained and validated on."""
        now = Kept.of(splits.train, splits.validation, root)
        return now if self.kept is None else self.kept.and_also(now)

    def check(self, state: dict[str, Any], context: dict[str, Any]) -> None:
        """ValueError where a run that has not kept its pictures can't be told from which it has learned."""
        known = self.kept is not None or not context["held_out"] or state["data"] is None
        if not known and (part := other_pictures(state["data"], context["data"])):
            raise ValueError(
                f"there are other {part} pictures than at the checkpoint, and this run has no list of those that it "
                "trained on: it might be validated on them. Put the pictures back as they were, or start a new run "
                "from its weights (model.init_from)"
            )

    def events(self, data: DatasetInfo, step: int) -> list[EventRecord]:
        """What to say where the numbers to learn are other ones than those that the run measures by."""
        if self.info is None or self.info.scale is None or data.scale in (None, self.info.scale):
            return []
        (mean, std), (old_mean, old_std) = data.scale, self.info.scale
        message = (
            f"the training numbers are {mean:.6g} ± {std:.6g}, and were {old_mean:.6g} ± {old_std:.6g}: the run "
            "goes on in the scale of then. If their unit is another one, start a new run"
        )
        return [EventRecord("data_changed", message, step)]


def recall(start: Start) -> Memory:
    """What the run remembers whose checkpoint is gone on with."""
    if not start.state:
        return Memory()
    assert start.path is not None
    folder = run_of(start.path)
    try:
        kept, by_place = read_pictures(folder), not (folder / PICTURES_FILE).exists()
    except ValueError:  # by name, and ``check`` tells whether that is what it was
        kept, by_place = None, False
    return Memory(_info(start.state, folder), kept, by_place)


def as_context(info: DatasetInfo) -> dict[str, Any]:
    """For a checkpoint; ``recall`` reads it back."""
    return asdict(info)


def _info(state: dict[str, Any], folder: Path) -> DatasetInfo | None:
    try:
        return read_info(folder) if state["info"] is None else info_of(state["info"])
    except (OSError, ValueError, KeyError, TypeError):  # of a version that had it in the folder alone
        return None


def _refuse_trained(splits: Splits, kept: Kept, root: str | None) -> None:
    for part, images in splits.parts().items():
        if part == "train":
            continue
        found = np.flatnonzero(kept.trained(name_digests(images, root)))
        if len(found):
            more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
            raise ValueError(
                f"{images.name(int(found[0]))}{more} would be judged on ({part}), and this run has trained on it; put "
                "back the splits as they were, or start a new run"
            )


def write_pictures(folder: Path, kept: Kept) -> None:
    content = safetensors.numpy.save({"train": kept.train, "validation": kept.validation})
    replace_file(folder / PICTURES_FILE, content)


def read_pictures(folder: Path) -> Kept | None:
    """None for a run of a version that kept none; ValueError where they are damaged."""
    file = folder / PICTURES_FILE
    try:
        content = safetensors.numpy.load(file.read_bytes())
        return Kept(content["train"], content["validation"])
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(
            f"{file} is damaged ({error}), and with it which pictures the run has trained on; resuming the run writes "
            "it anew if its pictures are those of then"
        ) from None


def splits_of_run(recipe: Recipe, folder: Path) -> Splits:
    """The data of the run in ``folder``, each picture in the split in which it was."""
    kept = read_pictures(folder)
    return open_splits(recipe, kept, by_place=kept is None)


def seen_by(recipe: Recipe, info: DatasetInfo) -> DatasetInfo:
    """What a run has learned, with the channels and statistics that a recipe says."""
    data = recipe.data
    if data.channels != info.channels:
        raise ValueError(
            f"data.channels is {data.channels}, and the run learned pictures of {info.channels}; leave it out"
        )
    mean, std = dataset_statistics(data, info.mean, info.std)
    return replace(info, name=data.name, mean=mean, std=std)
