"""Checks a built site: every link and anchor leads somewhere in it, and no page fetches anything from elsewhere."""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FETCHED = {("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src"), ("link", "href")}
_LEADS = {("a", "href"), *_FETCHED}
_METADATA = {"canonical", "next", "prev"}  # of <link>, and not fetched


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.links: list[tuple[bool, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}
        for name, value in attrs:
            if value and (tag, name) in _LEADS and values.get("rel") not in _METADATA:
                self.links.append(((tag, name) in _FETCHED, value))


def broken_links(site: Path) -> list[str]:
    """A line for each link that leads nowhere, and for each file that a page would fetch over a network."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site)}: {link}: {fault}"
        for path, page in pages.items()
        if path.name != "404.html"
        for link, fault in _faults(path, page, pages)
    ]


def _faults(path: Path, page: _Page, pages: dict[Path, _Page]) -> Iterator[tuple[str, str]]:
    for fetched, link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            if fetched and parts.scheme != "data":
                yield link, "is fetched from elsewhere"
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            yield link, "there is no such file"
        elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield link, "there is no such place on the page"


if __name__ == "__main__":
    found = broken_links(Path(sys.argv[1]))
    print("\n".join(found) or "every link leads somewhere")
    sys.exit(bool(found))
