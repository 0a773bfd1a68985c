"""Draws README's badges out of pyproject.toml, so that they say what is so: python website/badges.py

A test compares them (tests/docs/test_site.py). They are files of the repository: nothing is fetched to show them.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "badges"
_LETTER, _MARGIN = 7, 8  # pixels

_BADGE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{name}: {value}">
<rect width="{width}" height="20" rx="3" fill="#1f6fb2"/><rect width="{left}" height="20" rx="3" fill="#444"/>
<rect x="{edge}" width="4" height="20" fill="#444"/>
<g fill="#fff" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11" text-anchor="middle">
<text x="{name_at}" y="14">{name}</text><text x="{value_at}" y="14">{value}</text></g></svg>
"""


def badges() -> dict[str, str]:
    """File name -> SVG."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    torch = next(each for each in project["dependencies"] if each.startswith("torch>="))
    return {
        "python.svg": _badge("python", project["requires-python"].replace(">=", "≥ ")),
        "torch.svg": _badge("torch", torch.replace("torch>=", "≥ ")),
        "licence.svg": _badge("licence", project["license"]),
    }


def _badge(name: str, value: str) -> str:
    left, right = (len(text) * _LETTER + 2 * _MARGIN for text in (name, value))
    places = {"edge": left - 4, "name_at": left / 2, "value_at": left + right / 2}
    return _BADGE.format(name=name, value=value, width=left + right, left=left, **places)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, picture in badges().items():
        (FOLDER / name).write_text(picture, encoding="utf-8")
