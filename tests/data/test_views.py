"""Batched views against torchvision's picture by picture ones: the same maps, the same distributions."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from crosshead.data.base import DatasetInfo
from crosshead.data.transforms import views
from crosshead.data.transforms.pipeline import normalise
from crosshead.recipe.schema import AugmentConfig, DataConfig

OFF = AugmentConfig(
    horizontal_flip=0, crop_scale=None, randaugment=None, color_jitter=None, erasing=0, mixup=0, cutmix=0
)
INFO = DatasetInfo("toy", ("a", "b"), 3, (0.0,) * 3, (1.0,) * 3)


def pixels(count: int = 7, height: int = 12, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def drawn(
    images: torch.Tensor, data: DataConfig, index: np.ndarray | None = None, epoch: int = 0, **changes: object
) -> torch.Tensor:
    augment = OFF.model_copy(update=changes)
    numbers = np.arange(len(images)) if index is None else index
    return views.random_views(images, data, augment, INFO, seed=0, epoch=epoch, index=numbers)


def test_with_everything_off_nothing_changes() -> None:
    images = pixels()
    assert drawn(images, DataConfig(image_size=12)).equal(normalise(images, INFO))


def test_a_view_depends_on_its_key_and_not_on_its_batch() -> None:
    options = {"horizontal_flip": 0.5, "crop_scale": (0.3, 1.0), "affine_degrees": 15.0, "erasing": 0.5}
    images, data = pixels(9), DataConfig(image_size=12)
    whole = drawn(images, data, **options)
    some = np.array([5, 2, 8])
    assert drawn(images[some], data, some, **options).equal(whole[some])
    assert not drawn(images, data, epoch=1, **options).equal(whole)


def test_flips_are_exact_and_of_the_given_share() -> None:
    images = pixels(400, 3, 5)
    data = DataConfig(image_size=(3, 5), interpolation="nearest")
    out = drawn(images, data, horizontal_flip=0.3)
    plain = normalise(images, INFO)
    flipped = (out == plain.flip(-1)).flatten(1).all(1)
    assert ((out == plain).flatten(1).all(1) ^ flipped).all()
    assert 0.23 < flipped.float().mean() < 0.37  # 3 standard errors


@pytest.mark.parametrize("size", [(12, 12), (8, 14)])
def test_an_affine_map_is_that_of_torchvision(size: tuple[int, int]) -> None:
    images = pixels(1, *size)
    data = DataConfig(image_size=size, interpolation="bilinear")
    for degrees, scale in ((0.0, 0.7), (0.0, 1.4)):
        got = drawn(images, data, affine_degrees=degrees, affine_scale=(scale, scale))
        want = v2.functional.affine(
            images.float() / 255, degrees, [0, 0], scale, [0.0, 0.0], v2.InterpolationMode.BILINEAR
        )
        assert torch.allclose(got, want, atol=2e-5)
    # One angle alone can't be asked for: read it off its key.
    got = drawn(images, data, affine_degrees=40.0)
    turn = views._Draws(0, 0, np.array([0])).between("affine angle", -40, 40)[0, 0]
    want = v2.functional.affine(
        images.float() / 255, turn, [0, 0], 1.0, [0.0, 0.0], v2.InterpolationMode.BILINEAR
    )
    assert torch.allclose(got, want, atol=2e-5)


def test_a_shift_moves_the_picture_and_leaves_black() -> None:
    images = torch.full((200, 3, 10, 10), 255, dtype=torch.uint8)
    out = drawn(images, DataConfig(image_size=10, interpolation="bilinear"), affine_translate=0.3)[:, 0]
    light = out.mean((1, 2))
    # A shift of (a, b), each uniform in -0.3 ... 0.3 of the side, leaves (1 - |a|)(1 - |b|) of the light.
    assert abs(light.mean().item() - 0.85**2) < 0.03 and light.min() > 0.7**2 - 0.02


def test_crops_have_the_areas_and_ratios_asked_for() -> None:
    # Brightness along x and y tells from where to where a view reaches.
    side = 64
    ramp = torch.arange(side, dtype=torch.uint8) * 4
    images = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), ramp.expand(side, side)])
    data = DataConfig(image_size=side, interpolation="bilinear")
    out = (
        drawn(images.expand(500, 3, side, side), data, crop_scale=(0.2, 0.6), crop_ratio=(0.5, 2.0)) * 255 / 4
    )
    wide = (out[:, 0, 8, 56] - out[:, 0, 8, 8]) / 48
    high = (out[:, 1, 56, 8] - out[:, 1, 8, 8]) / 48
    area, ratio = wide * high, wide / high
    assert area.min() > 0.19 and area.max() < 0.61 and ratio.min() > 0.47 and ratio.max() < 2.1
    assert abs(area.mean().item() - 0.4) < 0.03
    assert abs(ratio.log().mean().item()) < 0.08
    corner = out[:, 0, 32, 32] - wide * 32.5
    assert corner.min() > -1.5 and (corner + wide * side).max() < side + 1.5


def test_a_crop_that_cannot_fit_is_the_largest_within_the_ratios() -> None:
    draws = views._Draws(0, 0, np.arange(3))
    maps = views._crop(10, 100, (0.9, 1.0), (0.5, 2.0), draws)
    assert np.allclose(maps[:, 0, 0], 0.2) and np.allclose(maps[:, 1, 1], 1.0)
    assert np.allclose(maps[:, :2, 2], 0)


def test_smaller_pictures_are_enlarged_and_grey_ones_get_their_channels() -> None:
    grey = pixels(4)[:, :1]
    out = drawn(grey, DataConfig(image_size=20), crop_scale=(0.5, 1.0), horizontal_flip=0.5)
    assert out.shape == (4, 3, 20, 20) and out[:, 0].equal(out[:, 2])
    assert out.min() >= 0 and out.max() <= 1


def test_erasing_hits_the_given_share_and_nothing_else() -> None:
    images, data = pixels(300), DataConfig(image_size=12)
    out, plain = drawn(images, data, erasing=0.25), normalise(images, INFO)
    touched = (out != plain).flatten(1).any(1)
    assert 0.17 < touched.float().mean() < 0.33  # 3 standard errors
    assert (out != plain).any(1)[touched].float().mean() < 0.4
    assert (
        drawn(images, data, erasing=1.0, erasing_mode="const").eq(0).flatten(1).any(1).float().mean() > 0.95
    )
