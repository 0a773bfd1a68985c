"""One HTML file of a page's parts: no server, no network, nothing beside it."""

import base64
import hashlib
import html
import json
import re
from importlib import resources
from typing import Any

_SCRIPTS = (
    "engine.js",
    "colours.js",
    "data.js",
    "numbers.js",
    "marks.js",
    "panels.js",
    "cells.js",
    "theme.js",
    "view.js",
)


def atlas_page(title: str, notes: str, data: dict[str, Any]) -> str:
    """The atlas of ``data`` (as ``crosshead.pages.embedding`` makes it) as one HTML file.

    The page's policy admits its own script, named by its hash, its style, and pictures within it; nothing else.
    """
    script = _bundle()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(title),
        "notes": html.escape(notes),
        "style": _part("style.css"),
        "script": script,
        "script_hash": f"sha256-{digest}",
        # Inside a script element only its end tag, or a comment's start, could end the data.
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    # In one pass, so that nothing in a title or in the data is taken for a place of the template.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("index.html"))


def _bundle() -> str:
    """The modules as one, in an order in which each stands after what it uses."""
    text = "\n".join(_part(name) for name in _SCRIPTS)
    text = re.sub(r"^import .*?;$", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def _part(name: str) -> str:
    return (resources.files("crosshead.pages") / "atlas" / name).read_text(encoding="utf-8")
