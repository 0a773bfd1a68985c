"""An object that is drawn is found again where its box, its mask and its class in a map say it is, whatever is done."""

import numpy as np
import pytest
import torch
from PIL import Image

from crosshead.data.base import DatasetInfo
from crosshead.data.batching.dense_batches import TrainingMaps, TrainingObjects
from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import encode
from crosshead.data.datasets.dense import ObjectDataset, SegmentationDataset
from crosshead.data.transforms.composing import blend
from crosshead.recipe.schema import AugmentConfig, DataConfig

COLOURS = torch.tensor([[230, 30, 30], [30, 30, 230]]) / 255  # of a class; the ground is grey
INFO = DatasetInfo("drawn", ("red", "blue"), 3, (0.0,) * 3, (1.0,) * 3)
OFF = dict(
    horizontal_flip=0.0,
    crop_scale=None,
    randaugment=None,
    color_jitter=None,
    erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
)
EXACT = {
    "horizontal flip": {"horizontal_flip": 1.0},
    "vertical flip": {"vertical_flip": 1.0},
    "quarter turns": {"quarter_turns": 1.0},
    "copy-paste": {"copy_paste": 1.0},
}
MOVED = {
    "affine": {"affine_degrees": 20.0, "affine_translate": 0.1, "affine_scale": (0.8, 1.3)},
    "mosaic": {"mosaic": 1.0},
    "iou crop": {"iou_crop": 1.0},
    "jitter": {"jitter_range": (0.5, 2.0)},
    "all": {
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "quarter_turns": 0.7,
        "affine_degrees": 9.0,
        "mosaic": 0.5,
    }
    | {"copy_paste": 0.5, "iou_crop": 0.5},
}
DATA = DataConfig(image_size=64, eval_resize=None, interpolation="bilinear")


class Drawn:
    """Pictures of 64 x 48 pixels with a rectangle of each class."""

    generated = True

    def __len__(self):
        return 6

    def name(self, i):
        return f"drawn[{i}]"

    def picture_id(self, i):
        return i + 1

    def subset(self, indices):
        raise NotImplementedError  # not asked for here

    def masks(self, i):
        masks = np.zeros((2, 48, 64), bool)
        masks[0, 4 + i : 20 + i, 6 : 20 + i] = True
        masks[1, 25 : 36 + i, 34 + i : 58] = True
        return masks[::-1].copy() if i % 2 else masks  # so that the one is pasted over the other

    def load(self, i):
        pixels = np.full((48, 64, 3), 128, np.uint8)
        for mask, colour in zip(self.masks(i), COLOURS, strict=True):
            pixels[mask] = (colour * 255).numpy().astype(np.uint8)
        return Image.fromarray(pixels)


class DrawnObjects(Drawn, ObjectDataset):
    def __init__(self, masked=True):
        self.masked = masked

    def sample(self, i):
        masks = self.masks(i)
        sides = [(np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))) for mask in masks]
        boxes = np.array([[x[0], y[0], x[-1] + 1, y[-1] + 1] for x, y in sides], float)
        objects = Objects(
            (48, 64), boxes, np.arange(2), np.zeros(2, bool), masks.sum((1, 2)).astype(float),
            tuple(map(encode, masks)) if self.masked else None,
        )  # fmt: skip
        return self.load(i), objects


class DrawnMaps(Drawn, SegmentationDataset):
    classes = 3

    def sample(self, i):
        masks = self.masks(i)
        return self.load(i), (masks[0] + 2 * masks[1]).astype(np.uint8)


def objects(augment, masked=True, **more):
    batches = TrainingObjects(
        DrawnObjects(masked), DATA, AugmentConfig(**OFF | augment), INFO, seed=0, epoch=more.get("epoch", 0)
    )
    return batches[0, np.arange(6)]


def shown(image, label):
    """Where a picture has the colour of a class."""
    return (image - COLOURS[label][:, None, None]).abs().amax(0) < 0.12


@pytest.mark.parametrize("what", [*EXACT, *MOVED])
def test_an_object_is_where_its_mask_and_its_box_say(what):
    augment = (EXACT | MOVED)[what]
    found = 0
    for epoch in range(2):
        batch = objects(augment, epoch=epoch)
        for image, target in zip(batch.images, batch.targets, strict=True):
            height, width = target["size"].tolist()
            image = image[:, :height, :width]
            for label in (0, 1):
                masks = target["masks"][target["labels"] == label]
                said = masks.any(0) if len(masks) else torch.zeros(height, width, dtype=torch.bool)
                there = shown(image, label)
                # Resized and turned pixels are mixed at borders; the IoU crop leaves out what is centred outside.
                if what in EXACT:
                    assert (said == there).all()
                elif what not in ("iou crop", "all"):
                    assert (said != there).sum() <= 0.3 * there.sum() + 24
                found += int((said & there).sum())
            for box, mask in zip(target["boxes"], target["masks"], strict=True):
                rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
                drawn = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                assert (box - drawn).abs().max() <= (1e-4 if what in EXACT else 1.01)
                assert box.min() >= 0 and box[2] <= width and box[3] <= height
    assert found > 500


@pytest.mark.parametrize("what", [*MOVED, "vertical flip", "quarter turns"])
def test_boxes_alone_go_where_masks_go(what):
    """The same draws move both; of a turned box the corners' box is kept, which holds the object."""
    augment = (EXACT | MOVED)[what] | {"copy_paste": 0.0}
    with_masks, alone = objects(augment), objects(augment, masked=False)
    assert torch.equal(with_masks.images, alone.images)
    if what in ("vertical flip", "quarter turns", "jitter", "iou crop"):
        for one, other in zip(with_masks.targets, alone.targets, strict=True):
            assert torch.allclose(one["boxes"], other["boxes"], atol=1.01) and "masks" not in other


@pytest.mark.parametrize(("share", "labels"), [(0.5, [0, 1]), (0.9, [0]), (0.1, [1])])
def test_objects_of_a_picture_that_hardly_shows_are_left_out(share, labels, monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(share))

    def view(label):
        target = {"boxes": torch.tensor([[1.0, 2, 5, 6]]), "labels": torch.tensor([label])}
        return torch.full((3, 8, 8), 200 * label, dtype=torch.uint8), target

    image, target = blend(view(0), view(1), (0, 0, 0), 1.0)
    assert target["labels"].tolist() == labels and len(target["boxes"]) == len(labels)
    assert image.unique().tolist() == [round(200 * (1 - share))]


def test_mixup_holds_the_objects_of_both():
    plain, mixed = objects({}), objects({"mixup": 64.0})
    counts = [len(target["labels"]) for target in mixed.targets]
    assert counts == [4] * 6 and mixed.images.shape == plain.images.shape
    for image, before, target in zip(mixed.images, plain.images, mixed.targets, strict=True):
        assert torch.equal(target["boxes"][:2], plain.targets[0]["boxes"]) or len(target["boxes"]) == 4
        alone = target["masks"].sum(0) == 0
        assert torch.allclose(image[:, :48][:, alone], before[:, :48][:, alone], atol=0.01)


def test_colours_keep_their_order():
    batch = objects({"photometric": 1.0})
    assert not torch.equal(batch.images, objects({}).images)
    for target, image in zip(batch.targets, batch.images, strict=True):
        red = image[:, :48][:, target["masks"][0].bool()].mean(1)
        assert red.argmax() == 0 or red.max() - red.min() < 0.4  # hue moves by at most 18 degrees


@pytest.mark.parametrize("what", [*EXACT, "affine", "mosaic", "all"])
def test_a_class_is_where_its_map_says(what):
    augment = {
        key: value for key, value in (EXACT | MOVED)[what].items() if key not in ("iou_crop", "jitter_range")
    }
    batch = TrainingMaps(DrawnMaps(), DATA, AugmentConfig(**OFF | augment), INFO, seed=0, epoch=0)[
        0, np.arange(6)
    ]
    assert batch.images.shape == (6, 3, 64, 64) and batch.targets.shape == (6, 64, 64)
    for image, classes in zip(batch.images, batch.targets, strict=True):
        for label in (0, 1):
            said, there = classes == label + 1, shown(image, label)
            assert (said != there).sum() <= (
                0 if what in EXACT or what == "mosaic" else 0.3 * there.sum() + 24
            )
    numbers = {0, 1, 2} if what == "mosaic" else {0, 1, 2, 255}  # four pieces leave nothing uncovered
    assert set(batch.targets.unique().tolist()) == numbers


def test_a_picture_is_moved_the_same_whatever_batch_it_is_in():
    augment = AugmentConfig(**OFF | MOVED["all"] | {"mixup": 1.5, "mixup_prob": 0.5})
    batches = TrainingObjects(DrawnObjects(), DATA, augment, INFO, seed=3, epoch=1)
    whole, alone = batches[0, np.arange(6)], batches[7, np.array([4])]
    height, width = alone.targets[0]["size"].tolist()
    assert torch.equal(whole.images[4, :, :height, :width], alone.images[0, :, :height, :width])
    assert all(torch.equal(whole.targets[4][key], alone.targets[0][key]) for key in alone.targets[0])
    other = TrainingObjects(DrawnObjects(), DATA, augment, INFO, seed=3, epoch=2)[7, np.array([4])]
    assert alone.images.shape != other.images.shape or not torch.equal(alone.images, other.images)


def test_what_can_not_be_done_is_refused():
    with pytest.raises(ValueError, match="these pictures have none"):
        objects({"copy_paste": 0.5}, masked=False)
    with pytest.raises(ValueError, match="both take a piece"):
        objects({"iou_crop": 0.5, "crop_chance": 0.5})
