"""The files of a source: its pictures by name, their sizes as people see them, its XML."""

import os
import warnings
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from crosshead.data.datasets.image_folder import files_below
from crosshead.data.decode.images import FORMATS, SUFFIXES, BrokenImage, display_name
from crosshead.files import read_text

_ORIENTATION = 0x0112
_MOST = 1 << 30  # bytes of an XML file


class SourceFiles:
    """What lies below ``root``. A link that leads out of it is not followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise ValueError(
                f"{display_name(root)} is not a folder; expected the folder of pictures and annotations"
            )
        pictures, links, others = files_below(root, root)
        outside = {path for path in links if not Path(os.path.realpath(path)).is_relative_to(root.resolve())}
        self.pictures = [Path(path) for path in pictures if path not in outside]
        self.others = [Path(path) for path in others]

    def with_suffix(self, *suffixes: str) -> list[Path]:
        return [path for path in self.others if path.suffix.lower() in suffixes]

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in self.pictures:
            found[path.name].append(path)
        return dict(found)

    @cached_property
    def by_stem(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in self.pictures:
            found[path.stem].append(path)
        return dict(found)

    def picture(self, said: str, near: Path) -> Path | None:
        """The picture that an annotation file ``near`` calls ``said``: where that path leads, else the one of that
        name below the root, else of that stem. Of several the one that lies nearest; None where there is none."""
        said = said.replace("\\", "/")
        direct = Path(os.path.normpath(near.parent / said))
        if direct in self._all:
            return direct
        name = said.rsplit("/", 1)[-1]
        stem = name[: -len(Path(name).suffix)] if name.lower().endswith(SUFFIXES) else name
        for named in (self.by_name.get(name), self.by_stem.get(stem)):
            if named:
                return max(named, key=lambda path: len(os.path.commonpath([path, near])))
        return None

    @cached_property
    def _all(self) -> set[Path]:
        return set(self.pictures)

    def name(self, path: Path) -> str:
        """Below the root, without a folder that every picture lies in."""
        return path.relative_to(self._top).as_posix()

    @cached_property
    def _top(self) -> Path:
        return (
            Path(os.path.commonpath([path.parent for path in self.pictures])) if self.pictures else self.root
        )


def size_of(source: Path | Any, *, name: str | None = None) -> tuple[int, int]:
    """(height, width) of a picture as EXIF turns it, from its header. Raises ``BrokenImage``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source, formats=FORMATS) as image:
                turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                width, height = image.size[::-1] if turned else image.size
                return height, width
    except Exception as error:  # decoders fail with every kind of exception on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokenImage(name or display_name(source), f"can't be read: {reason}") from None


def xml_of(file: Path) -> ElementTree.Element:
    """The root of an XML file. ValueError for a damaged one, and for one that declares entities, which no annotation
    tool writes."""
    try:
        text = read_text(file, most=_MOST)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("declares a document type or entities")
        return ElementTree.fromstring(text)
    except (OSError, UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{display_name(file)}: can't be read as XML: {error}") from None


def number(text: str | None) -> float:
    """NaN for what is none, which is then told as an object's fault."""
    try:
        return float(text) if text is not None else float("nan")
    except ValueError:
        return float("nan")
