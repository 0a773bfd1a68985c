"""Arguments that several commands share, and what they turn into."""

import argparse
import re
from pathlib import Path
from typing import Any

Commands = Any  # argparse's sub-parsers action, whose class has no public name


def add_recipe_words(parser: argparse.ArgumentParser) -> None:
    """``RECIPE`` and ``KEY=VALUE ...``, in one list: they may stand anywhere between the options."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE [KEY=VALUE ...]",
        help="a shipped recipe's name or a .yaml file, and keys to change: train.epochs=10 model.overlap=index",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", metavar="D", help="cpu, cuda, cuda:1 or mps (default: the best one there is)"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        help="best, last, or a step number (default: the one that RUN names, or best)",
    )


def split_words(words: list[str]) -> tuple[str | None, list[str]]:
    """The recipe, if one is named, and the overrides."""
    overrides = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise ValueError(
            f"expected one recipe and KEY=VALUE pairs, got {' and '.join(names)}; write KEY=VALUE without blanks"
        )
    return (names[0] if names else None), overrides


def find_run(path: str | Path) -> Path:
    """The run's folder that ``path`` is or lies in; ValueError where there is none."""
    path = Path(path)
    for folder in (path, *path.parents):
        if (folder / "recipe.yaml").is_file():
            return folder
    what = "holds no recipe.yaml" if path.exists() else "is not there"
    raise ValueError(f"{path} {what}; expected the folder of a run, such as runs/digits_mohsa")


def find_checkpoint(path: str | Path) -> tuple[Path, str]:
    """The run's folder that ``path`` is or lies in, and its checkpoint: the step that ``path`` names, or "best"."""
    run = find_run(path)
    for part in Path(path).parts[len(run.parts) :]:
        if step := re.fullmatch(r"step-([0-9]{1,15})", part):
            return run, str(int(step[1]))
    return run, "best"
