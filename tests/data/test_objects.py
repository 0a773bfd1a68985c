"""Pictures with objects: batches of them, and boxes and masks that stay on what they mark."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from crosshead.data.batching.dense_batches import EvaluationObjects, TrainingObjects, padded
from crosshead.data.batching.loader import evaluation_loader, training_loader
from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import RLE, decode, decode_columns, encode
from crosshead.data.decode.images import BrokenImage
from crosshead.data.transforms.object_window import Window, boxes_of
from crosshead.data.transforms.objects import ObjectAugmentation, whole_object_picture
from crosshead.recipe.schema import AugmentConfig, DataConfig
from detect_files import no_objects
from opening import open_data

PLAIN = AugmentConfig(horizontal_flip=0.0)
DATA = DataConfig(name="scenes", image_size=(40, 52), batch_size=4)


@pytest.fixture(scope="module")
def scenes():
    return open_data(DATA, seed=3)


def test_scenes_have_boxes_around_their_masks(scenes):
    assert scenes.info.class_names == tuple("0123456789")
    assert (scenes.train.counted, scenes.train.masked) == ("objects", True)
    picture, objects = scenes.test.sample(5)
    assert (picture.height, picture.width) == objects.size == (40, 52)
    assert len(objects) and np.array_equal(boxes_of(torch.from_numpy(objects.whole_masks())), objects.boxes)
    part = scenes.test.subset(np.array([7, 5]))
    assert part.name(1) == scenes.test.name(5) and part.picture_id(1) == scenes.test.picture_id(5) == 6
    assert part.load(1).tobytes() == picture.tobytes()


# Everything that may happen to a picture, and what its size is to be then.
WAYS = {
    "as it is": ({}, {}),
    "flipped": ({}, {"horizontal_flip": 1.0}),
    "resized": ({"eval_resize": 60, "longest": 70}, {"photometric": 0.5}),
    "many sizes": ({"longest": 100}, {"short_sides": [30, 64, 91], "horizontal_flip": 0.5}),
    "pieces": ({"eval_resize": 57}, {"crop_chance": 1.0, "horizontal_flip": 0.5}),
    "jitter": ({"image_size": (64, 48)}, {"jitter_range": (0.4, 2.0), "crop_chance": 0.5}),
}


@pytest.mark.parametrize("way", WAYS)
def test_boxes_are_those_of_their_masks_whatever_happens(scenes, way):
    data, augment = (old.model_copy(update=new) for old, new in zip((DATA, PLAIN), WAYS[way], strict=True))
    batches = TrainingObjects(scenes.train, data, augment, scenes.info, seed=1, epoch=2)
    batch = batches[0, np.arange(12)]
    assert batch.images.dtype == torch.float32 and not any(side % 32 for side in batch.images.shape[-2:])
    found = 0
    for image, target in zip(batch.images, batch.targets, strict=True):
        height, width = target["size"].tolist()
        boxes, labels, masks = target["boxes"], target["labels"], target["masks"]
        assert masks.dtype == torch.uint8 and masks.shape == (len(labels), height, width)
        assert (
            boxes.dtype == torch.float32 and boxes.shape == (len(labels), 4) and labels.dtype == torch.int64
        )
        assert masks.flatten(1).any(1).all()
        if len(boxes):
            assert (boxes_of(masks) - boxes).abs().max() <= 1
        assert type(boxes) is type(masks) is type(image) is torch.Tensor
        assert not image[:, height:].any() and not image[:, :, width:].any()
        found += len(labels)
    assert found > 6


def marked(size, *, ink=255):
    """A grey picture with two bright rectangles, of which the second is a crowd, and a third object on the border."""
    pixels = np.zeros(size, np.uint8)
    masks = np.zeros((3, *size), bool)
    masks[0, 4:10, 6:16] = masks[1, 12:15, 1:4] = masks[2, 3:9, size[1] - 2 :] = True
    pixels[masks[0] | masks[2]] = ink
    boxes = boxes_of(torch.from_numpy(masks)).numpy()
    areas = masks.sum((1, 2)).astype(np.float64)
    objects = Objects(
        size, boxes, np.array([4, 1, 2]), np.array([False, True, False]), areas, [encode(m) for m in masks]
    )
    return Image.fromarray(pixels), objects


@pytest.mark.parametrize("way", WAYS)
def test_masks_lie_on_the_pixels_that_they_mark(scenes, way):
    data, augment = (old.model_copy(update=new) for old, new in zip((DATA, PLAIN), WAYS[way], strict=True))
    augment = augment.model_copy(update={"photometric": 0.0})
    change = ObjectAugmentation(data, augment, replace(scenes.info, mean=(0.0,) * 3, std=(1.0,) * 3))
    picture, objects = marked((20, 30))
    for seed in range(8):
        torch.manual_seed(seed)
        image, target = change(picture, objects)
        assert set(target["labels"].tolist()) <= {2, 4}, "crowds are nothing to learn"
        bright, marks = (image[0] > 0.5).float(), target["masks"].any(0).float()
        around, inside = _grown(marks), 1 - _grown(1 - marks)
        assert not (inside * (1 - bright)).any()
        assert not (bright * (1 - around)).any() or len(target["labels"]) < 2


def _grown(mask):
    return torch.nn.functional.max_pool2d(mask[None], 3, 1, 1)[0]


def test_masks_in_a_window_are_those_of_whole_masks_there():
    """Masks that are empty, full, of one pixel, at every edge; windows that cut, enlarge, and see nothing of them."""
    draw = np.random.default_rng(0)
    masks = [np.zeros((7, 9), bool), np.ones((7, 9), bool), draw.random((7, 9)) < 0.3]
    for row, column in ((0, 0), (6, 8), (0, 8), (6, 0), (3, 4)):
        masks.append(np.zeros((7, 9), bool))
        masks[-1][row, column] = True
    masks.append(np.pad(np.ones((7, 3), bool), ((0, 0), (3, 3))))
    coded = [*map(encode, masks), RLE((7, 9), np.array([0, 0, 63]))]
    for rle in coded:
        first, strip = decode_columns(rle)
        whole = np.zeros((9, 7), bool)
        whole[first : first + len(strip)] = strip
        assert (decode(rle) == whole.T).all() and len(strip) in (0, 1, 3, 9)
    for window in (
        Window((0, 0, 7, 9), (7, 9), (0, 0, 7, 9)),
        Window((0, 0, 7, 9), (15, 20), (2, 3, 11, 13)),
        Window((2, 3, 4, 5), (3, 4), (0, 0, 3, 4)),
        Window((1, 5, 6, 4), (13, 9), (5, 4, 3, 5)),
    ):
        rows, columns = (
            window.piece[k]
            + (
                (np.arange(window.kept[k + 2]) + window.kept[k] + 0.5) * window.piece[k + 2] / window.size[k]
            ).astype(int)
            for k in (0, 1)
        )
        wanted = np.stack([decode(rle)[np.ix_(rows, columns)] for rle in coded])
        assert (window.masks(coded).numpy() == wanted).all()


def test_without_masks_and_without_objects(scenes):
    picture, objects = marked((20, 30))
    change = ObjectAugmentation(
        DATA, PLAIN.model_copy(update={"crop_chance": 1.0, "horizontal_flip": 0.5}), scenes.info
    )
    for each in (replace(objects, masks=None), no_objects((20, 30), masks=False)):
        _, target = change(picture, each)
        assert "masks" not in target and target["boxes"].shape == (len(target["labels"]), 4)
    _, target = change(picture, no_objects((20, 30), masks=True))
    assert target["masks"].shape == (0, *target["size"].tolist()) and target["boxes"].shape == (0, 4)
    crowd = replace(objects, crowd=np.ones(3, bool))
    assert not len(change(picture, crowd)[1]["labels"])


def test_evaluation_keeps_the_pictures_own_pixels(scenes):
    data = DATA.model_copy(update={"eval_resize": 70, "longest": 80})
    batch = EvaluationObjects(scenes.validation, data, scenes.info)[0, np.array([3, 9])]
    assert batch.images.shape == (2, 3, 64, 96)
    for i, target in zip((3, 9), batch.targets, strict=True):
        assert target["size"].tolist() == [62, 80] and target["own"].tolist() == [40, 52]
        assert target["id"] == i + 1 and target["size"].dtype == target["own"].dtype == torch.int64
        want = scenes.validation.sample(i)[1]
        assert np.array_equal(target["objects"].boxes, want.boxes)
    as_it_is = DATA.model_copy(update={"longest": 60})
    assert whole_object_picture(marked((40, 90))[0], as_it_is, scenes.info).shape == (3, 27, 60)
    assert whole_object_picture(marked((40, 52))[0], as_it_is, scenes.info).shape == (3, 40, 52)
    grey = replace(scenes.info, channels=1, mean=(0.0,), std=(1.0,))
    assert whole_object_picture(marked((40, 52))[0], DATA, grey).shape == (1, 40, 52)


def test_sizes_that_fill_the_memory_are_broken_pictures(scenes):
    data = DATA.model_copy(update={"eval_resize": 9000})
    with pytest.raises(BrokenImage, match=r"above data\.max_megapixels"):
        whole_object_picture(marked((40, 90))[0], data, scenes.info)


def test_settings_that_overrule_each_other_are_refused(scenes):
    augment = PLAIN.model_copy(update={"short_sides": [10], "jitter_range": (0.1, 2.0)})
    with pytest.raises(ValueError, match=r"jitter_range and augment\.short_sides"):
        ObjectAugmentation(DATA, augment, scenes.info)
    with pytest.raises(ValueError, match=r"data\.image_size is null"):
        jitter = PLAIN.model_copy(update={"jitter_range": (0.1, 2.0)})
        ObjectAugmentation(DATA.model_copy(update={"image_size": None}), jitter, scenes.info)


def everything(batch):
    targets = [sorted(target.items()) for target in batch.targets]
    return repr((batch.images, targets, batch.index, batch.names)), batch.images.sum().item()


@pytest.mark.parametrize("jitter", [None, (0.5, 1.5)])
def test_batches_are_the_same_from_workers_and_from_the_middle(scenes, jitter):
    augment = PLAIN.model_copy(
        update={"horizontal_flip": 0.5, "photometric": 0.5, "crop_chance": 0.5, "jitter_range": jitter}
    )
    train = scenes.train.subset(np.arange(20))

    def epoch(workers, **place):
        data = DATA.model_copy(update={"num_workers": workers})
        return training_loader(TrainingObjects(train, data, augment, scenes.info, seed=5, epoch=1), **place)

    want = [everything(batch) for batch in epoch(0)]
    assert len(want) == 5 and [everything(batch) for batch in epoch(2)] == want
    assert [everything(batch) for batch in epoch(1, start=8)] == want[2:]
    halves = [
        index
        for rank in (0, 1)
        for batch in epoch(0, rank=rank, world_size=2)
        for index in batch.index.tolist()
    ]
    assert len(set(halves)) == len(halves) == 16
    held = EvaluationObjects(scenes.validation.subset(np.arange(7)), DATA, scenes.info)
    assert [batch.index.tolist() for batch in evaluation_loader(held)] == [[0, 1, 2, 3], [4, 5, 6]]


def test_a_batch_without_pictures_keeps_its_shape():
    assert padded([], 3).shape == (0, 3, 32, 32)
    assert padded([torch.ones(1, 3, 33)], 1, (40, 1), 4).shape == (1, 1, 40, 36)
