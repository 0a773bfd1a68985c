"""What an evaluation found, as tables: of each class, and COCO's numbers."""

from typing import Any

_MOST = 40  # classes that are printed all


def class_table(details: dict[str, Any]) -> list[str]:
    """The lines of a table of ``details["classes"]``; of many classes those that are found worst."""
    classes = details.get("classes", [])
    if not classes:
        return []
    titles = list(classes[0])
    judged = [name for name in titles[1:] if any(isinstance(row[name], float) for row in classes)]
    rows = classes
    if len(classes) > _MOST and judged:
        known = [row for row in classes if row[judged[0]] is not None]
        rows = sorted(known, key=lambda row: row[judged[0]])[: _MOST // 2]
    lines = _table(rows)
    if len(rows) < len(classes):
        lines.append(f"the {len(rows)} of {len(classes)} classes with the lowest {judged[0]}; --json has all")
    never = [row["class"] for row in classes if row.get("recall") == 0.0]
    if never:
        shown = ", ".join(never[:8]) + (f" and {len(never) - 8} more" if len(never) > 8 else "")
        lines.append(f"never found: {shown}")
    return lines


def number_table(details: dict[str, Any]) -> list[str]:
    """The lines of a table of ``details["numbers"]``; none where there is none."""
    return _table(details["numbers"]) if details.get("numbers") else []


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """One line a row, under the names of its columns."""
    titles = list(rows[0])
    cells = [titles, *([_cell(row[title]) for title in titles] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
