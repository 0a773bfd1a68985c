"""The picture by picture transforms: sizes, channels, the whole recipe, odd shapes."""

import random

import numpy as np
import pytest
import torch
from odd_files import picture
from PIL import Image
from torch import Tensor

from crosshead.data.base import DatasetInfo
from crosshead.data.decode.images import BrokenImage
from crosshead.data.random import seeded_globals
from crosshead.data.transforms.pipeline import evaluation_transform, normalise, training_transform
from crosshead.recipe.schema import AugmentConfig, DataConfig

OFF = AugmentConfig(
    horizontal_flip=0, crop_scale=None, randaugment=None, color_jitter=None, erasing=0, mixup=0, cutmix=0
)


def info(channels: int = 3) -> DatasetInfo:
    return DatasetInfo("toy", ("a", "b"), channels, (0.5,) * channels, (0.25,) * channels)


def raw(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [32, (24, 40)])
def test_the_whole_recipe_gives_what_the_model_wants(
    channels: int, mode: str, size: int | tuple[int, int]
) -> None:
    data = DataConfig(image_size=size, channels=channels)  # type: ignore[arg-type]
    height, width = (size, size) if isinstance(size, int) else size
    augment = AugmentConfig(affine_degrees=10, affine_translate=0.1, affine_scale=(0.9, 1.1))
    for make in (
        training_transform(data, augment, info(channels)),
        evaluation_transform(data, info(channels)),
    ):
        for source in (picture(), picture(height=61, width=37)):
            out = make(source.convert(mode))
            assert out.shape == (channels, height, width) and out.dtype == torch.float32
            assert out.isfinite().all()


def test_the_recipe_runs_at_every_strength_of_every_operation() -> None:
    # Many draws: timm's strongest posterizing keeps 0 bits, which Pillow 13 refuses.
    transform = training_transform(
        DataConfig(image_size=8), AugmentConfig(randaugment="rand-m10-n4-p1-inc1"), info()
    )
    with seeded_globals() as seed_all:
        for seed in range(150):
            seed_all(seed)
            assert transform(picture()).isfinite().all()


def test_with_everything_off_training_shows_what_evaluation_shows() -> None:
    data = DataConfig(image_size=20, interpolation="bilinear")
    source = picture(height=30, width=50)
    train, evaluate = training_transform(data, OFF, info()), evaluation_transform(data, info())
    assert train(source).equal(evaluate(source))


def test_normalising_is_the_formula() -> None:
    source = picture()
    assert torch.allclose(normalise(source, info()), (raw(source) - 0.5) / 0.25)
    assert normalise(source.convert("L"), info(3)).shape == (3, 12, 16)
    assert torch.allclose(normalise(source, info(1)), (raw(source.convert("L")) - 0.5) / 0.25)


def test_evaluation_resizes_the_shorter_side_and_crops_the_centre() -> None:
    source = Image.fromarray(np.tile(np.arange(100, dtype=np.uint8), (50, 1)))
    whole = evaluation_transform(DataConfig(image_size=50, channels=1), info(1))(source)
    want = raw(source)[:, :, 25:75]
    assert torch.allclose(whole * 0.25 + 0.5, want, atol=1e-6)
    inner = evaluation_transform(DataConfig(image_size=40, eval_resize=50, channels=1), info(1))(source)
    assert torch.allclose(inner * 0.25 + 0.5, raw(source)[:, 5:45, 30:70], atol=1e-6)


def test_a_crop_larger_than_the_resized_picture_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"eval_resize is 20, below data.image_size 32 x 32"):
        evaluation_transform(DataConfig(image_size=32, eval_resize=20), info())(picture())


def test_randaugment_that_timm_does_not_know_is_an_error() -> None:
    for spec in ("auto", "rand-mlots", "rand-m9-tnothing"):
        with pytest.raises(ValueError, match=r"augment.randaugment is .*rand-m9-mstd0.5-inc1"):
            training_transform(DataConfig(), AugmentConfig(randaugment=spec), info())


def test_a_thin_picture_is_refused_before_it_fills_the_memory() -> None:
    thin = Image.new("RGB", (100_000, 1))
    data = DataConfig(image_size=224)
    for transform in (evaluation_transform(data, info()), training_transform(data, OFF, info())):
        with pytest.raises(BrokenImage, match="100000 x 1 pixels would be resized to 22400000 x 224"):
            transform(thin)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 2)])
def test_tiny_and_oblong_pictures_pass(size: tuple[int, int]) -> None:
    out = training_transform(DataConfig(image_size=16), AugmentConfig(), info())(Image.new("RGB", size))
    assert out.shape == (3, 16, 16)


def test_the_draws_come_from_the_seeded_generators_alone() -> None:
    transform = training_transform(DataConfig(image_size=16), AugmentConfig(erasing=1.0), info())
    with seeded_globals() as seed_all:
        views = []
        for seed in (7, 8, 7):
            random.random()
            seed_all(seed)
            views.append(transform(picture()))
    assert views[0].equal(views[2]) and not views[0].equal(views[1])


def test_colour_jitter_serves_only_without_randaugment() -> None:
    both = training_transform(DataConfig(), AugmentConfig(color_jitter=0.4), info())
    jitter = training_transform(DataConfig(), AugmentConfig(color_jitter=0.4, randaugment=None), info())
    assert "ColorJitter" not in repr(both) and "RandAugment" in repr(both)
    assert "ColorJitter" in repr(jitter)
