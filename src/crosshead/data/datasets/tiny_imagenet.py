"""``tiny-imagenet``: 200 classes, 64 x 64, as distributed (``val_annotations.txt``) or with ``val/`` by class."""

from pathlib import Path

from crosshead.data.base import FileImages, Splits, dataset_info
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import class_folders, data_root, read_classes, refused_links
from crosshead.data.decode.decoding import Decoding
from crosshead.files import read_text
from crosshead.recipe.schema import DataConfig

MEAN, STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)
FOLDER = "tiny-imagenet-200"
LAYOUT = (
    f"ROOT/{FOLDER}/train/WNID/images/*.JPEG with val/images/*.JPEG and val/val_annotations.txt, "
    "or with val/WNID/*.JPEG"
)


def open_tiny_imagenet(data: DataConfig, *, hold: HoldOut) -> Splits:
    """``val/`` is the validation split; the labels of ``test/`` were never published, so there is no test set."""
    given = data_root(data, LAYOUT)
    root = given / FOLDER if (given / FOLDER).is_dir() else given
    if missing := [name for name in ("train", "val") if not (root / name).is_dir()]:
        raise ValueError(f"{root}: {' and '.join(missing)} missing; expected {LAYOUT}")
    wnids = class_folders(root / "train")
    train = read_classes(root / "train", wnids, data, inside=root)
    annotations = root / "val" / "val_annotations.txt"
    if (root / "val" / "images").is_dir() and not annotations.is_file():
        raise ValueError(f"{annotations} missing, which has the classes of val/images; expected {LAYOUT}")
    if annotations.is_file():
        validation = _annotated(annotations, wnids, data, inside=root)
    else:
        validation = read_classes(root / "val", wnids, data, inside=root)
    return Splits(train, validation, None, dataset_info(data, _class_names(root, wnids), MEAN, STD))


def _annotated(annotations: Path, wnids: list[str], data: DataConfig, *, inside: Path) -> FileImages:
    """The files of ``val/images`` with the class that each line (file, wnid, box; by tabs) gives."""
    number = {wnid: i for i, wnid in enumerate(wnids)}
    folder = annotations.parent / "images"
    paths, targets = [], []
    for line_number, line in enumerate(read_text(annotations).splitlines(), start=1):
        if not line.strip():
            continue
        name, wnid = [*line.split("\t"), ""][:2]
        if wnid not in number or Path(name).name != name:
            raise ValueError(
                f"{annotations}:{line_number}: {line.strip()!r}; expected a file of {folder.name}/, a tab and one of "
                f"the {len(wnids)} classes of train/"
            )
        paths.append(folder / name)
        targets.append(number[wnid])
    if not paths:
        raise ValueError(f"{annotations}: empty; fetch it again")
    return FileImages(paths, targets, Decoding.of(data), refused_links(paths, inside, data))


def _class_names(root: Path, wnids: list[str]) -> list[str]:
    """The WordNet ids, with their words where ``words.txt`` has them."""
    words = {}
    if (root / "words.txt").is_file():
        lines = read_text(root / "words.txt").splitlines()
        words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return [f"{wnid} {words[wnid]}" if wnid in words else wnid for wnid in wnids]
