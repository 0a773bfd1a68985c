"""Mixed images and targets belong together."""

import pytest
import torch

from crosshead.data.transforms.composing import Mixing
from crosshead.recipe.schema import AugmentConfig


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Constant pictures: picture i is i everywhere, and so is its class."""
    classes = torch.arange(count)
    return classes.float().view(-1, 1, 1, 1).expand(count, 3, 20, 20).contiguous(), classes


def mixed(count: int = 5, position: int = 0, **changes: float) -> tuple[torch.Tensor, torch.Tensor]:
    augment = AugmentConfig(**changes)  # type: ignore[arg-type]
    return Mixing(augment, classes=count)(*batch(count), seed=0, epoch=0, position=position)


@pytest.mark.parametrize("count", [1, 2, 5, 7, 64])
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_are_the_shares_of_the_pixels(count: int, mixup: float, cutmix: float) -> None:
    for position in range(6):
        images, targets = mixed(count, position, mixup=mixup, cutmix=cutmix)
        assert targets.shape == (count, count) and torch.allclose(targets.sum(1), torch.ones(count))
        # The mean of a picture is the mean class that its target tells.
        told = (targets * torch.arange(count)).sum(1)
        assert torch.allclose(images.mean((1, 2, 3)), told, atol=1e-4)


def test_mixup_blends_and_cutmix_pastes() -> None:
    blended, _ = mixed(mixup=0.8, cutmix=0.0)
    assert all(len(image.unique()) == 1 for image in blended)
    pasted = [mixed(position=p, mixup=0.0, cutmix=1.0)[0] for p in range(10)]
    assert all((images == images.round()).all() for images in pasted)
    assert any(len(image.unique()) == 2 for images in pasted for image in images)


def test_shares_of_the_kinds() -> None:
    results = [mixed(position=p, mixup_prob=0.75, mixup_switch_prob=0.4) for p in range(400)]
    unmixed = sum(targets.dtype == torch.int64 for _, targets in results)
    pasted = sum(
        targets.dtype != torch.int64 and bool((images == images.round()).all()) for images, targets in results
    )
    assert abs(unmixed - 100) < 30 and abs(pasted - 120) < 35  # three standard errors and a little


def test_the_draw_is_a_function_of_the_position() -> None:
    torch.manual_seed(0)
    first = mixed(position=3)
    torch.manual_seed(1)
    again, other = mixed(position=3), mixed(position=4)
    assert first[0].equal(again[0]) and first[1].equal(again[1]) and not first[0].equal(other[0])


def test_without_mixing_the_targets_stay_class_indices() -> None:
    images, targets = mixed(mixup=0.0, cutmix=0.0)
    assert images.equal(batch(5)[0]) and targets.equal(batch(5)[1])
    nothing = torch.empty(0, 3, 4, 4), torch.empty(0, dtype=torch.int64)
    images, targets = Mixing(AugmentConfig(), 5)(*nothing, seed=0, epoch=0, position=0)
    assert len(images) == len(targets) == 0
