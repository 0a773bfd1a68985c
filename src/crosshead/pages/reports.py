"""A report as one HTML file: text, tables and drawings, without a script, a server or a network."""

import html
import re
from collections.abc import Mapping, Sequence
from importlib import resources


def report_page(title: str, *sections: str) -> str:
    """The page of ``sections``, each of them HTML that the functions here made. It follows the reader's light or dark,
    and its policy admits nothing but its own style and pictures."""
    parts = {"title": html.escape(title), "style": _part("style.css"), "body": "\n".join(sections)}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("index.html"))


def heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """``kind``: "verdict", which is said first, or "note"."""
    return f"<p{f' class={kind}' if kind else ''}>{html.escape(text)}</p>"


def table(rows: Sequence[Mapping[str, str]], name: str) -> str:
    """A row a mapping, under the first one's keys; nothing for none."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in rows[0])
    body = "".join(_row([*row.values()]) for row in rows)
    return _scrolled(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", name)


def folded(summary: str, text: str) -> str:
    """Text that is there for who opens it."""
    return f"<details><summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre></details>"


def drawing(svg: str, name: str) -> str:
    return _scrolled(svg, name)


def figure(source: str, caption: str) -> str:
    """A picture, ``source`` a ``data:`` address: the page's policy admits no other."""
    said = html.escape(caption)
    return f'<figure><img src="{html.escape(source)}" alt="{said}"><figcaption>{said}</figcaption></figure>'


def _row(cells: list[str]) -> str:
    first, *others = map(html.escape, cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'


def _scrolled(content: str, name: str) -> str:
    """What may be wider than a screen scrolls by itself, by keys too."""
    return f'<div class="wide" role="region" aria-label="{html.escape(name)}" tabindex="0">{content}</div>'


def _part(name: str) -> str:
    return (resources.files("crosshead.pages") / "report" / name).read_text(encoding="utf-8")
