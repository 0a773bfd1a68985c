"""How the values of a picture become 8 bits a channel: what is white, which channels there are, which way is up."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:  # a picture is decoded where there is neither torch nor pydantic
    from crosshead.recipe.schema import DataConfig

# What cameras of 8, 10, 12, 14 and 16 bits reach.
LEVELS = (255, 1023, 4095, 16383, 65535)
_DARK = 4  # a set of pictures that reaches a quarter of the white level at most is meant for a lower one


@dataclass(frozen=True)
class Decoding:
    """As the keys of ``data`` describe it. ``white_level`` "auto" that nobody has resolved is that of 16 bits."""

    max_megapixels: float = 64.0
    channels: int = 3
    white_level: int | Literal["auto", "per_image"] = "auto"
    value_range: tuple[float, float] | None = None
    exif: Literal["apply", "ignore"] = "apply"

    @classmethod
    def of(cls, data: "DataConfig") -> "Decoding":
        return cls(data.max_megapixels, data.channels, data.white_level, data.value_range, data.exif)

    @property
    def white(self) -> int | None:
        """None where each picture has its own."""
        if self.white_level == "per_image":
            return None
        return LEVELS[-1] if self.white_level == "auto" else self.white_level


class Bands(Image.Image):
    """A picture of other than one or three channels, (height, width, C) uint8, for which Pillow has no mode.

    To whoever looks at it, it is a picture of its first three channels, or of the first; ``bands`` has all of them.
    """

    def __init__(self, bands: NDArray[np.uint8]) -> None:
        super().__init__()
        shown = bands[..., :3] if bands.shape[-1] >= 3 else bands[..., :1].repeat(3, -1)
        seen = Image.fromarray(np.ascontiguousarray(shown))
        self.im, self._mode, self._size = seen.im, seen.mode, seen.size
        self.bands = bands


def scaled_to_white(values: NDArray[np.integer], white: int | None) -> NDArray[np.uint8]:
    """Of 0 ... 65535, rounded; what is above ``white`` is white. None: the largest value of this picture."""
    white = max(int(values.max()), 1) if white is None else white
    steps = np.minimum(np.arange(LEVELS[-1] + 1), white)
    return ((steps * 255 + white // 2) // white).astype(np.uint8)[values]


def scaled_to_range(values: NDArray[np.floating], limits: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = limits
    share = (values.astype(np.float64) - low) / (high - low)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


def white_level_for(highest: int) -> int:
    """The least of ``LEVELS`` that holds ``highest``."""
    return next(level for level in LEVELS if highest <= level)


def judge_white(highest: int, decoding: Decoding) -> str | None:
    """What is wrong with the white level for pictures of 16 bits that reach ``highest``; None where nothing is."""
    white = decoding.white
    if white is None or highest == 0:
        return None
    remedy = f"data.white_level={white_level_for(highest)} is what they need"
    if highest > white:
        return f"values up to {highest}, and what is above data.white_level={white} is cut off; {remedy}"
    if highest * _DARK <= white:
        return f"values up to {highest} of 0 to {white} (data.white_level): nearly black; {remedy}"
    return None
