"""Text from files, which may be anyone's, on its way to a terminal or a spreadsheet."""

import re
from typing import Any

# Control characters, line and paragraph separators, and what turns the direction of writing.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str, *, keep: str = "") -> str:
    """``text`` in one line that does nothing to a terminal: the characters that would are escaped, as JSON does it, but
    for those of ``keep``."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text)


def spreadsheet_cell(value: Any) -> Any:
    """``value`` as a cell of a table for people: text that a spreadsheet would take for a formula begins with '."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return "'" + value
    return value
