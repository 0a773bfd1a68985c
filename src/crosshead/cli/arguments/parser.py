"""The argument parser: every command's arguments, and messages of one line."""

import argparse
import difflib
import re
import sys
from typing import NoReturn

from crosshead.cli.commands import (
    atlas,
    augment,
    compare,
    convert,
    convert_attention,
    data,
    demo,
    doctor,
    embed,
    evaluate,
    export,
    heads,
    judge,
    look,
    match,
    models,
    predict,
    probe,
    profile,
    push,
    recipes,
    schedules,
    sweep,
    train,
    tune,
)

_COMMANDS = (
    train,
    evaluate,
    judge,
    predict,
    sweep,
    compare,
    match,
    demo,
    probe,
    recipes,
    models,
    schedules,
    data,
    augment,
    tune,
    profile,
    doctor,
    embed,
    export,
    push,
    convert,
    convert_attention,
    heads,
    look,
    atlas,
)

_DESCRIPTION = "Vision transformers whose attention heads interact: train, evaluate, predict, compare."
_EPILOG = """\
examples:
  crosshead demo                                      plain against overlapped heads, in a minute or two
  crosshead train digits_mohsa                        train a shipped recipe
  crosshead train digits_mohsa train.epochs=10        ... and change a key of it
  crosshead predict runs/digits_mohsa photo.png       the top classes, by name
  crosshead COMMAND --help                            what a command takes
"""


class Parser(argparse.ArgumentParser):
    """argparse with exact option names, and errors of one line that name the nearest option."""

    def __init__(self, **kwargs: object) -> None:
        settings = {"formatter_class": _Formatter, "allow_abbrev": False, **kwargs}
        super().__init__(**settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def nearest_option(self, word: str) -> str:
        option = word.partition("=")[0]
        near = difflib.get_close_matches(option, self._option_string_actions, n=1, cutoff=0.7)
        if near:
            return f" (the nearest is {near[0]})"
        key = _key_of(option) if "KEY=VALUE" in self.format_usage() else None
        return f"; a recipe's keys are changed as {key}=..." if key else ""


def _key_of(option: str) -> str | None:
    """The recipe's key that ``option`` would be the name of, if there is one."""
    from crosshead.recipe.describe import all_keys

    leaf = option.lstrip("-").replace("-", "_")
    keys = [key for key in all_keys() if key.rpartition(".")[2] == leaf and "." in key]
    return {"model": "model.name", "data": "data.name"}.get(leaf) or (keys[0] if keys else None)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The whole parser, and that of each command by name."""
    parser = Parser(prog="crosshead", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action=_Version, nargs=0, help="print versions and exit")
    parser.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.register(commands)
    return parser, dict(commands.choices)


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the arguments; KEY=VALUE may stand anywhere after the command."""
    parser, commands = build_parser()
    if not argv:
        parser.print_help()
        sys.exit(0)
    word = next((word for word in argv if not word.startswith("-")), None)
    if word is not None and word not in commands:
        near = difflib.get_close_matches(word, commands, n=1, cutoff=0.0)[0]
        parser.error(f"there is no command {word!r}; the nearest is {near}")
    args, rest = parser.parse_known_args(argv)
    command = commands[args.command]
    words = [word for word in rest if not word.startswith("-")]
    if hasattr(args, "words"):
        args.words += words
        rest = [word for word in rest if word not in words]
    if rest:
        command.error(f"unknown argument {rest[0]}{command.nearest_option(rest[0])}")
    return args


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        for package in ("crosshead", "torch", "timm"):
            try:
                found = version(package)
            except PackageNotFoundError:  # run from a checkout that was not installed
                found = "not installed as a package"
            print(f"{package:10} {found}")
        print(f"{'python':10} {re.split(r'[ +]', sys.version)[0]}")
        parser.exit()
