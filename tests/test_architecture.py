"""Imports run one way, and no room reaches past what it may know."""

import ast
from pathlib import Path

import pytest

import crosshead

ROOT = Path(crosshead.__file__).parent

# A room, and the rooms that it may import from.
MAY_IMPORT = {
    "ops": set(),
    "layers": {"ops"},
    "swap": {"ops", "layers"},
    "models": {"ops", "layers", "swap"},
    "heads": {"ops", "layers", "swap", "models"},
    "recipe": {"layers"},
    "data": {"recipe"},
    "tasks": {"recipe", "data"},
    "train": {"recipe", "data", "tasks", "models"},
    "compare": {"train"},
    "cli": {"heads", "compare", "recipe", "data", "tasks", "train", "models", "layers", "swap"},
}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms of this package that a file imports from, at its top or inside a function."""
    package = ("crosshead", *path.relative_to(ROOT).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            targets = [(*base, *(node.module or "").split("."))]
            if not node.module:
                targets = [(*base, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        found |= {
            target[1] for target in targets if target[0] == "crosshead" and len(target) > 1 and target[1]
        }
    return found


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_run_one_way(name):
    files = [path for path in ROOT.rglob("*.py") if room(path) == name]
    assert files
    for path in files:
        beyond = imported_rooms(path) - MAY_IMPORT[name] - {name}
        assert not beyond, f"{path.relative_to(ROOT)} imports from {', '.join(sorted(beyond))}"


def test_every_file_stands_in_a_room():
    entrances = {"__init__", "__main__"}
    assert {room(path) for path in ROOT.rglob("*.py")} <= set(MAY_IMPORT) | entrances
