"""What a run remembers of its pictures, to say later what has changed: how many there are, and their names."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crosshead.data.base import ImageSet, Splits
from crosshead.data.decode.images import display_name

_MOST_CLASSES = 1000  # remembered one by one; a checkpoint's text is not to outgrow its weights


def fingerprint(splits: Splits, root: str | None) -> dict[str, Any]:
    """The training and validation pictures: count, a digest of their names and order, and both for each class.

    Names count from ``root`` on, so that data may move. What the pictures show is not looked at; of what is to be
    learned of them there is a digest, as far as it is held in memory.
    """
    names = splits.info.class_names
    return {part: describe_images(splits.part(part), names, root) for part in ("train", "validation")}


def describe_images(images: ImageSet, class_names: tuple[str, ...], root: str | None) -> dict[str, Any]:
    """Count, a digest of names and order, and both for each class."""
    above = "" if root is None else display_name(Path(root).expanduser()) + "/"
    whole, learned = hashlib.sha256(), hashlib.sha256()
    counts: dict[str, int] = {}
    parts: dict[str, Any] = {}
    for i, target in enumerate(images.targets):
        name = images.name(i).removeprefix(above).encode() + b"\0"
        whole.update(name)
        label = class_names[target] if isinstance(target, int) else target
        learned.update(name + repr(_below(label, above)).encode() + b"\0")
        if isinstance(target, int) and len(class_names) <= _MOST_CLASSES:
            counts[label] = counts.get(label, 0) + 1
            parts.setdefault(label, hashlib.sha256()).update(name)
    classes = {label: [counts[label], parts[label].hexdigest()[:16]] for label in sorted(counts)}
    found: dict[str, Any] = {"count": len(images), "names": whole.hexdigest(), "classes": classes}
    found["targets"] = learned.hexdigest()
    digest = images.digest()
    return found if digest is None else found | {"objects": digest}


def describe_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """In words; empty where nothing has changed. What only one of the two says of its pictures is not compared."""
    return "; ".join(
        _describe(part, before[part], now[part])
        for part in now
        if any(before[part][key] != now[part][key] for key in before[part].keys() & now[part].keys())
    )


def other_pictures(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The part of which the pictures, or their order, are other ones; empty where there is none."""
    return next((part for part in now if before[part]["names"] != now[part]["names"]), "")


def _below(target: Any, above: str) -> Any:
    return target.removeprefix(above) if isinstance(target, str) else target


def _describe(part: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    counts = f"{now['count']:,} {part} pictures"
    counts += ", as before" if now["count"] == before["count"] else f" instead of {before['count']:,}"
    classes = [*_changed_classes(before["classes"], now["classes"])]
    shown = ", ".join(classes[:5]) + (f" and {len(classes) - 5} more classes" if len(classes) > 5 else "")
    if shown:
        return f"{counts} ({shown})"
    other = "names or in another order" if now["names"] != before["names"] else "labels"
    if before.get("objects") != now.get("objects") and now["names"] == before["names"]:
        other = "objects"
    return f"{counts}, with other {other}"


def _changed_classes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for label in sorted(before.keys() | now.keys()):
        old, new = before.get(label, [0, ""]), now.get(label, [0, ""])
        if old[0] != new[0]:
            yield f"{label!r} {new[0]:,} instead of {old[0]:,}"
        elif old != new:
            yield f"{label!r} has other names"
