"""Writes what a recipe's schema says for people and for editors: `make reference`."""

import json
from pathlib import Path

import timm

import crosshead.models  # noqa: F401 - registers the models
from crosshead.data.datasets.registry import DATASETS
from crosshead.layers import INTERACTIONS
from crosshead.recipe.compose import shipped_folder
from crosshead.recipe.describe import SCHEMA_FILE, Key, all_keys, json_schema
from crosshead.tasks import METRICS, TASKS

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"
SCHEMA = shipped_folder() / SCHEMA_FILE

_HEAD = """# A recipe's keys

Written by `make reference` out of `src/crosshead/recipe/schema.py`; a test keeps it true. `crosshead recipes --describe
KEY` says the same of one key or section. A recipe's file may also have `base`: a recipe's name, or a list of them, laid
over one another, over which the file's own keys are laid.

An editor completes and checks a recipe by the JSON schema that is shipped with the package. Those with the YAML
language server (VS Code's YAML extension, Neovim, Helix ...) take it from the file's first line:

    # yaml-language-server: $schema=PATH/recipe.schema.json

where PATH is what `python -c "import crosshead.recipe.compose as c; print(c.shipped_folder())"` prints.
"""


def page() -> str:
    keys = all_keys()
    lines = [_HEAD.rstrip()]
    for section in ("", *(name for name, key in keys.items() if key.is_section)):
        inside = [key for key in keys.values() if key.name.rpartition(".")[0] == section]
        lines += ["", *_section(keys.get(section)), "", "| key | what it is | expected | default |"]
        lines += ["| --- | --- | --- | --- |", *(_row(key) for key in inside if not key.is_section)]
    return "\n".join(lines) + "\n"


def _section(key: Key | None) -> list[str]:
    if key is None:
        return ["## The run"]
    more = " Further keys are options of its own." if key.is_open else ""
    return [f"## `{key.name}`", "", f"{key.description}{more}"]


def _row(key: Key) -> str:
    unit = f" ({key.unit})" if key.unit else ""
    return f"| `{key.name}` | {_cell(key.description)} | {_cell(key.expected + unit)} | `{key.default}` |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def schema() -> str:
    names = {
        "model.name": timm.list_models(["mohsa_*", "plain_*", "ivit_*"]),
        "model.interaction.kind": [*INTERACTIONS],
        "data.name": sorted(DATASETS),
        "task.name": [*TASKS],
        "task.select_by": sorted(set(METRICS) - {"count", "skipped"}),
    }
    return json.dumps(json_schema(names), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
