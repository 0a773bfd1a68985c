"""Recall where keys are small pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..probe import register_probe, taken
from .recall import Recall, draw_recall

_SIDE = 4  # pixels of a glyph's or a texture's side
_NOISE = 0.1


@register_probe
@dataclass(frozen=True)
class RecallPixels(Recall):
    """``recall`` by shape and colour: a token is 4 x 8 pixels in colour, a glyph on the left and, of a key, a texture
    on the right; with noise. A query sees the glyph alone and names the texture."""

    name = "recall-pixels"
    asks = (
        "recall by the shape and the colour of a glyph, from pixels with noise: the same need for rank, with the "
        "attributes to be read off the picture first"
    )
    steps = 640

    attributes: int = 2
    values: int | None = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attributes != 2 or not 2 <= (self.values or 0) <= 6 or self.payloads > 4:
            raise ValueError(
                f"probe {self.name!r}: glyphs have two attributes (shape and colour) of 2 to 6 values, and there are "
                f"4 textures; got attributes {self.attributes}, values {self.values}, payloads {self.payloads}"
            )

    @property
    def features(self) -> int:
        return 2 * _SIDE * _SIDE * 3

    def examples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        keys, payload, order = draw_recall(self, count, generator)
        glyph = (_SHAPES[keys[..., 0]][..., None] * _COLOURS[keys[..., 1]][..., None, :]).flatten(2)
        texture = _TEXTURES[payload].repeat_interleave(3, dim=-1)
        held = torch.cat([glyph, texture], 2)
        asked = torch.cat([taken(glyph, order), torch.zeros_like(texture)], 2)
        pixels = torch.cat([held, asked], 1)
        noise = _NOISE * torch.randn(pixels.shape, generator=generator)
        return pixels + noise, taken(payload, order)[..., None]


def _bitmap(*rows: str) -> list[float]:
    return [float(dot == "#") for row in rows for dot in row]


_SHAPES = torch.tensor(
    [
        _bitmap("####", "#..#", "#..#", "####"),
        _bitmap("#..#", ".##.", ".##.", "#..#"),
        _bitmap(".##.", "####", ".##.", ".##."),
        _bitmap("#...", "##..", "###.", "####"),
        _bitmap("####", "...#", "...#", "####"),
        _bitmap("#.#.", "#.#.", "###.", "..#."),
    ]
)
_COLOURS = torch.tensor(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.8, 0.8, 0], [0.8, 0, 0.8], [0, 0.8, 0.8]], dtype=torch.float32
)
_TEXTURES = (
    2
    * torch.tensor(
        [
            _bitmap("#.#.", "#.#.", "#.#.", "#.#."),
            _bitmap("####", "....", "####", "...."),
            _bitmap("##..", "##..", "..##", "..##"),
            _bitmap("#..#", "#..#", "#..#", "#..#"),
        ]
    )
    - 1
)
