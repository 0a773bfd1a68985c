"""``ade20k``: the scene parsing benchmark (ADEChallengeData2016), 150 classes; Zhou et al., 2017."""

from pathlib import Path

from crosshead.data.base import IMAGENET_MEAN, IMAGENET_STD, Splits, dataset_info
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root
from crosshead.data.datasets.map_files import pair_folders
from crosshead.data.decode.images import display_name
from crosshead.files import read_text
from crosshead.recipe.schema import DataConfig

LAYOUT = "ROOT/images/{training,validation}/*.jpg and ROOT/annotations/{training,validation}/*.png"
CLASSES = 150
_NAMES = "objectInfo150.txt"


def open_ade20k(data: DataConfig, *, hold: HoldOut) -> Splits:
    """``validation`` is what everyone reports on; there is no test set with maps. Maps count from 1, 0 is no class."""
    root = data_root(data, LAYOUT)
    wanted = [f"{kind}/{part}" for kind in ("images", "annotations") for part in ("training", "validation")]
    if missing := [name for name in wanted if not (root / name).is_dir()]:
        raise ValueError(f"{display_name(root)}: {', '.join(missing)} missing; expected {LAYOUT}")
    names, notes = _class_names(root / _NAMES)
    train, validation = (
        pair_folders(
            root / "images" / part,
            root / "annotations" / part,
            CLASSES,
            data,
            inside=root,
            zero_is_ignored=True,
        )
        for part in ("training", "validation")
    )
    return Splits(
        train.images,
        validation.images,
        None,
        dataset_info(data, names, IMAGENET_MEAN, IMAGENET_STD),
        notes=(*notes, *train.notes, *validation.notes),
        passed_over=(*train.passed_over, *validation.passed_over),
    )


def _class_names(file: Path) -> tuple[list[str], list[str]]:
    """The names in the table that comes with the data, the first of several; numbers where it is not there."""
    if not file.is_file():
        note = f"{display_name(file)} is not there: the classes have numbers in place of names"
        return [str(number) for number in range(1, CLASSES + 1)], [note]
    lines = read_text(file, errors="replace").splitlines()[1:]
    rows = [line.split("\t") for line in lines if line.strip()]
    numbers = [row[0].strip() for row in rows]
    if numbers != [str(number) for number in range(1, CLASSES + 1)]:
        raise ValueError(
            f"{display_name(file)}: expected a heading and {CLASSES} lines, each a class number from 1 on, four "
            f"columns and its names, parted by tabs; got {len(rows)} lines"
        )
    return [row[-1].split(",")[0].strip() for row in rows], []
