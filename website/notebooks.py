"""Pages of the notebooks in docs/notebooks, executed, with what came out: text and pictures.

What came out is kept in build/notebooks under a hash of the notebook, for executing both takes minutes.
"""

import base64
import hashlib
import os
import re
from pathlib import Path

from stage import ROOT

KEPT = ROOT / "build" / "notebooks"


def write_notebooks(pages: Path, execute: bool = True) -> None:
    """A page a notebook under ``pages``; without its outputs where ``execute`` is False."""
    import jupytext
    import nbformat

    for source in sorted((ROOT / "docs" / "notebooks").glob("*.py")):
        notebook = jupytext.read(source)
        if execute:
            kept = KEPT / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.ipynb"
            if not kept.is_file():
                _execute(notebook, source)
                kept.parent.mkdir(parents=True, exist_ok=True)
                nbformat.write(notebook, kept)
            notebook = nbformat.read(kept, as_version=4)
        page = pages / "notebooks" / f"{source.stem}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        cells = [_cell(cell, page, number) for number, cell in enumerate(notebook.cells)]
        page.write_text("\n\n".join(cells) + "\n", encoding="utf-8")


def _execute(notebook: "object", source: Path) -> None:
    from nbclient import NotebookClient

    print(f"executing {source.relative_to(ROOT)}", flush=True)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched
    NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()


def _cell(cell: "object", page: Path, number: int) -> str:
    if cell["cell_type"] == "markdown":
        return cell["source"]
    shown = [f"```python\n{cell['source']}\n```"]
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream":
            shown.append(_text(output["text"]))
        elif picture := output.get("data", {}).get("image/png"):
            name = f"{page.stem}_{number}.png"
            (page.parent / name).write_bytes(base64.b64decode(picture))
            shown.append(f"![What the cell above draws]({name})")
        elif text := output.get("data", {}).get("text/plain"):
            shown.append(_text(text))
    return "\n\n".join(shown)


def _text(text: str) -> str:
    """Without the folder of this machine, in which the runs lie."""
    return "```text\n" + re.sub(r"/[\w/.-]*/(crosshead-\w+?)-\w+/", r"\1/", text).rstrip() + "\n```"
