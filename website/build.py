"""Builds the site into build/site: `make docs`. Nothing is fetched, and the site fetches nothing: it opens as a file.

The pages are laid out (stage.py), the reference is written out of the code (reference_pages.py), the notebooks are
executed (notebooks.py), Zensical makes HTML of them, and every link is checked (links.py).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from links import broken_links  # noqa: E402
from notebooks import write_notebooks  # noqa: E402
from reference_pages import ROOMS, write_reference  # noqa: E402
from stage import ROOT, stage  # noqa: E402

BUILD = ROOT / "build"
# Of the theme: for pages that are opened as files it would fetch a script from a network.
_REMOTE_WORKER = 'src="https://unpkg.com/iframe-worker/shim"'


def build(execute: bool = True) -> Path:
    """The folder of the site; ``execute`` the notebooks. Raises CalledProcessError where Zensical finds a fault."""
    os.environ["COLUMNS"] = "100"  # of the usage lines
    pages = BUILD / "docs"
    stage(pages)
    write_reference(pages / "reference")
    write_notebooks(pages, execute)
    for name in ("style.css", "worker.js"):
        shutil.copyfile(HERE / name, pages / name)
    (BUILD / "zensical.toml").write_text(_configuration(pages), encoding="utf-8")
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    subprocess.run(command, cwd=BUILD, check=True)
    _keep_to_files(BUILD / "site")
    return BUILD / "site"


def _configuration(pages: Path) -> str:
    """zensical.toml with the rooms of the API, and under "More" each page that it doesn't name."""
    text = (HERE / "zensical.toml").read_text(encoding="utf-8")
    rooms = "".join(f'{{ "{room}" = "reference/{room}.md" }},\n    ' for room in ROOMS)
    text = text.replace("# ROOMS", rooms)
    named = [page.relative_to(pages).as_posix() for page in sorted(pages.rglob("*.md"))]
    more = [page for page in named if f'"{page}"' not in text]
    listed = "".join(f'"{page}", ' for page in more)
    return text.replace("# MORE", f'{{ "More" = [{listed}] }},' if more else "")


def _keep_to_files(site: Path) -> None:
    for page in site.rglob("*.html"):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = page.read_text(encoding="utf-8").replace(_REMOTE_WORKER, f'src="{up}worker.js"')
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    site = build()
    if faults := broken_links(site):
        sys.exit("\n".join([*faults, f"{len(faults)} links lead nowhere"]))
    print(f"every link leads somewhere; open {site / 'index.html'}")
