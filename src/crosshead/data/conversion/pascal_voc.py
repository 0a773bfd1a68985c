"""Pascal VOC's XML (Everingham et al., 2010): a file a picture, as labelImg, CVAT and Roboflow write it too."""

from pathlib import Path
from xml.etree.ElementTree import Element

from crosshead.data.conversion.annotated import (
    SPLITS,
    AnnotatedPicture,
    Annotations,
    DrawnObject,
    LeftOut,
    labels_of,
    sound,
    split_by_folder,
)
from crosshead.data.conversion.sources import SourceFiles, number, size_of, xml_of
from crosshead.data.decode.images import BrokenImage
from crosshead.files import read_text

LAYOUT = "Annotations/NAME.xml, JPEGImages/NAME.jpg (ImageSets/Main/{train,val,test}.txt); or NAME.xml beside NAME.jpg"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_SAID = ("pose", "truncated", "occluded")


def read_voc(source: Path, left_out: LeftOut) -> Annotations:
    """``difficult`` objects, which VOC's own judging passes over, are crowds in COCO's sense.

    VOC counts pixels from 1, both ends included: a box from 1 to W is the whole width, 0 to W here. Where any corner of
    the source lies below 1 or between pixels, its boxes are taken as they are.
    """
    files = SourceFiles(source)
    splits = _splits(files)
    roots = [
        (file, root) for file in files.with_suffix(".xml") if (root := _root(file, left_out)) is not None
    ]
    boxes = [_corners(each) for _, root in roots for each in root.iter("object")]
    from_one = bool(boxes) and all(
        side >= 1 and side == int(side) for box in boxes for side in box if side == side
    )
    pictures, named = [], set[Path]()
    for file, root in roots:
        path = files.picture(root.findtext("filename") or file.stem, file) or files.picture(file.stem, file)
        if path is None:
            left_out.add("annotation files without their picture", file)
            continue
        if path in named:
            left_out.add("annotation files of a picture that has one", file)
            continue
        named.add(path)
        try:
            size = size_of(path)
        except BrokenImage as broken:
            left_out.add("pictures that can't be read", f"{broken.name}: {broken.reason}")
            continue
        if _other_size(root, size):
            left_out.add("pictures of another size than their annotations say", path)
            continue
        objects = [_object(each, from_one, file, left_out) for each in root.findall("object")]
        split = splits.get(file.stem) or split_by_folder(files.name(path).split("/"))
        pictures.append(
            AnnotatedPicture(path, files.name(path), size, sound(objects, size, file, left_out), split)
        )
    for path in files.pictures:
        if path not in named:
            left_out.add("pictures without annotations", path)
    counted = (
        "from 1, both ends included, as VOC does"
        if from_one
        else "from 0, as some corner is below 1 or no whole number"
    )
    crowds = sum(each.crowd for picture in pictures for each in picture.objects)
    notes = [f"corners are counted {counted}"]
    notes += [
        f"{crowds:,} objects called difficult become crowds: not learned, and no mistake to find"
    ] * bool(crowds)
    return Annotations(
        "Pascal VOC's XML", tuple(pictures), tuple(labels_of(pictures)), left_out, tuple(notes)
    )


def _root(file: Path, left_out: LeftOut) -> Element | None:
    try:
        root = xml_of(file)
    except ValueError as error:
        left_out.add("annotation files that can't be read", str(error))
        return None
    if root.tag != "annotation":
        left_out.add("XML files that are no annotation", file)
        return None
    return root


def _splits(files: SourceFiles) -> dict[str, str]:
    """By ImageSets/Main; a picture of trainval alone is training."""
    said: dict[str, str] = {}
    for word, split in (
        ("trainval", SPLITS[0]),
        ("train", SPLITS[0]),
        ("val", SPLITS[1]),
        ("test", SPLITS[2]),
    ):
        for file in files.others:
            if file.name == f"{word}.txt" and file.parent.name == "Main":
                said |= {line.split()[0]: split for line in read_text(file).splitlines() if line.strip()}
    return said


def _other_size(root: Element, size: tuple[int, int]) -> bool:
    """0 is what some tools write where they did not look."""
    said = tuple(number(root.findtext(f"size/{side}")) for side in ("height", "width"))
    return all(side > 0 for side in said) and said != size


def _corners(each: Element) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (number(each.findtext(f"bndbox/{side}")) for side in _SIDES)
    return x1, y1, x2, y2


def _object(each: Element, from_one: bool, file: Path, left_out: LeftOut) -> DrawnObject:
    x1, y1, x2, y2 = _corners(each)
    for said in _SAID:
        left_out.add(
            f"remarks on objects: {said}", file, each.findtext(said) not in (None, "", "0", "Unspecified")
        )
    left_out.add("parts of objects", file, len(each.findall("part")))
    left_out.add("polygons of objects, of which the box is kept", file, each.find("polygon") is not None)
    label = (each.findtext("name") or "").strip() or "unnamed"
    return DrawnObject(label, (x1 - from_one, y1 - from_one, x2, y2), crowd=each.findtext("difficult") == "1")
