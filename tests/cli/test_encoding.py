"""A terminal that knows only ASCII ends nothing."""

import io
import json

from rich.console import Console
from rich.table import Table

from crosshead.cli.terminal.streams import make_printable


def test_what_an_encoding_lacks_is_spelled_otherwise():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    make_printable(stream, io.StringIO())  # a stream without an encoding is left as it is
    table = Table("mean ± deviation")
    table.add_row("98.1 ± 0.5")
    Console(file=stream).print(table)
    print(json.dumps(["é", "😀", "±"], ensure_ascii=False), file=stream)
    stream.seek(0)
    *_, row, _, line = stream.read().splitlines()
    assert "98.1 +- 0.5" in row
    assert json.loads(line) == ["é", "😀", "+-"]
