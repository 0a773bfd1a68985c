"""A probe's report as a page. It takes the report as plain data, as its JSON has it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .charts import Curve, Dots, draw_curves, draw_dots
from .reports import drawing, folded, heading, paragraph, report_page, table


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
