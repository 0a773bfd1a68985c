"""Writes the reference's pages out of the code: the public names, the command line, the shipped recipes."""

import argparse
import importlib
import re
from pathlib import Path

# The rooms whose `__all__` is public, and what each is for.
ROOMS = {
    "crosshead": "What most people need: swapping, layers, operators, saving, registering one's own.",
    "crosshead.layers": "Attention with interacting heads as modules: hosts, interactions, schedules.",
    "crosshead.swap": "Puts an interaction into any model, and takes it out again.",
    "crosshead.models": "Models of timm's registry with interacting heads; checkpoints.",
    "crosshead.heads": "Looking inside heads: measures, maps, ablation.",
    "crosshead.probes": "Small tasks that tell kinds of heads apart.",
    "crosshead.recipe": "What a run is, as a checked object.",
    "crosshead.tasks": "What is learned: losses, metrics, wording.",
    "crosshead.train": "Training, loading and judging runs from Python.",
    "crosshead.ops.overlap": "Overlapped heads as pure functions.",
    "crosshead.ops.interactive": "Interactive heads through landmarks as pure functions.",
    "crosshead.ops.talking": "Talking heads as pure functions.",
    "crosshead.ops.knocking": "Knocking heads as pure functions.",
    "crosshead.ops.reattention": "Re-attention as pure functions.",
    "crosshead.ops.dcmha": "Dynamically composable heads as pure functions.",
    "crosshead.ops.iha": "Interleaved heads as pure functions.",
}


def write_reference(folder: Path) -> None:
    """API pages, ``command_line.md`` and ``recipes.md`` under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for room, purpose in ROOMS.items():
        (folder / f"{room}.md").write_text(_room_page(room, purpose), encoding="utf-8")
    (folder / "index.md").write_text(_index_page(), encoding="utf-8")
    (folder / "command_line.md").write_text(_command_page(), encoding="utf-8")
    (folder / "recipes.md").write_text(_recipes_page(), encoding="utf-8")


def public_names(room: str) -> list[str]:
    return sorted(importlib.import_module(room).__all__)


def _index_page() -> str:
    lines = ["# Reference", "", "All of these pages are made of the code, of the version that you read.", ""]
    lines += ["| | |", "| --- | --- |"]
    lines += ["| [The command line](command_line.md) | every command and option |"]
    lines += ["| [A recipe's keys](../recipe.md) | what each means, takes and is by default |"]
    lines += ["| [Shipped recipes](recipes.md) | what `crosshead train` knows by name |"]
    lines += [f"| [`{room}`]({room}.md) | {purpose} |" for room, purpose in ROOMS.items()]
    return "\n".join(lines) + "\n"


def _room_page(room: str, purpose: str) -> str:
    lines = [f"# `{room}`", "", purpose, ""]
    for name in public_names(room):
        lines += [f"::: {_where(room, name)}", "    options:", "      heading_level: 2", ""]
    return "\n".join(lines)


def _where(room: str, name: str) -> str:
    """Where a name is defined: an alias of an alias is not followed by every reader of source."""
    value = getattr(importlib.import_module(room), name)
    module, known_as = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(value, type | type(_where)) and str(module).startswith("crosshead") and known_as == name:
        return f"{module}.{name}"
    return f"{room}.{name}"


def _command_page() -> str:
    from crosshead.cli.arguments.parser import build_parser

    parser, commands = build_parser()
    lines = ["# The command line", "", "`crosshead COMMAND --help` says the same.", ""]
    for action in parser._subparsers._group_actions[0]._choices_actions:  # the order and words of --help
        lines += _command(action.dest, action.help or "", commands[action.dest])
    return "\n".join(lines) + "\n"


def _command(name: str, purpose: str, parser: argparse.ArgumentParser) -> list[str]:
    lines = [f"## `crosshead {name}`", "", f"{parser.description or purpose}", ""]
    usage = parser.format_usage().removeprefix("usage: ").strip()
    lines += ["```text", re.sub(r"\n\s+", "\n    ", usage), "```", ""]
    rows, inner = [], []
    for group in parser._action_groups:
        actions = [
            each for each in group._group_actions if each.help != argparse.SUPPRESS and each.dest != "help"
        ]
        inner += [each for each in actions if isinstance(each, argparse._SubParsersAction)]
        if actions and group.title not in ("options", "positional arguments", "commands"):
            rows.append(f"| *{group.title}* | |")
        rows += [_row(each) for each in actions if each not in inner]
    if rows:
        lines += ["| argument | |", "| --- | --- |", *rows, ""]
    for each in inner:
        lines += _children(name, each)
    if parser.epilog:
        lines += ["```text", parser.epilog.strip(), "```", ""]
    return lines


def _children(name: str, commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> list[str]:
    """The commands under a command, each once, whatever else it is called."""
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    lines: list[str] = []
    for word, help_text in helps.items():
        words = _command(f"{name} {word}", help_text, commands.choices[word])
        lines += [line.replace("## ", "### ", 1) if line.startswith("## ") else line for line in words]
    return lines


def _row(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = " ".join(value) if isinstance(value, tuple) else value
    if action.choices:
        value = "{" + ",".join(str(each) for each in action.choices) + "}"
    names = " , ".join(action.option_strings)
    words = f"{names} {value}".strip() if action.nargs != 0 else names
    help_text = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    return f"| `{words.replace('|', chr(92) + '|')}` | {_cell(help_text)} |"


def _recipes_page() -> str:
    from crosshead.recipe import load_recipe, shipped_recipes

    lines = ["# Shipped recipes", "", "`crosshead recipes NAME` shows one with every key.", ""]
    lines += ["| recipe | model | data | task | epochs | |", "| --- | --- | --- | --- | --- | --- |"]
    for name in shipped_recipes():
        recipe = load_recipe(name)
        cells = [f"`{name}`", f"`{recipe.model.name}`", recipe.data.name, recipe.task.name]
        lines.append("| " + " | ".join([*cells, str(recipe.train.epochs), _cell(recipe.notes or "")]) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
