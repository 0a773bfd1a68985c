"""The data sets by name. One that is registered is found by the recipes and by every command."""

from collections.abc import Callable
from typing import Protocol

from crosshead.data.base import ImageSet, Splits
from crosshead.data.datasets import (
    ade20k,
    cifar,
    coco,
    coco_folder,
    dense_shards,
    imagenet,
    map_folder,
    shards,
    tiny_imagenet,
    voc,
)
from crosshead.data.datasets.digits import open_digits
from crosshead.data.datasets.fashion_mnist import open_fashion_mnist
from crosshead.data.datasets.held_out import HoldOut, Kept
from crosshead.data.datasets.image_folder import LAYOUT, open_folder
from crosshead.data.datasets.listed import LAYOUT as LISTED
from crosshead.data.datasets.listed import open_listed
from crosshead.data.datasets.looking import resolve_data
from crosshead.data.datasets.scenes import open_scenes, open_scenes_semantic
from crosshead.plugins import Registry
from crosshead.recipe.schema import DataConfig, Recipe


class Opener(Protocol):
    def __call__(self, data: DataConfig, /, *, hold: HoldOut) -> Splits:
        """The data set's pictures by split, from ``data.root`` if it is a folder.

        ``hold`` decides what the data set leaves open: which pictures are held out for validation
        (``hold.split``). Raises ValueError where what is there is no such data set.
        """


# By name, what it is in a line, and what opens it.
DATASETS: Registry[tuple[str, Opener]] = Registry("crosshead.datasets", "data set")


def register_dataset(name: str, description: str) -> Callable[[Opener], Opener]:
    """Decorator: the function opens the data set ``name`` of recipes; see ``Opener``.

    Another package offers one through an entry point of the group ``crosshead.datasets`` under that name.

    Raises:
        ValueError: for a name that is taken.
    """

    def register(opener: Opener) -> Opener:
        DATASETS.add(name, (description, opener))
        return opener

    return register


register_dataset("digits", "1,797 handwritten digits, 8 x 8, inside scikit-learn")(open_digits)
register_dataset("fashion-mnist", "70,000 pictures of clothes, 28 x 28, grey, from IDX files")(
    open_fashion_mnist
)
register_dataset("cifar10", f"60,000 pictures of 10 classes, 32 x 32: {cifar.CIFAR10.layout}")(
    cifar.open_cifar10
)
register_dataset("cifar100", f"the same of 100 classes: {cifar.CIFAR100.layout}")(cifar.open_cifar100)
register_dataset("tiny-imagenet", f"110,000 pictures of 200 classes, 64 x 64: {tiny_imagenet.LAYOUT}")(
    tiny_imagenet.open_tiny_imagenet
)
register_dataset("imagenet", f"1.3 million pictures of 1,000 classes: {imagenet.LAYOUT}")(
    imagenet.open_imagenet
)
register_dataset("shards", f"tar files in WebDataset's form: {shards.LAYOUT}")(shards.open_shards)
register_dataset("scenes", "made scenes of digits on photographs, with boxes and masks, inside scikit-learn")(
    open_scenes
)
register_dataset("scenes-semantic", "made scenes of digits on photographs, with maps, inside scikit-learn")(
    open_scenes_semantic
)
register_dataset("ade20k", f"22,210 pictures with a map of 150 classes: {ade20k.LAYOUT}")(ade20k.open_ade20k)
register_dataset("voc", f"2,913 pictures with a map of 21 classes: {voc.LAYOUT}")(voc.open_voc)
register_dataset("map-folder", f"your own pictures with maps: {map_folder.LAYOUT}")(
    map_folder.open_map_folder
)
register_dataset("map-shards", f"pictures with maps in tar files: {dense_shards.MAPS}")(
    dense_shards.open_map_shards
)
register_dataset("coco", f"123,287 pictures with objects of 80 classes: {coco.LAYOUT}")(coco.open_coco)
register_dataset("coco-folder", f"your own pictures with objects: {coco_folder.LAYOUT}")(
    coco_folder.open_coco_folder
)
register_dataset("object-shards", f"pictures with objects in tar files: {dense_shards.OBJECTS}")(
    dense_shards.open_object_shards
)
register_dataset("csv", f"pictures that a table names: {LISTED}")(open_listed)
register_dataset("folder", f"your own pictures: {LAYOUT}")(open_folder)


def dataset_names() -> list[str]:
    """All names, those that other packages offer included."""
    return sorted(DATASETS.names())


def describe_dataset(name: str) -> str:
    """One line on the data set ``name``; of one whose package is broken, what is wrong."""
    try:
        return DATASETS.find(name)[0]
    except ValueError as error:
        return str(error)


def open_splits(recipe: Recipe, run: Kept | None = None, *, by_place: bool = False) -> Splits:
    """The data set that ``recipe.data`` names, split as a run of the recipe splits it.

    Args:
        recipe: a part of the training pictures is held out by its ``split_seed`` where the data set leaves that open.
        run: what the run whose data this is has trained on and held out, which stays so.
        by_place: hold out as runs did that keep no such thing.

    Raises:
        ValueError: no such data set, or what is at ``data.root`` is not one.
    """
    data = recipe.data
    opener, hold = DATASETS.find(data.name, "data.name")[1], HoldOut(recipe.split_seed, run, by_place)
    splits = opener(data, hold=hold)
    for split, images in splits.parts().items():
        if not isinstance(images, ImageSet):
            raise ValueError(
                f"data.name={data.name}: expected a crosshead.data.base.ImageSet for {split}, got "
                f"{type(images).__name__}: make it a subclass"
            )
    splits = resolve_data(splits, data, lambda resolved: opener(resolved, hold=hold))
    return hold.finish(splits, data)
