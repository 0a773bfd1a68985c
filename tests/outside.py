"""A package that is not this one: its files, and the entry points by which it is found."""

from pathlib import Path


def install(place: Path, name: str, files: dict[str, str], points: dict[str, dict[str, str]]) -> None:
    """Writes ``files`` (path -> text) and the metadata of package ``name``, as an installer does; ``points`` are its
    entry points by group and name. ``place`` is to be on ``sys.path``."""
    for path, text in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text, encoding="utf-8")
    metadata = place / f"{name}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in points.items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
