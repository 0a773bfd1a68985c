"""``map-folder``: any folder of pictures beside maps of their classes."""

from pathlib import Path

from crosshead.data.base import IGNORED, IMAGENET_MEAN, IMAGENET_STD, Splits, dataset_info
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root, further_folders
from crosshead.data.datasets.map_files import Pairs, pair_folders
from crosshead.data.decode.images import display_name
from crosshead.files import read_text
from crosshead.recipe.schema import DataConfig

LAYOUT = (
    "ROOT/images/train/NAME.jpg and ROOT/maps/train/NAME.png (and val, test), or all in ROOT/images and ROOT/maps; "
    "ROOT/classes.txt with a class a line, the first one is number 0 in the maps; 255 is no class"
)


def open_map_folder(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Without a validation split a share of the training pictures is held out, by seed."""
    root = data_root(data, LAYOUT)
    if missing := [name for name in ("images", "maps") if not (root / name).is_dir()]:
        raise ValueError(f"{display_name(root)}: {' and '.join(missing)} missing; expected {LAYOUT}")
    names = read_class_names(root / "classes.txt")
    info = dataset_info(data, names, IMAGENET_MEAN, IMAGENET_STD)
    pictures = root / "images"
    split = (pictures / "train").is_dir()
    folders = {"train": pictures / "train"} | further_folders(pictures) if split else {"train": pictures}
    pairs = {
        part: pair_folders(
            folder, root / "maps" / folder.relative_to(pictures), len(names), data, inside=root
        )
        for part, folder in folders.items()
    }
    train = pairs["train"].images
    origins = {part: display_name(folder) for part, folder in folders.items()}
    notes, passed_over = _told(list(pairs.values()))
    if "validation" in pairs:
        validation = pairs["validation"].images
    else:
        train, validation = hold.split(train, data)
        origins["validation"] = f"{data.validation:.0%} held out of {origins['train']}, by seed {hold.seed}"
    test = pairs["test"].images if "test" in pairs else None
    return Splits(train, validation, test, info, "validation" not in pairs, origins, notes, passed_over)


def read_class_names(file: Path) -> list[str]:
    """A class a line; ValueError where the file is missing, empty, too long, or names a class twice."""
    try:
        names = [line.strip() for line in read_text(file).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{display_name(file)}: can't be read ({error}); expected {LAYOUT}") from None
    while names and not names[-1]:
        names.pop()
    if not 2 <= len(names) <= IGNORED or "" in names or len(set(names)) < len(names):
        raise ValueError(
            f"{display_name(file)}: expected 2 to {IGNORED} classes, one a line, each once; got {len(names)} lines, "
            f"{len(set(names) - {''})} different names"
        )
    return names


def _told(pairs: list[Pairs]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    notes = tuple(note for each in pairs for note in each.notes)
    return notes, tuple(entry for each in pairs for entry in each.passed_over)
