"""A comparison of recipes as a page. It takes the comparison as plain data."""

import json
from collections.abc import Mapping
from typing import Any

from .charts import Curve, Dots, Point, draw_curves, draw_dots, draw_points
from .reports import drawing, folded, heading, paragraph, report_page, table


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
