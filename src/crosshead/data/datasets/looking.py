"""What a bounded look at the training pictures decides or warns of, before anything is learned from them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crosshead.data.base import ImageSet, Splits
from crosshead.data.decode.decoding import Bands, Decoding, judge_white, white_level_for
from crosshead.data.decode.images import BrokenImage, Inspected, inspect_image
from crosshead.recipe.schema import DataConfig

LOOKED_AT = 32  # pictures whose headers are read, and whose pixels where they have 16 bits
_MEASURED = 256  # pictures from which mean and standard deviation are computed where no data set says them


@dataclass(frozen=True)
class Look:
    """At ``pictures`` of a set: how many have 16 bits, how high these reach, how many EXIF turns, and how many are TIFF
    files whose fourth channel is called transparency."""

    pictures: int
    wide: int
    highest: int
    turned: int
    tagged_alpha: int


def resolve_data(splits: Splits, data: DataConfig, reopen: Callable[[DataConfig], Splits]) -> Splits:
    """The splits as the recipe is meant once their training pictures were looked at: with the white level of their bit
    depth, and with the statistics of channels of which no data set tells. ``resolved`` has what was found,
    ``seen`` what should be known of it.

    Raises:
        ValueError: channels that the data set doesn't have.
    """
    if not splits.train.stored:
        if data.channels not in (1, 3):
            raise ValueError(
                f"data.channels is {data.channels}, and the pictures of data.name={data.name} have 1 or 3"
            )
        return replace(splits, data=data)
    look = look_at(splits.train, Decoding.of(data))
    resolved: dict[str, Any] = {}
    if look.wide and data.white_level == "auto":
        resolved["white_level"] = white_level_for(look.highest)
        splits = reopen(data.model_copy(update=resolved))
    seen = tuple(_words(look, data, resolved, splits.train.counted))
    if data.channels not in (1, 3) and (data.mean is None or data.std is None):
        measured, count = _statistics(splits.train, data.channels)
        resolved |= {key: value for key, value in measured.items() if getattr(data, key) is None}
        seen += (f"mean and standard deviation are those of {count} training pictures",)
        given = {"mean": data.mean, "std": data.std} | resolved
        splits = replace(
            splits, info=replace(splits.info, mean=tuple(given["mean"]), std=tuple(given["std"]))
        )
    return replace(splits, resolved=resolved, seen=seen, data=data.model_copy(update=resolved))


def look_at(images: ImageSet, decoding: Decoding) -> Look:
    found = list(_inspected(images, decoding))
    highest = [each.highest for each in found if each.highest is not None]
    return Look(
        len(found),
        len(highest),
        max(highest, default=0),
        sum(2 <= each.orientation <= 8 for each in found),
        sum(each.tagged_alpha for each in found),
    )


def _inspected(images: ImageSet, decoding: Decoding) -> Iterator[Inspected]:
    for i in spread(len(images), LOOKED_AT):
        try:
            yield inspect_image(images.source(i), name=images.name(i), decoding=decoding)
        except BrokenImage:  # is named where it is used
            continue


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` of 0 ... length - 1, evenly."""
    return sorted({k * length // count for k in range(count)}) if length else []


def _words(look: Look, data: DataConfig, resolved: Mapping[str, Any], counted: str) -> Iterator[str]:
    of = f"of the {look.pictures} training pictures looked at"
    if "white_level" in resolved:
        yield (
            f"{look.wide} {of} have 16 bits, with values up to {look.highest}: white is {resolved['white_level']} "
            "(data.white_level), which is recorded with the run"
        )
    elif look.wide and (wrong := judge_white(look.highest, Decoding.of(data))):
        yield f"{look.wide} {of} have 16 bits, with {wrong}"
    if look.turned and counted != "images" and "exif" not in data.model_fields_set:
        yield f"{look.turned} {of} {exif_warning(counted)}"
    if look.tagged_alpha and data.channels in (1, 3):
        yield (
            f"{look.tagged_alpha} {of} are TIFF with a fourth channel tagged as transparency, and lie on white: "
            "if it is a measurement (infrared, say), data.channels=4 learns from it"
        )


def exif_warning(counted: str) -> str:
    what = "maps" if counted == "pixels" else "boxes"
    return (
        f"are turned by EXIF, and their {what} may be of the pixels as they are stored: `crosshead augment` shows it; "
        f"data.exif=ignore takes pictures as they are stored, data.exif=apply says that {what} are of turned ones"
    )


def _statistics(images: ImageSet, channels: int) -> tuple[dict[str, list[float]], int]:
    """Mean and standard deviation of each channel in 0 ... 1, every picture weighing the same; of how many."""
    means, squares = [], []
    reason = "there are none"
    for i in spread(len(images), _MEASURED):
        try:
            picture = images.load(i)
        except BrokenImage as broken:
            reason = str(broken)
            continue
        assert isinstance(picture, Bands)
        flat = picture.bands.reshape(-1, channels) / 255
        means.append(flat.mean(0))
        squares.append((flat**2).mean(0))
    if not means:
        raise ValueError(f"no training picture can be read: {reason}")
    mean = np.mean(means, 0)
    std = np.sqrt(np.maximum(np.mean(squares, 0) - mean**2, 0))
    return {"mean": mean.tolist(), "std": np.where(std > 0, std, 1.0).tolist()}, len(means)
