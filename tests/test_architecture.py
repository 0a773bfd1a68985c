"""Imports run one way, and no room reaches past what it may know."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import crosshead

ROOT = Path(crosshead.__file__).parent

# A room, and the rooms that it may import from.
MAY_IMPORT = {
    "files": set(),
    "formats": set(),
    "libraries": set(),
    "plugins": set(),
    "ops": set(),
    "layers": {"plugins", "ops"},
    "swap": {"ops", "layers"},
    "models": {"files", "formats", "libraries", "ops", "layers", "swap"},
    "probes": {"layers", "swap"},
    "pages": {"heads", "layers", "swap"},
    "heads": {"ops", "layers", "swap", "models"},
    "hub": {"files", "swap", "models", "tasks", "train", "compare"},
    "saved": {"models", "train", "hub"},
    "recipe": {"files", "formats", "layers"},
    "data": {"files", "libraries", "plugins", "recipe"},
    "tasks": {"libraries", "plugins", "recipe", "data", "models"},
    "train": {"files", "formats", "ops", "recipe", "data", "tasks", "models"},
    "compare": {"recipe", "tasks", "train"},
    "conversion": {"data", "swap", "tasks", "train"},
    "judging": {"files", "formats", "data", "tasks", "train"},
    "export": {"ops", "layers", "libraries", "data", "models", "tasks", "train"},
    "cli": {
        "files",
        "libraries",
        "heads",
        "pages",
        "probes",
        "compare",
        "conversion",
        "judging",
        "export",
        "hub",
        "recipe",
        "data",
        "tasks",
        "train",
        "models",
        "layers",
        "swap",
    },
}

# The files and folders of a room, from the bottom up: each may import from those before it, and from itself.
INSIDE = {
    "data": "random decode coco base transforms datasets batching conversion tools",
    "train": "files events distributed logging run_folder checkpoint loop inference anchors teacher resolve precheck "
    "prepare run tools",
    "conversion": "objectives distilling costs outcome of_run of_pictures",
    "hub": "repository card run_card publish",
    "export": "about answers objects prepare runtime anchors regions two_stage graphs mends programs precision checks "
    "two_stage_checks onnx_file sources",
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


def test_what_is_imported_of_this_package_is_there():
    """Inside a function too, where neither mypy (``ignore_missing_imports``) nor an import of all files sees it."""
    for path in [*ROOT.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("crosshead."):
                target = ROOT.joinpath(*node.module.split(".")[1:])
                assert target.is_dir() or target.with_suffix(".py").is_file(), f"{path.name}: {node.module}"


def test_no_three_files_have_one_name():
    """But for the forms that every operator has, so that a name alone nearly tells the file."""
    names = Counter(path.name for path in ROOT.rglob("*.py"))
    for form in ("__init__.py", "naive.py", "fast.py", "arguments.py"):
        del names[form]
    assert not [name for name, count in names.items() if count > 2]


def test_every_file_stands_in_a_room():
    entrances = {"__init__", "__main__"}
    assert {room(path) for path in ROOT.rglob("*.py")} <= set(MAY_IMPORT) | entrances


def imported_modules(path: Path) -> set[Path]:
    """The files of ops/ that a file there imports from; a package stands for its ``__init__.py``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = path.parents[node.level - 1]
        base = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
        for target in [base, *(base / alias.name for alias in node.names)]:
            for file in (target.with_suffix(".py"), target / "__init__.py"):
                if file.is_file() and ROOT / "ops" in file.parents:
                    found.add(file)
    # ``from . import kernel`` asks the package for its module, nothing else.
    return found - {path.parent / "__init__.py", ROOT / "ops" / "__init__.py"}


def test_no_fast_path_imports_an_oracle():
    """Neither at first nor at second hand: an error in what both share would be invisible to their comparison."""
    for path in (ROOT / "ops").rglob("*.py"):
        if path.name in ("__init__.py", "naive.py"):
            continue
        reached, waiting = set(), [path]
        while waiting:
            waiting += sorted(more := imported_modules(waiting.pop()) - reached)
            reached |= more
        oracles = {file.relative_to(ROOT) for file in reached if file.name == "naive.py"}
        assert not oracles, f"{path.relative_to(ROOT)} reaches {', '.join(map(str, sorted(oracles)))}"


def test_an_oracle_shares_checks_alone_with_its_fast_paths():
    """Beside them what makes it a node of a traced graph."""
    shared = {"checks.py", "arguments.py", "modes.py", "naive.py"}
    for path in (ROOT / "ops").rglob("naive.py"):
        beyond = {file.name for file in imported_modules(path)} - shared
        assert not beyond, f"{path.relative_to(ROOT)} takes more than checks from {', '.join(sorted(beyond))}"
        of_modes = [
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module == "modes"
            for alias in node.names
        ]
        assert set(of_modes) <= {"traceable"}, f"{path.relative_to(ROOT)} takes {of_modes} from modes.py"


def test_test_modules_have_names_of_their_own():
    """Of two with one name pytest collects one; and a module named as a folder hides what lies in that."""
    tests = Path(__file__).parent
    files = [path for path in tests.rglob("*.py") if path.stem != "conftest"]
    names = [path.stem for path in files]
    assert sorted(names) == sorted(set(names))
    folders = {path.name for path in tests.iterdir() if path.is_dir()}
    assert not folders & set(names)


@pytest.mark.parametrize("name", INSIDE)
def test_imports_run_one_way_inside_a_room(name):
    order = INSIDE[name].split()
    found = {
        path.relative_to(ROOT / name).parts[0].removesuffix(".py") for path in (ROOT / name).rglob("*.py")
    }
    assert found - {"__init__"} == set(order)
    for path in (ROOT / name).rglob("*.py"):
        here = path.relative_to(ROOT / name).parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        beyond = imported_parts(path, name) - set(order[: order.index(here) + 1])
        assert not beyond, f"{path.relative_to(ROOT)} imports from {', '.join(sorted(beyond))}"


def imported_parts(path: Path, name: str) -> set[str]:
    """The files and folders of room ``name`` that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"crosshead.{name}"):
            inner = node.module.split(".")[2:]
            found |= {inner[0]} if inner else {alias.name for alias in node.names}
    return found
