"""Several views of a picture, brought back onto it; and what is made of what overlaps."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import batched_nms

from crosshead.tasks.augmented import SCALES, found_in_views, mean_logits, mean_maps, pixel_factor, view_count
from crosshead.tasks.detect.merging import merged

KINDS = (["flip"], ["scales"], ["flip", "scales"])


@pytest.mark.parametrize("kinds", KINDS)
def test_a_model_that_sees_no_difference_says_the_same(kinds):
    """Colours' means alone: views change nothing, and the mean is what one view says."""
    images = torch.rand(3, 4, 1, 1).expand(3, 4, 24, 24)
    asked = []

    def model(seen):
        asked.append(seen.shape)
        return seen.mean((2, 3)) * 3

    found = mean_logits(model, images, kinds)
    assert len(asked) == view_count(kinds) and {shape[-2:] for shape in asked} == {(24, 24)}
    torch.testing.assert_close(found.softmax(-1), model(images).softmax(-1))


def test_the_mean_is_of_probabilities():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def model(seen):
        return seen[:, :, :, :4].mean((2, 3)) * 5

    wanted = (model(images).softmax(-1) + model(images.flip(-1)).softmax(-1)) / 2
    torch.testing.assert_close(mean_logits(model, images, ["flip"]).exp(), wanted)


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("size", [(64, 96), (50, 71)])
def test_maps_lie_on_one_another(kinds, size):
    """A model that says what colour each cell has: mirrored and resized views agree on where the edge is."""
    images = torch.zeros(1, 2, *size)
    images[:, 0, :, : size[1] // 2], images[:, 1, :, size[1] // 2 :] = 9.0, 9.0
    asked = []

    def model(seen):
        asked.append(seen.shape[-2:])
        assert seen.shape[-1] % 8 == 0, "a view is covered by its grid"
        return F.avg_pool2d(seen, 4)

    found = mean_maps(model, images, kinds, 8)
    alone = model(F.pad(images, (0, -size[1] % 8, 0, -size[0] % 8)))
    rows, columns = (side // 4 for side in size)
    edge = size[1] // 2 // 4
    same = found.argmax(1)[:, :rows] == alone.argmax(1)[:, :rows]
    assert found.shape == alone.shape and same[..., : edge - 1].all() and same[..., edge + 2 : columns].all()
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))
    assert len(set(asked)) == (3 if "scales" in kinds else 1)


@pytest.mark.parametrize("kinds", KINDS)
def test_boxes_come_back_to_where_the_object_is(kinds):
    """A detector that boxes what is bright, with a mask of its left half, on pictures of two sizes in one batch."""
    images = torch.zeros(2, 1, 64, 96)
    places, sizes = [(10, 20, 30, 60), (4, 8, 28, 40)], [(64, 96), (48, 32)]
    for image, (x1, y1, x2, y2) in zip(images, places, strict=True):
        image[:, y1:y2, x1:x2] = 1.0
    count = 0

    def detect(seen, sides):
        nonlocal count
        count += 1
        found = []
        for image, (h, w) in zip(seen, sides, strict=True):
            y, x = (image[0, :h, :w] > 0.5).nonzero().T
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])[None].float()
            mask = torch.zeros(1, 1, 4, 4)
            mask[..., :2] = 1.0
            found.append(
                {"boxes": box, "labels": torch.tensor([0]), "scores": torch.tensor([0.9]), "masks": mask}
            )
        return found

    views = found_in_views(detect, images, sizes, kinds)
    assert count == view_count(kinds) == len(views[0])
    for parts, place in zip(views, places, strict=True):
        for part in parts:
            assert (part["boxes"] - torch.tensor(place)).abs().max() <= 1.4 / min(SCALES)
    flips = [part["masks"][0, 0, 0].tolist() for part in views[0]]
    assert flips.count([0, 0, 1, 1]) == (len(flips) // 2 if "flip" in kinds else 0)


def findings(*entries):
    boxes, labels, scores = zip(*entries, strict=True)
    return {
        "boxes": torch.tensor(boxes).float(),
        "labels": torch.tensor(labels),
        "scores": torch.tensor(scores),
    }


FOUND = findings(
    ((0, 0, 10, 10), 0, 0.9), ((1, 0, 11, 10), 0, 0.8), ((0, 0, 10, 10), 1, 0.7), ((40, 40, 50, 50), 0, 0.6)
)


def test_nms_is_torchvisions():
    kept = batched_nms(FOUND["boxes"], FOUND["scores"], FOUND["labels"], 0.5)
    found = merged([FOUND], "nms", 0.5, 100)
    assert (found["boxes"] == FOUND["boxes"][kept]).all() and len(found["scores"]) == 3
    assert len(merged([FOUND], "nms", 0.5, 2)["scores"]) == 2


def test_soft_nms_keeps_all_with_lower_scores():
    found = merged([FOUND], "soft_nms", 0.5, 100)
    overlap = 90 / 110
    wanted = [0.9, 0.7, 0.6, 0.8 * float(torch.exp(torch.tensor(-(overlap**2) / 0.5)))]
    assert found["scores"].tolist() == pytest.approx(wanted)


def test_weighted_fusion_is_the_weighted_mean_of_what_overlaps():
    other = findings(((2, 0, 12, 10), 0, 0.6))
    found = merged([FOUND, other], "weighted", 0.5, 100)
    x1 = (0 * 0.9 + 1 * 0.8 + 2 * 0.6) / 2.3
    top = found["boxes"][found["scores"].argmax()]
    assert top.tolist() == pytest.approx([x1, 0, x1 + 10, 10], abs=1e-4)
    # Seen by both views; the others by one of two.
    assert sorted(found["scores"].tolist()) == pytest.approx([0.3, 0.35, 2.3 / 3], abs=1e-5)


@pytest.mark.parametrize("how", ["nms", "soft_nms", "weighted"])
def test_nothing_and_no_number_are_told_as_they_are(how):
    nothing = {name: values[:0] for name, values in FOUND.items()}
    assert len(merged([nothing, nothing], how, 0.5, 100)["scores"]) == 0
    broken = FOUND | {"scores": torch.full((4,), torch.nan)}
    assert merged([broken], how, 0.5, 100)["scores"].isnan().all()


def test_the_cost_is_told_in_pixels():
    assert pixel_factor(["flip"], whole=True) == 2 and pixel_factor(["scales"], whole=False) == 3
    assert pixel_factor(["flip", "scales"], whole=True) == pytest.approx(2 * (0.75**2 + 1 + 1.25**2))
