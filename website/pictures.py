"""What the site looks like, in one picture: pages light, dark and narrow, taken in Debian's chromium.

python website/build.py && python website/pictures.py      # docs/site.png
"""

import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
SITE, SHEET = ROOT / "build" / "site", ROOT / "docs" / "site.png"
PAGES = (
    "index",
    "start",
    "which_interaction",
    "evidence",
    "interactions/overlap",
    "reference/crosshead.swap",
)
WIDE, NARROW = (1280, 800), (390, 800)
HEIGHT, GAP = 400, 12  # of a shot in the sheet, and between shots
COLOURS = 128  # of the sheet, so that it is small


def shots(folder: Path) -> list[list[Path]]:
    """Of every page a row of three: light, dark, narrow."""
    rows = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for page in PAGES:
            row = []
            for scheme, (width, height) in (("light", WIDE), ("dark", WIDE), ("light", NARROW)):
                context = browser.new_context(
                    color_scheme=scheme, viewport={"width": width, "height": height}
                )
                tab = context.new_page()
                tab.goto(_address(page))
                row.append(folder / f"{page.replace('/', '-')}-{scheme}-{width}.png")
                tab.screenshot(path=row[-1])
                context.close()
            rows.append(row)
        browser.close()
    return rows


def _address(page: str) -> str:
    for path in (SITE / f"{page}.html", SITE / page / "index.html"):
        if path.is_file():
            return path.as_uri()
    raise ValueError(f"expected a page {page!r} in {SITE}, found none; run website/build.py first")


def sheet(rows: list[list[Path]]) -> Image.Image:
    pictures = [[_smaller(Image.open(path).convert("RGB")) for path in row] for row in rows]
    width = max(sum(each.width + GAP for each in row) for row in pictures) + GAP
    whole = Image.new("RGB", (width, len(rows) * (HEIGHT + GAP) + GAP), "#808080")
    for number, row in enumerate(pictures):
        left = GAP
        for each in row:
            whole.paste(each, (left, GAP + number * (HEIGHT + GAP)))
            left += each.width + GAP
    return whole.quantize(COLOURS)


def _smaller(picture: Image.Image) -> Image.Image:
    return picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    (folder := ROOT / "build" / "shots").mkdir(parents=True, exist_ok=True)
    sheet(shots(folder)).save(SHEET, optimize=True)
    print(f"{SHEET.relative_to(ROOT)}, {SHEET.stat().st_size // 1024} KiB; each shot in build/shots")
