"""A judgement of a run as a page: sentences, tables, curves, and its worst pictures. It takes plain data."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from .charts import Curve, draw_curves
from .reports import drawing, figure, heading, paragraph, report_page, table


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
