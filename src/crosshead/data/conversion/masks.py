"""Pictures beside masks or maps: binary ones (0 and 255), or numbers of classes."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.conversion.annotated import AnnotatedPicture, Annotations, LeftOut, split_by_folder
from crosshead.data.conversion.sources import SourceFiles, size_of
from crosshead.data.datasets.map_folder import read_class_names
from crosshead.data.decode.images import FORMATS, BrokenImage, decode_map, display_name

LAYOUT = (
    "images/NAME.jpg and masks/NAME.png (or maps, labels, annotations); NAME_mask.png is the mask of NAME too"
)
_FOLDERS = ("masks", "mask", "maps", "labels", "annotations", "segmentations", "groundtruth", "gt")
_ENDINGS = ("_mask", "-mask", "_label", "_gt", "_seg")
_HALF = 128  # from which on a grey value of a binary mask is white


def read_masks(source: Path, left_out: LeftOut, *, binary: bool) -> Annotations:
    """Of binary masks the classes are "background" and "object"; of maps those of ``classes.txt``."""
    files = SourceFiles(source)
    masks = {path: name for path in files.pictures if (name := _name_of_mask(path, source)) is not None}
    drawn = {name: path for path, name in masks.items()}
    pictures = []
    for path in files.pictures:
        if path in masks:
            continue
        own = drawn.pop(_below(path, source), None)
        if own is None:
            left_out.add("pictures without a mask", path)
            continue
        try:
            sizes = size_of(path), size_of(own)
        except BrokenImage as broken:
            left_out.add("pictures that can't be read", f"{broken.name}: {broken.reason}")
            continue
        if sizes[0] != sizes[1]:
            left_out.add("pictures of another size than their mask", path)
            continue
        name = _without(path.relative_to(source), ("images", "image", "img"))
        pictures.append(
            AnnotatedPicture(path, name, sizes[0], split=split_by_folder(name.split("/")), map_file=own)
        )
    for path in drawn.values():
        left_out.add("masks without a picture", path)
    names = ["background", "object"] if binary else read_class_names(source / "classes.txt")
    form = "binary masks" if binary else "maps of classes"
    return Annotations(form, tuple(pictures), tuple(names), left_out, maps=True)


def looks_binary(file: Path) -> bool:
    """Whether a map holds 0 and 255 alone, or the greys of a compressed drawing."""
    grey = _greys(file)
    values = np.unique(grey)
    return set(values.tolist()) <= {0, 255} or (
        len(values) > 2 and values.max() > 200 and bool(_clear(grey) > 0.95)
    )


def mask_files(source: Path) -> list[Path]:
    files = SourceFiles(source)
    return [path for path in files.pictures if _name_of_mask(path, source) is not None]


def class_numbers(picture: AnnotatedPicture, *, binary: bool, left_out: LeftOut) -> NDArray[np.uint8]:
    """(height, width). Raises ``BrokenImage``."""
    assert picture.map_file is not None
    if not binary:
        return decode_map(picture.map_file, max_megapixels=float("inf"))
    grey = _greys(picture.map_file)
    unclear = int(np.count_nonzero((grey > 0) & (grey < 255)))
    if unclear and grey.max() > 1:
        left_out.add(f"grey pixels of masks, white from {_HALF} on", picture.map_file, unclear)
    return (grey >= (_HALF if grey.max() > 1 else 1)).astype(np.uint8)


def _greys(file: Path) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                if image.mode.startswith("I"):
                    wide = np.asarray(image)
                    return np.where(wide > 0, 255, 0).astype(np.uint8)
                return np.asarray(image.convert("L"))
    except Exception as error:  # decoders fail with every kind of exception on damaged bytes
        raise BrokenImage(display_name(file), " ".join(str(error).split())) from None


def _clear(grey: NDArray[np.uint8]) -> float:
    return float(np.mean((grey < 32) | (grey > 223)))


def _name_of_mask(path: Path, root: Path) -> str | None:
    """The name that a mask's picture has; None for what is no mask."""
    parts = path.relative_to(root).parts
    of_folder = [part for part in parts[:-1] if part.lower() in _FOLDERS]
    ending = next((end for end in _ENDINGS if path.stem.lower().endswith(end)), None)
    if not of_folder and ending is None:
        return None
    stem = path.with_suffix("").name
    stem = stem[: -len(ending)] if ending else stem
    kept = [part for part in parts[:-1] if part not in of_folder and part not in ("images", "image", "img")]
    return "/".join([*kept, stem])


def _below(path: Path, root: Path) -> str:
    return _without(path.relative_to(root).with_suffix(""), ("images", "image", "img"))


def _without(path: Path, folders: tuple[str, ...]) -> str:
    return "/".join([*(part for part in path.parts[:-1] if part not in folders), path.name])
