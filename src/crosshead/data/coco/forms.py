"""Forms in which tools write annotations, told from the first bytes of a file, to name what is not read."""

import re
import stat
from collections.abc import Iterable
from pathlib import Path

_HEAD = 1 << 16  # bytes looked at
_YOLO = re.compile(r"(?:\d+(?: -?\d*\.?\d+(?:e-?\d+)?){4,}\s*)+", re.IGNORECASE)


def form_of(file: Path) -> str | None:
    """LabelMe, VIA, YOLO, Pascal VOC, CVAT, CSV; None for what is none of them, and for what is no regular file."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return None
        with open(file, "rb") as stream:
            head = stream.read(_HEAD).decode("utf-8-sig", "replace").strip()
    except OSError:
        return None
    suffix = file.suffix.lower()
    if suffix == ".json":
        return _json(head)
    if suffix == ".xml":
        if re.search(r"<annotations[\s>]", head):
            return "CVAT's XML"
        return "Pascal VOC's XML" if re.search(r"<annotation[\s>]", head) else None
    if suffix == ".txt" and head and _YOLO.fullmatch("\n".join(head.splitlines()[:20])):
        return "YOLO's text (a class and shares of the picture a line)"
    return "a table" if suffix in (".csv", ".tsv") else None


def _json(head: str) -> str | None:
    if '"shapes"' in head and re.search(r'"(imagePath|imageData|shape_type)"', head):
        return "LabelMe's JSON (one file a picture)"
    return "VIA's JSON" if '"regions"' in head and '"shape_attributes"' in head else None


def named_forms(files: Iterable[Path], most: int = 1000) -> str:
    """What the first ``most`` of ``files`` are, in words for the end of a message; "" where none is known."""
    found: dict[str, Path] = {}
    for _, file in zip(range(most), files, strict=False):
        if (form := form_of(file)) is not None:
            found.setdefault(form, file)
    if not found:
        return ""
    said = ", ".join(f"{file.name} is {form}" for form, file in found.items())
    return f". {said}: not read here; have your tool export COCO's JSON (images, annotations, categories)"
