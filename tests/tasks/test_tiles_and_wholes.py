"""Where tiles cut nothing, whole pictures judged in windows give what their tiles give, number for number."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from crosshead.data.batching.loader import evaluation_loader
from crosshead.data.conversion.convert import convert
from crosshead.data.conversion.tiling import Tiling
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe import load_recipe
from crosshead.recipe.schema import Recipe
from crosshead.tasks import open_task
from crosshead.train.distributed.groups import World
from crosshead.train.loop.evaluate import evaluate

TILE, SIZE = 64, (192, 256)  # (height, width)
MISSED, INVENTED = 40, 250  # values: of an object that is not found, and of one that is in no file


def draw(number):
    """A picture of cells of 64 pixels, and in each an object or two that no border of a cell comes near."""
    random = np.random.default_rng(number)
    pixels, boxes = np.zeros((*SIZE, 3), np.uint8), []
    values = iter(random.permutation(np.arange(60, 240, 3)).tolist())
    for top in range(0, SIZE[0], TILE):
        for left in range(0, SIZE[1], TILE):
            for inner in (6, 36)[: random.integers(1, 3)]:
                high, wide = random.integers(8, 15, 2).tolist()
                y, x = top + inner, left + int(random.integers(6, 40))
                value = MISSED if (y + x) % 5 == 0 else INVENTED if (y + x) % 7 == 0 else next(values)
                pixels[y : y + high, x : x + wide] = value
                if value != INVENTED:
                    boxes.append((x, y, wide, high))
    return pixels, boxes


class Finder(nn.Module):
    """Finds what is bright, each thing a little beside its place and as sure of it as it is bright."""

    nms_threshold, max_detections = 0.5, 100

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, images, sizes):
        found = []
        for image in images:
            values = (image[0] * 255).round().numpy()
            numbers, count = ndimage.label(values > MISSED)
            boxes = [
                [columns.start + 1, rows.start, columns.stop, rows.stop + 1]
                for rows, columns in ndimage.find_objects(numbers)
            ]
            scores = [values[numbers == k + 1].max() / 255 for k in range(count)]
            found.append(
                {
                    "boxes": torch.tensor(boxes).float().reshape(-1, 4),
                    "scores": torch.tensor(scores).float(),
                    "labels": torch.zeros(count, dtype=torch.int64),
                }
            )
        return found


class Pixels(nn.Module):
    """Says the class of each pixel by its brightness, wrongly of some."""

    num_classes, stride = 3, 1

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        values = (images[:, 0] * 255).round()
        said = torch.where(values == 0, 0, torch.where(values % 4 == 0, 1, 2))
        return nn.functional.one_hot(said, 3).movedim(-1, 1).float()


def write_objects(root):
    for split, count in (("train", 1), ("val", 2)):
        images, annotations = [], []
        (root / split).mkdir(parents=True)
        for i in range(count):
            pixels, boxes = draw(i)
            Image.fromarray(pixels).save(root / split / f"{split}{i}.png")
            images.append({"id": i, "file_name": f"{split}{i}.png", "height": SIZE[0], "width": SIZE[1]})
            annotations += [
                {
                    "id": 100 * i + k,
                    "image_id": i,
                    "category_id": 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
                for k, box in enumerate(boxes)
            ]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        (root / f"{split}.json").write_text(json.dumps(content))


def write_maps(root):
    for split, count in (("train", 1), ("val", 2)):
        for folder in ("images", "maps"):
            (root / folder / split).mkdir(parents=True)
        for i in range(count):
            pixels, _ = draw(i)
            Image.fromarray(pixels).save(root / "images" / split / f"{split}{i}.png")
            classes = np.where(pixels[..., 0] == 0, 0, np.where(pixels[..., 0] % 3 == 0, 1, 2))
            Image.fromarray(classes.astype(np.uint8)).save(root / "maps" / split / f"{split}{i}.png")
    (root / "classes.txt").write_text("ground\na\nb\n")


def judged(recipe, root, model, **task):
    values = load_recipe(recipe, [f"data.root={root}"]).model_dump(mode="json")
    values["data"] |= {
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "eval_resize": None,
        "longest": None,
        "eval_batch_size": 1,
    }
    values["task"] |= task
    settings = Recipe.model_validate_json(json.dumps(values))
    splits = open_splits(settings)
    opened, images = open_task(settings, splits.info), splits.validation
    loader = evaluation_loader(opened.evaluation_batches(images))
    return evaluate(opened, model, loader, images=len(images), world=World()).metrics, len(images)


@pytest.mark.parametrize(
    ("recipe", "write", "form", "model"),
    [("detect_folder", write_objects, "coco", Finder), ("segment_folder", write_maps, "maps", Pixels)],
)
def test_judging_whole_pictures_in_windows_is_judging_their_tiles(tmp_path, recipe, write, form, model):
    write(tmp_path / "whole")
    tiling = Tiling(TILE, overlap=0.0, empty=1.0)
    convert(tmp_path / "whole", tmp_path / "tiles", form=form, tiling=tiling, tile_also=("validation",))
    whole, pictures = judged(recipe, tmp_path / "whole", model(), window=TILE)
    tiles, cut = judged(recipe, tmp_path / "tiles", model())
    assert (pictures, cut) == (2, 24)
    of_all = set(whole) - {
        "count",
        "box_ar1",
        "box_ar10",
    }  # the last two are of each picture's first findings
    assert {name: whole[name] for name in of_all} == pytest.approx(
        {name: tiles[name] for name in of_all}, nan_ok=True
    )
    best = whole["box_ap" if form == "coco" else "miou"]
    assert 0.3 < best < 0.99  # neither all right nor nothing
