"""``voc``: Pascal VOC's segmentation, 20 classes and background; Everingham et al., 2010."""

from pathlib import Path

from crosshead.data.base import IMAGENET_MEAN, IMAGENET_STD, Splits, dataset_info
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root, refused_links
from crosshead.data.datasets.map_files import MappedImages, check_missing
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import display_name
from crosshead.files import read_text
from crosshead.recipe.schema import DataConfig

LAYOUT = "ROOT/{JPEGImages,SegmentationClass,ImageSets/Segmentation}, ROOT/VOC2012 or ROOT/VOCdevkit/VOC2012"
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
_PLACES = ("", "VOC2012", "VOCdevkit/VOC2012", "VOC2007", "VOCdevkit/VOC2007")


def open_voc(data: DataConfig, *, hold: HoldOut) -> Splits:
    """``train.txt`` and ``val.txt`` say which pictures; the border of objects, 255, is no class."""
    root = data_root(data, LAYOUT)
    there = [root / place for place in _PLACES if (root / place / "SegmentationClass").is_dir()]
    if not there:
        raise ValueError(f"{display_name(root)}: no SegmentationClass; expected {LAYOUT}")
    train, validation = (_listed(there[0], part, data, inside=root) for part in ("train", "val"))
    return Splits(train, validation, None, dataset_info(data, CLASSES, IMAGENET_MEAN, IMAGENET_STD))


def _listed(root: Path, part: str, data: DataConfig, *, inside: Path) -> MappedImages:
    listing = root / "ImageSets" / "Segmentation" / f"{part}.txt"
    try:
        names = read_text(listing).split()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{display_name(listing)}: can't be read ({error}); expected a name a line"
        ) from None
    if (
        repeated := {name for name in names if names.count(name) > 1}
        if len(set(names)) < len(names)
        else set()
    ):
        raise ValueError(f"{display_name(listing)}: {', '.join(sorted(repeated)[:5])} stand there twice")
    if bad := [name for name in names if "/" in name or name.startswith(".")]:
        raise ValueError(f"{display_name(listing)}: {bad[0]!r} is no name of a picture")
    if not names:
        raise ValueError(f"{display_name(listing)}: empty; expected a name a line")
    pictures = [str(root / "JPEGImages" / f"{name}.jpg") for name in names]
    maps = [root / "SegmentationClass" / f"{name}.png" for name in names]
    lost = {
        picture: f"no map; expected {display_name(file)}"
        for picture, file in zip(pictures, maps, strict=True)
        if not file.is_file()
    }
    check_missing(lost, len(pictures), data)
    linked = refused_links([*pictures, *maps], inside, data)
    refused = {
        picture: linked.get(picture) or f"its map is {linked[str(file)]}"
        for picture, file in zip(pictures, maps, strict=True)
        if picture in linked or str(file) in linked
    }
    return MappedImages(pictures, maps, len(CLASSES), Decoding.of(data), refused=refused | lost)
