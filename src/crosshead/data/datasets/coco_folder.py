"""``coco-folder``: any folder of pictures beside COCO files, as annotation tools export it."""

import re
from pathlib import Path

from crosshead.data.base import Splits
from crosshead.data.coco.forms import named_forms
from crosshead.data.datasets.coco import check_same_categories, coco_info, unlisted
from crosshead.data.datasets.coco_pictures import CocoPart, read_coco
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root, files_below
from crosshead.data.decode.images import display_name
from crosshead.recipe.schema import DataConfig

LAYOUT = (
    "ROOT/{train,val,test}.json, or the same in ROOT/annotations, or ROOT/{train,val,test}/FILE.json, or one file of "
    "which a share is held out; pictures in ROOT/images, in ROOT/{train,val,test}, or where file_name says"
)
_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def open_coco_folder(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Without a file of validation a share of the training pictures is held out, by seed."""
    root = data_root(data, LAYOUT)
    files = coco_files(root)
    parts = {
        part: read_coco(file, picture_folders(root, part, file), data, inside=root)
        for part, file in files.items()
    }
    for part, file in files.items():
        check_same_categories(file, parts[part], files["train"], parts["train"])
    _check_apart(files, parts)
    train = parts["train"].images
    validation = parts["validation"].images if "validation" in parts else None
    origins = {part: display_name(file) for part, file in files.items()}
    if validation is None:
        train, validation = hold.split(train, data)
        origins["validation"] = f"{data.validation:.0%} held out of {origins['train']}, by seed {hold.seed}"
    return Splits(
        train,
        validation,
        parts["test"].images if "test" in parts else None,
        coco_info(data, files["train"], parts["train"]),
        "validation" not in parts,
        origins,
        tuple(note for part in parts.values() for note in part.notes),
        unlisted(list(parts.values())),
    )


def coco_files(root: Path) -> dict[str, Path]:
    """The file of each split, by the words of its name or of its folder's; one file alone is the training set's."""
    places = [root / "annotations"] if any((root / "annotations").glob("*.json")) else [root]
    files = [file for place in places for file in sorted(place.glob("*.json"))]
    files = files or sorted(file for word in _WORDS for file in (root / word).glob("*.json"))
    # Beside objects COCO itself has files of captions and of people's joints.
    files = [file for file in files if "instances" in file.name] or files
    if not files:
        others = (Path(path) for path in files_below(root, root)[2])
        raise ValueError(f"{display_name(root)}: no COCO file; expected {LAYOUT}{named_forms(others)}")
    if forms := named_forms(files):
        raise ValueError(f"{display_name(root)}: expected {LAYOUT}{forms}")
    if len(files) == 1:
        return {"train": files[0]}
    found: dict[str, Path] = {}
    for file in files:
        own = file.stem if file.parent in places else file.parent.name
        said = {_WORDS[word] for word in re.findall("[a-z]+", own.lower()) if word in _WORDS}
        if len(said) != 1:
            raise ValueError(
                f"{display_name(file)}: one of {len(files)} COCO files, and its name does not say which split it "
                f"is; expected {LAYOUT}"
            )
        (part,) = said
        if part in found:
            raise ValueError(
                f"{display_name(found[part])} and {display_name(file)} are both of {part}; keep one of them"
            )
        found[part] = file
    if "train" not in found:
        raise ValueError(f"{display_name(root)}: no COCO file of train; expected {LAYOUT}")
    return found


def picture_folders(root: Path, part: str, file: Path) -> list[Path]:
    """Where the pictures of a split may lie."""
    words = [word for word, its in _WORDS.items() if its == part]
    stem = root / "images" / file.stem, root / file.stem
    below = [place / word for place in (root / "images", root) for word in words]
    return [root / "images", *stem, *below, root, file.parent]


def _check_apart(files: dict[str, Path], parts: dict[str, CocoPart]) -> None:
    """ValueError where a picture is in two splits."""
    owner: dict[str, str] = {}
    for part, its in parts.items():
        for i in range(len(its.images)):
            name = its.images.name(i)
            if owner.setdefault(name, part) != part:
                raise ValueError(
                    f"{name} is in {display_name(files[owner[name]])} and in {display_name(files[part])}; what is "
                    "judged must not be learned: remove it from one"
                )
