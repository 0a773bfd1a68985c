"""Sheets of maps: the picture pixel by pixel, even attention as a yardstick, what stands above a map."""

import numpy as np
import pytest
import torch
from PIL import Image

from crosshead.heads import sheets
from crosshead.heads.picture import attention_maps
from crosshead.heads.sheets import BlockMaps, draw_sheet
from heads.small_models import MODELS, images, vit


@pytest.mark.parametrize(("width", "times"), [(60, 4), (300, 1)])
def test_the_picture_is_drawn_pixel_by_pixel(tmp_path, width, times):
    picture = np.random.default_rng(0).integers(0, 256, (40, width, 3), dtype=np.uint8)
    block = BlockMaps("block 0: plain attention", [0, 1], np.full((2, 4, 6), 1 / 24), np.full((4, 6), 1 / 24))
    draw_sheet(tmp_path / "sheet.png", picture, [block], title="title", said="prediction: 3 at 50%")
    with Image.open(tmp_path / "sheet.png") as sheet:
        drawn = np.asarray(sheet.convert("RGB"))[14:, 14:][: 40 * times, : width * times]
    assert np.array_equal(drawn, picture.repeat(times, 0).repeat(times, 1))


def test_an_even_map_is_one_colour_in_the_middle_of_the_scale_against_even_attention(tmp_path):
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    block = BlockMaps("block 0", [0], np.full((1, 2, 2), 0.2), np.full((2, 2), 0.2))
    draw_sheet(tmp_path / "sheet.png", picture, [block], title="t", overlay=False, scale="even")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    left, top = 2 * 14 + 240, 14 + 2 * 14
    drawn = pixels[top + 2 : top + 160, left + 2 : left + 160]
    assert np.ptp(drawn, axis=(0, 1)).max() == 0 and abs(drawn[0, 0] - 247).max() <= 2  # white of PuOr


def test_maps_that_are_no_attention_are_held_against_nothing(tmp_path):
    block = BlockMaps("rollout of all blocks", None, np.full((1, 2, 2), 0.2))
    assert sheets._head_title(block, 0, 0.2) == "up to 20 % a patch"  # it is no head's
    assert sheets._palettes([block], "head") == {"inferno": ("0", "", "highest")}
    with pytest.raises(ValueError, match="no shares of attention"):
        draw_sheet(tmp_path / "s.png", np.zeros((8, 8, 3), np.uint8), [block], title="t", scale="even")


def test_a_ring_stands_in_the_middle_of_its_patch():
    assert sheets._centred((9, 3), (4, 4), (16, 16)) == (9.5, 1.5)
    assert sheets._centred((15.9, 0), (2, 4), (16, 32)) == (11.5, 3.5)
    assert sheets._centred((1, 2, 3, 4), (4, 4), (16, 16)) == (1, 2, 3, 4)


def test_even_attention_is_that_of_all_keys_a_query_may_see():
    flat, picture = vit(), images(16, 1)
    for block in flat.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
        torch.nn.init.zeros_(block.attn.qkv.bias)
    for found in attention_maps(flat, picture):
        torch.testing.assert_close(found.maps, found.even.expand_as(found.maps), rtol=1e-5, atol=1e-7)
        assert found.even[0, 0].item() == pytest.approx(1 / 17)  # the class token is one of them
    swin = MODELS["plain swin"]()[0]
    for found in attention_maps(swin, images(32, 1), (5, 5)):
        assert found.even.nansum().item() == pytest.approx(1)
        assert torch.equal(found.even.isnan(), found.maps[0].isnan())


def test_maps_without_a_unit_are_told_as_a_share_of_the_strongest():
    block = BlockMaps("block 0: plain attention", [3], np.array([[[0.0, 1e-5]]]))
    assert sheets._head_title(block, 0, 4e-5) == "head 3: 25 % of the strongest"


def test_the_bar_has_the_colours_of_the_maps_over_the_picture(tmp_path):
    """A map is drawn over the picture, and so is the bar: its top over a light ground, its foot over a dark one."""
    picture = np.full((40, 40, 3), 128, dtype=np.uint8)
    block = BlockMaps("block 0", [0], np.array([[[1.0, 0.0]]]))
    draw_sheet(tmp_path / "sheet.png", picture, [block], title="t")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    left, top = 2 * 14 + 240, 14 + 2 * 14
    brightest, darkest = pixels[top + 84, left + 40], pixels[top + 84, left + 120]
    below = pixels[14 + 240 + 30 :, 14 : 14 + 240]
    bar = below[(below.max(-1) < 250).sum(-1) > 200]  # the rows of the bar
    for column, colour in ((-2, brightest), (1, darkest)):
        assert np.abs(bar[:, column] - colour).sum(-1).min() < 30
        assert np.abs(np.diff(bar[[0, -1], column], axis=0)).sum() > 60
