"""Lays the pages of the site out in one folder: docs/ as it is, and the documents that lie elsewhere in the repository.

Links are written for whoever reads the repository; what they lead to is where it lies here, or is copied along.
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Documents outside docs/, and their pages.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "DECISIONS.md": "decisions.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_COPIED = (".png", ".svg", ".json", ".py", ".cff", "LICENSE")  # what pages show or lead to


def stage(folder: Path) -> dict[Path, Path]:
    """Fills ``folder``; returns each document's path in the repository with that of its page."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = documents()
    for source, page in pages.items():
        if source.suffix == ".py":
            continue  # of notebooks.py
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(_page(source, page, pages, folder), encoding="utf-8")
    return pages


def _page(source: Path, page: Path, pages: dict[Path, Path], folder: Path) -> str:
    """The document's text, with its links as they go from ``page``; what stands in fences is left alone."""
    text = source.read_text(encoding="utf-8")
    between = [
        _LINK.sub(lambda link: _target(link, source, page, pages, folder), part) for part in FENCE.split(text)
    ]
    fences = [*FENCE.findall(text), ""]
    return "".join(part + fence for part, fence in zip(between, fences, strict=True))


def documents() -> dict[Path, Path]:
    pages = {ROOT / source: Path(page) for source, page in ELSEWHERE.items() if (ROOT / source).is_file()}
    for source in sorted((ROOT / "docs").rglob("*.md")):
        inside = source.relative_to(ROOT / "docs")
        pages[source] = inside.with_name("index.md") if inside.name == "README.md" else inside
    for source in sorted((ROOT / "docs" / "notebooks").glob("*.py")):
        pages[source] = Path("notebooks", f"{source.stem}.md")
    for source in sorted((ROOT / "src/crosshead/ops").glob("*/README.md")):
        pages[source] = Path("operators", f"{source.parent.name}.md")
    return pages


def _target(link: re.Match[str], source: Path, page: Path, pages: dict[Path, Path], folder: Path) -> str:
    """The link as it goes from ``page``; what no page is made of is copied beside the pages."""
    address, anchor = link[1], link[2] or ""
    if re.match(r"[a-z]+:", address):
        return address + anchor
    found = (source.parent / address).resolve()
    if found.is_dir():
        found = found / "README.md"
    if found in pages:
        return _relative(pages[found], page) + anchor
    if not found.is_file() or not found.name.endswith(_COPIED):
        return address + anchor  # the check of links will tell
    inside = found.relative_to(ROOT / "docs" if found.is_relative_to(ROOT / "docs") else ROOT)
    (folder / inside).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found, folder / inside)
    return _relative(inside, page)


def _relative(target: Path, page: Path) -> str:
    return "../" * (len(page.parts) - 1) + target.as_posix()
