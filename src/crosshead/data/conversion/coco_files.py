"""COCO files of instances, in any layout that ``coco-folder`` knows, with what they have beyond boxes."""

from pathlib import Path

import numpy as np

from crosshead.data.coco.instances import POLYGONS, RUN_LENGTHS, Instances
from crosshead.data.conversion.annotated import AnnotatedPicture, Annotations, DrawnObject, LeftOut
from crosshead.data.datasets.coco_folder import coco_files, picture_folders
from crosshead.data.datasets.coco_pictures import CocoObjects, read_coco
from crosshead.recipe.schema import DataConfig


def read_coco_files(source: Path, left_out: LeftOut) -> Annotations:
    """Broken pictures and objects are left out, as training leaves them out."""
    data = DataConfig(name="coco-folder", root=str(source), max_broken=2**31, max_objects=2**31)
    found: list[AnnotatedPicture] = []
    names: dict[int, str] = {}
    files = coco_files(source)
    for part, file in files.items():
        read = read_coco(file, picture_folders(source, part, file), data, inside=source)
        images = read.images
        names |= dict(zip(images.instances.category_ids.tolist(), images.instances.class_names, strict=True))
        for note in read.notes:
            left_out.add("remark on what is broken", note)
        for name in read.unlisted:
            left_out.add("pictures without an entry", name)
        split = part if len(files) > 1 else None
        found += [_picture(images, row, split) for row in images.rows.tolist() if row not in images.faults]
    ids = sorted(names)
    return Annotations(
        "COCO's JSON", tuple(found), tuple(names[number] for number in ids), left_out, class_ids=tuple(ids)
    )


def _picture(images: CocoObjects, row: int, split: str | None) -> AnnotatedPicture:
    instances, name = images.instances, images.instances.file_names[row]
    objects = tuple(_object(instances, k, row) for k in instances.rows(row).tolist())
    return AnnotatedPicture(images.folder / name, name, instances.size(row), objects, split)


def _object(instances: Instances, k: int, row: int) -> DrawnObject:
    x, y, wide, high = instances.boxes[k].tolist()
    outlines, kind = instances.outlines, instances.outlines.kinds[k]
    polygons = tuple(np.array(part).reshape(-1, 2) for part in outlines.parts(k)) if kind == POLYGONS else ()
    mask = outlines.mask(k, instances.size(row)) if kind == RUN_LENGTHS else None
    label = instances.class_names[instances.labels[k]]
    return DrawnObject(
        label, (x, y, x + wide, y + high), polygons, mask, bool(instances.crowd[k]), float(instances.areas[k])
    )
