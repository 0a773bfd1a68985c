"""Reports as one HTML file each, without a script, a server or a network: of comparisons, probes and judgements, which
they take as plain data."""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from .charts import Curve, Dots, Point, draw_curves, draw_dots, draw_points


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


def compare_page(data: Mapping[str, Any]) -> str:
    """The page: what may be said, the table, all seeds, curves, cost, classes, and how the recipes differ."""
    metric, groups, over = data["metric"], data["groups"], data.get("over", "seed")
    name = f"test {metric['label']}"

    def text(value: float) -> str:
        return f"{100 * value:.5g} %" if metric["percent"] else f"{value:.4g}"

    dots = [Dots(group["label"], group["values"], group["low"], group["high"]) for group in groups]
    cost = [Point(g["label"], g["gmacs"], sum(g["values"]) / len(g["values"])) for g in groups]
    curves = [Curve(curve["label"], curve["points"]) for curve in data["curves"]]
    others = [group["label"] for group in groups[1:]]
    sections = [
        *(paragraph(sentence, "verdict") for sentence in data["sentences"]),
        *(paragraph(note, "note") for note in data["notes"]),
        heading("Quality beside cost"),
        table(data["rows"], "recipes"),
        heading(f"Every {over}"),
        drawing(draw_dots(dots, text, f"{name} of every {over}"), f"{name} of every {over}"),
        paragraph(
            f"A ring a {over}, a bar for the mean, a line for the mean's 95 % interval (Student's t).", "note"
        ),
        heading("Cost against quality"),
        drawing(draw_points(cost, text, f"{name} against GMACs", "GMACs"), f"{name} against GMACs"),
    ]
    if curves:
        label = f"validation {data['curves'][0]['metric']}"
        sections += [
            heading(f"Curves of all {over}s"),
            drawing(draw_curves(curves, text, label, "epoch"), label),
        ]
    if data["classes"]:
        sections += [
            heading("Classes"),
            paragraph(
                "Where the recipes differ most in recall. Of many classes some differ by chance.", "note"
            ),
            table(data["classes"], "classes"),
        ]
    if data["heads"]:
        sections += [
            heading("Heads"),
            paragraph(
                "By crosshead heads, on the same images: mean over heads and layers of all seeds, and the least and "
                "the most of one seed. Not tested here; crosshead heads --against does.",
                "note",
            ),
            table(data["heads"], "heads"),
        ]
    sections += [
        heading("How the recipes differ"),
        table(data["settings"], "settings"),
        folded("Runs and versions", json.dumps(_sources(data), indent=1)),
    ]
    return report_page(f"{groups[0]['label']} against {', '.join(others)}", *sections)


def _sources(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"runs": {g["label"]: g["runs"] for g in data["groups"]}, "versions": data["versions"]}


def probe_page(data: Mapping[str, Any], rows: Sequence[Mapping[str, str]], words: str) -> str:
    """The page of one probe: what may be said, what it asks, all seeds, and how they were made."""
    cells = data["cells"]
    dots = [Dots(cell["label"], [run["accuracy"] for run in cell["runs"]]) for cell in cells]
    curves = [
        Curve(cell["label"], run["curve"], bool(cell["control"])) for cell in cells for run in cell["runs"]
    ]
    settings = {key: value for key, value in data.items() if key not in ("cells", "asks")}
    return report_page(
        f"Probe: {data['probe']}",
        paragraph(words, "verdict"),
        paragraph(f"It asks of heads to {data['asks']}. Guessing gives {data['chance']:.0%}."),
        heading("Every kind of heads"),
        table(rows, "kinds of heads"),
        paragraph(
            "Accuracy is the mean over seeds on the same unseen sequences; steps to 90 % is their median. MMACs are of "
            "one sequence forward, ms of processor time a training step.",
            "note",
        ),
        heading("Seeds"),
        drawing(draw_dots(dots, _percent, "accuracy of every seed"), "accuracy of every seed"),
        heading("Accuracy against steps"),
        drawing(draw_curves(curves, _percent, "accuracy against steps", "step"), "accuracy against steps"),
        folded("Settings and versions", json.dumps(settings, indent=1)),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def judging_page(data: Mapping[str, Any], pictures: Sequence[tuple[str, bytes]], note: str) -> str:
    """The page of what ``judging.judgement.Report.as_data`` gives; ``pictures`` are captions and PNG or JPEG files."""
    sections = [paragraph(sentence, "verdict") for sentence in data["sentences"]]
    for chart in data["charts"]:
        curves = [Curve(label, points) for label, points in chart["curves"].items()]
        sections += [heading(chart["title"])]
        sections += [paragraph(chart["note"], "note")] if chart.get("note") else []
        sections += [drawing(draw_curves(curves, _share, chart["title"], chart["along"]), chart["title"])]
    for each in data["tables"]:
        sections += [heading(each["title"])]
        sections += [paragraph(each["note"], "note")] if each.get("note") else []
        sections += [table(each["rows"], each["title"])]
    if pictures:
        sections += [heading("Worst pictures"), paragraph(note, "note")]
        sections += [figure(_data_uri(content), caption) for caption, content in pictures]
    return report_page(data["title"], *sections)


def _share(value: float) -> str:
    return f"{value:.3g}"


def _data_uri(content: bytes) -> str:
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
