"""What each augmentation of pictures with boxes, masks and maps costs a picture, beside torchvision's v2 of its kind.

    python benchmarks/augmentations.py

A made picture of 640 x 480 pixels with 20 boxes, with masks besides, or with a map, goes through the pipeline that
training has, decoding left out: once with nothing but colours read and numbers normalised, and once with one
augmentation that always happens. torchvision's transforms v2 do the same beside it, with boxes: its own augmentation
between ``ToImage`` and ``Normalize``. All in turn, in one process.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from crosshead.data.base import DatasetInfo
from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import encode
from crosshead.data.transforms.maps import MapAugmentation
from crosshead.data.transforms.objects import ObjectAugmentation
from crosshead.recipe.schema import AugmentConfig, DataConfig
from interleave import RESULTS, compare, conditions, report

WIDTH, HEIGHT, BOXES = 640, 480, 20
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INFO = DatasetInfo("made", ("a", "b"), 3, MEAN, STD)
DATA = DataConfig(image_size=(HEIGHT, WIDTH), interpolation="bilinear")
NOTHING = dict(
    horizontal_flip=0.0,
    crop_scale=None,
    randaugment=None,
    color_jitter=None,
    erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
)
# One augmentation that always happens, and torchvision's of the same kind, where it has one.
OURS = {
    "horizontal flip": {"horizontal_flip": 1.0},
    "vertical flip": {"vertical_flip": 1.0},
    "quarter turns": {"quarter_turns": 1.0},
    "affine": {"affine_degrees": 10.0, "affine_translate": 0.1, "affine_scale": (0.9, 1.1)},
    "photometric": {"photometric": 0.5},
    "jitter": {"jitter_range": (0.5, 1.5)},
    "iou crop": {"iou_crop": 1.0},
    "mosaic": {"mosaic": 1.0},
    "copy-paste": {"copy_paste": 1.0},
    "mixup": {"mixup": 1.5, "mixup_prob": 1.0},
}
THEIRS: dict[str, list[v2.Transform]] = {
    "horizontal flip": [v2.RandomHorizontalFlip(1.0)],
    "vertical flip": [v2.RandomVerticalFlip(1.0)],
    "affine": [v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR)],
    "photometric": [v2.RandomPhotometricDistort(p=0.5)],
    "jitter": [
        v2.ScaleJitter((HEIGHT, WIDTH), (0.5, 1.5)),
        v2.RandomCrop((HEIGHT, WIDTH), pad_if_needed=True),
    ],
    "iou crop": [v2.RandomIoUCrop()],
}
ON_MAPS = ("horizontal flip", "quarter turns", "affine", "photometric", "mosaic", "copy-paste")


def made(number: int) -> tuple[Image.Image, Objects]:
    draw = np.random.default_rng(number)
    pixels = draw.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    corners = draw.integers(0, (WIDTH - 80, HEIGHT - 80), (BOXES, 2))
    boxes = np.concatenate([corners, corners + draw.integers(16, 80, (BOXES, 2))], 1).astype(np.float64)
    masks = []
    for x1, y1, x2, y2 in boxes.astype(int).tolist():
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[y1:y2, x1:x2] = True
        masks.append(encode(mask))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    nothing, labels = np.zeros(BOXES, bool), draw.integers(0, 2, BOXES)
    picture = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return picture, Objects((HEIGHT, WIDTH), boxes, labels, nothing, areas, masks)


class Others:
    """Pictures of which others are taken, decoded already."""

    masked = True

    def __init__(self, samples: list) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, i: int) -> tuple:
        return self.samples[i]


def of_objects(keys: dict, samples: list) -> Callable[[], object]:
    augmentation = ObjectAugmentation(DATA, AugmentConfig(**NOTHING | keys), INFO, Others(samples))
    return lambda: augmentation(*samples[0])


def of_maps(keys: dict, samples: list) -> Callable[[], object]:
    augmentation = MapAugmentation(DATA, AugmentConfig(**NOTHING | keys), INFO, Others(samples))
    return lambda: augmentation(*samples[0])


def of_torchvision(steps: list[v2.Transform], sample: tuple, *, masks: bool) -> Callable[[], object]:
    whole = v2.Compose(
        [
            v2.ToImage(),
            *steps,
            v2.SanitizeBoundingBoxes(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    picture, objects = sample
    decoded = torch.from_numpy(objects.whole_masks()) if masks else None

    def run() -> object:
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(objects.boxes).float(), format="XYXY", canvas_size=objects.size
        )
        target = {"boxes": boxes, "labels": torch.from_numpy(objects.labels)}
        if decoded is not None:
            target["masks"] = tv_tensors.Mask(decoded)
        return whole(picture, target)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RESULTS / "augmentations_cpu.json")
    args = parser.parse_args()
    with_masks = [made(number) for number in range(8)]
    alone = [(picture, Objects(o.size, o.boxes, o.labels, o.crowd, o.areas)) for picture, o in with_masks]
    maps = []
    for picture, objects in with_masks:
        numbers = np.zeros(objects.size, np.uint8)
        for label, mask in zip(objects.labels.tolist(), objects.whole_masks(), strict=True):
            numbers[mask] = label + 1
        maps.append((picture, numbers))
    torch.manual_seed(0)
    tables = {}
    boxed = {"nothing": of_objects({}, alone)}
    boxed |= {name: of_objects(keys, alone) for name, keys in OURS.items() if name != "copy-paste"}
    boxed["nothing, torchvision"] = of_torchvision([], alone[0], masks=False)
    boxed |= {
        f"{name}, torchvision": of_torchvision(steps, alone[0], masks=False) for name, steps in THEIRS.items()
    }
    tables["boxes"] = compare(boxed, rounds=args.rounds)
    masked = {"nothing": of_objects({}, with_masks)}
    masked |= {name: of_objects(keys, with_masks) for name, keys in OURS.items()}
    tables["boxes and masks"] = compare(masked, rounds=args.rounds)
    mapped = {"nothing": of_maps({}, maps)}
    mapped |= {name: of_maps(OURS[name], maps) for name in ON_MAPS}
    mapped["sizes"] = of_maps({"scale_range": (0.5, 2.0)}, maps)
    tables["maps"] = compare(mapped, rounds=args.rounds)
    header = conditions("as installed") | {"picture": f"{WIDTH} x {HEIGHT}", "objects": BOXES}
    report(args.out, header, tables)


if __name__ == "__main__":
    main()
