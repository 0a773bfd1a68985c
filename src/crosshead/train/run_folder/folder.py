"""The run folder: which one, whether it can be written, and what lies in it beside checkpoints."""

import importlib.metadata
import itertools
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from crosshead.data.base import DatasetInfo
from crosshead.files import printable, read_json
from crosshead.formats import as_comment, numbered, older_classes, read_numbered
from crosshead.recipe.compose import dump_recipe
from crosshead.recipe.schema import Recipe
from crosshead.train.files import replace_file
from crosshead.train.logging.log_files import METRICS_FILE

RECIPE_FILE, VERSIONS_FILE, CLASSES_FILE, LAUNCH_FILE = (
    "recipe.yaml",
    "versions.json",
    "classes.json",
    "launch.json",
)
CHECKPOINTS_FOLDER = "checkpoints"
_PACKAGES = ("crosshead", "torch", "torchvision", "timm", "safetensors", "pillow", "numpy")


def named_folder(recipe: Recipe, *names: str) -> Path:
    """``output/name``, and ``names`` below it.

    Raises:
        ValueError: that is not below ``output``.
    """
    folder = Path(recipe.output, recipe.name, *names)
    for name in (recipe.name, *names):
        if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
            raise ValueError(f"the run's name {name!r} leads out of {recipe.output}; expected a plain name")
    return folder


def numbered_folders(recipe: Recipe) -> Iterator[Path]:
    """``output/name``, ``output/name-2``, ... without end."""
    first = named_folder(recipe)
    yield first
    for number in itertools.count(2):
        yield first.with_name(f"{first.name}-{number}")


def last_folder(recipe: Recipe) -> Path:
    """The last of the numbered folders that is taken or, after a restart by torchrun, the one that this launch
    began in; the first free one where there is none."""
    folders = [*itertools.takewhile(holds_run, numbered_folders(recipe))]
    if restarts():
        folders = [folder for folder in folders if _launch_of(folder) == _launch()]
    return folders[-1] if folders else next(free_folders(recipe))


def free_folders(recipe: Recipe) -> Iterator[Path]:
    """Those of the numbered folders that hold no run when they are asked for."""
    return itertools.filterfalse(holds_run, numbered_folders(recipe))


def restarts() -> int:
    """How often torchrun has started this run's processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def holds_run(folder: Path) -> bool:
    return any(os.path.exists(folder / name) for name in (RECIPE_FILE, METRICS_FILE, CHECKPOINTS_FOLDER))


def make_writable(folder: Path) -> None:
    """Create ``folder`` and write a file in it, to find out now and not after the first epoch.

    Raises:
        ValueError: it cannot be written.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"the run folder {folder} cannot be written: {error.strerror}; choose another one (output=...), "
            "or make room or give write permission there"
        ) from error


def describe_run(folder: Path, recipe: Recipe, info: DatasetInfo) -> None:
    """Put the resolved recipe, the versions and the classes into ``folder``."""
    replace_file(folder / RECIPE_FILE, (as_comment() + dump_recipe(recipe)).encode())
    replace_file(folder / VERSIONS_FILE, _json(versions()))
    replace_file(folder / CLASSES_FILE, _json(numbered(asdict(info))))
    replace_file(folder / LAUNCH_FILE, _json(numbered(_launch())))


def read_info(folder: Path) -> DatasetInfo:
    """The classes and statistics that a run was trained with."""
    file = folder / CLASSES_FILE
    return info_of(read_numbered(read_json(file), file, older_classes))


def info_of(values: dict[str, Any]) -> DatasetInfo:
    """The inverse of ``asdict``, out of JSON."""
    return DatasetInfo(
        name=values["name"],
        class_names=tuple(map(printable, values["class_names"])),
        channels=values["channels"],
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        scale=None if values["scale"] is None else tuple(values["scale"]),
        class_ids=None if values["class_ids"] is None else tuple(values["class_ids"]),
    )


def check_classes(data: Sequence[str], learned: Sequence[str]) -> None:
    """Raises ValueError where the data's classes are not those that a run learned, in the same order."""
    if list(data) == list(learned):
        return
    if len(data) != len(learned):
        message = f"the data has {len(data)} classes, and the run learned {len(learned)}"
    else:
        place = next(i for i, (now, before) in enumerate(zip(data, learned, strict=True)) if now != before)
        message = (
            f"class {place} of the data is {data[place]!r}, and the run learned {learned[place]!r} there"
        )
    raise ValueError(
        f"{message}; use the data of that run, or start a new one (model.init_from takes over weights)"
    )


def changed_versions(folder: Path) -> list[str]:
    """What a run that goes on in ``folder`` is made with that it was not made with before, in words."""
    try:
        before = read_json(folder / VERSIONS_FILE)
        changed = compare_versions(before, versions())
    except (OSError, ValueError, AttributeError):  # there is none yet, or it is damaged and is written anew
        return []
    if not changed:
        return []
    return [f"numbers may differ in their last digits from here on, made with {'; '.join(changed)}"]


def compare_versions(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """The entries of ``before`` that are another today."""
    return [
        f"{name} {old} -> {now.get(name, 'missing')}" for name, old in before.items() if now.get(name) != old
    ]


def versions() -> dict[str, str]:
    """What a run was made with: packages, and how many threads share a sum, and how wide they compute."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["threads"] = str(torch.get_num_threads())
    found["cpu"] = torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_available():
        found["cuda"] = str(torch.version.cuda)
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _launch() -> dict[str, Any]:
    """What a restart has in common with the start before it: torchrun's run id and process, and the command."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    return {"run_id": run_id, "launcher": os.getppid() if run_id else os.getpid(), "command": sys.argv}


def _launch_of(folder: Path) -> dict[str, Any] | None:
    try:
        return read_numbered(read_json(folder / LAUNCH_FILE), folder / LAUNCH_FILE)
    except (OSError, ValueError):
        return None


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
