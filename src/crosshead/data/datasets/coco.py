"""``coco``: the objects of COCO (Lin et al., arXiv 1405.0312) in its official layout."""

from pathlib import Path

from crosshead.data.base import IMAGENET_MEAN, IMAGENET_STD, DatasetInfo, Splits, dataset_info
from crosshead.data.datasets.coco_pictures import CocoPart, read_coco
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root
from crosshead.data.decode.images import display_name
from crosshead.recipe.schema import DataConfig

LAYOUT = "ROOT/annotations/instances_{train,val}2017.json, ROOT/train2017/*.jpg and ROOT/val2017/*.jpg"


def open_coco(data: DataConfig, *, hold: HoldOut) -> Splits:
    """``validation`` is what everyone reports on; the test pictures have no public objects."""
    root = data_root(data, LAYOUT)
    files = {part: root / "annotations" / f"instances_{part}2017.json" for part in ("train", "val")}
    folders = {part: [root / f"{part}2017", root / "images" / f"{part}2017"] for part in files}
    missing = [f"annotations/{file.name}" for file in files.values() if not file.is_file()]
    missing += [f"{part}2017" for part in files if not any(folder.is_dir() for folder in folders[part])]
    if missing:
        raise ValueError(f"{display_name(root)}: {', '.join(missing)} missing; expected {LAYOUT}")
    parts = {part: read_coco(files[part], folders[part], data, inside=root) for part in files}
    info = coco_info(data, files["train"], parts["train"])
    check_same_categories(files["val"], parts["val"], files["train"], parts["train"])
    return Splits(
        parts["train"].images,
        parts["val"].images,
        None,
        info,
        origins={"train": display_name(files["train"]), "validation": display_name(files["val"])},
        notes=tuple(note for part in parts.values() for note in part.notes),
        passed_over=unlisted(list(parts.values())),
    )


def coco_info(data: DataConfig, file: Path, part: CocoPart) -> DatasetInfo:
    """What a set is that learns from ``part``, which ``file`` holds."""
    instances = part.images.instances
    return dataset_info(
        data, instances.class_names, IMAGENET_MEAN, IMAGENET_STD, instances.category_ids.tolist()
    )


def check_same_categories(file: Path, part: CocoPart, other_file: Path, other: CocoPart) -> None:
    """ValueError where two files number or name their categories differently."""
    mine, its = (
        dict(zip(each.images.instances.category_ids.tolist(), each.images.instances.class_names, strict=True))
        for each in (part, other)
    )
    if mine == its:
        return
    number = min(set(mine.items()) ^ set(its.items()))[0]
    raise ValueError(
        f"{display_name(file)}: category {number} is {mine.get(number, 'not there')!r}, and "
        f"{its.get(number, 'not there')!r} in {display_name(other_file)}; all files need the same categories"
    )


def unlisted(parts: list[CocoPart]) -> tuple[tuple[str, str], ...]:
    """Pictures beside those of the files that none of these names."""
    if not any(part.unlisted for part in parts):
        return ()
    named = {part.images.name(i) for part in parts for i in range(len(part.images))}
    others = sorted({display_name(path) for part in parts for path in part.unlisted} - named)
    return tuple((path, "no entry in a COCO file") for path in others)
