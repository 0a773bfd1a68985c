"""YAML as recipes use it: plain data, read strictly, with the place of every value.

The scalars are those of YAML 1.2's core schema, not PyYAML's 1.1: ``5e-4`` is a number, ``no`` and ``on`` are
text, ``1:30`` is text. Keys must be text and stand once; tags, anchors and infinities are refused, so nothing
that is loaded runs code or grows.
"""

import re
import sys
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]

_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"
_INT, _FLOAT, _TEXT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:str"
_SCALARS = [
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
]

_MAX_DEPTH = 20
MOST_CHARACTERS = 200_000  # PyYAML reads 0.4 million a second
_MAX_INT = 2**63 - 1


class RecipeError(ValueError):
    """A recipe that can't be used: says where, what was expected and what was given."""


@dataclass(frozen=True)
class Document:
    """Plain data and, for every key and list item in it, ``file:line``."""

    data: Any
    places: dict[KeyPath, str]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own name


class _Dumper(yaml.SafeDumper):
    """Quotes what ``_Loader`` would take for something other than text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


def read_document(text: str, source: str) -> Document:
    """Parses ``text``; ``source`` is what messages call it (a file's path)."""
    if len(text) > MOST_CHARACTERS:
        raise RecipeError(
            f"{source}: more than {MOST_CHARACTERS:,} characters; a recipe is a short text: is this another file?"
        )
    try:
        _refuse_machinery(text, source)
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{source}{line}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise RecipeError(f"{source}: not YAML: {str(error).splitlines()[0]}") from None
    if node is None:
        return Document(None, {})
    places: dict[KeyPath, str] = {}
    return Document(_plain(node, (), source, places), places)


def read_value(text: str) -> Any:
    """One scalar or flat list, as typed after ``KEY=``; raises ``RecipeError`` for anything else."""
    value = read_document(text, "value").data
    if isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(v, dict | list) for v in value)
    ):
        raise RecipeError(f"expected one value or a list like [1, 2, 3], got {text!r}")
    return value


def write_document(data: Any) -> str:
    """YAML that ``read_document`` reads back as the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _refuse_machinery(text: str, source: str) -> None:
    """Anchors, aliases, tags and deep nesting: what YAML has and recipes don't need."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        where = f"{source}:{event.start_mark.line + 1}"  # type: ignore[union-attr]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RecipeError(f"{where}: anchors (&) and aliases (*) are not used in recipes; write it out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise RecipeError(f"{where}: tags ({tag}) are not used in recipes; write plain text or numbers")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise RecipeError(f"{where}: nested more than {_MAX_DEPTH} levels deep")


def _plain(node: yaml.Node, path: KeyPath, source: str, places: dict[KeyPath, str]) -> Any:
    where = f"{source}:{node.start_mark.line + 1}"
    places.setdefault(path, where)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, source, places)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, i), source, places) for i, item in enumerate(node.value)]
    return _scalar(node, where)


def _mapping(
    node: yaml.MappingNode, path: KeyPath, source: str, places: dict[KeyPath, str]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = f"{source}:{key_node.start_mark.line + 1}"
        key: Hashable = _scalar(key_node, where) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            came = key if isinstance(key_node, yaml.ScalarNode) else "a list or section"
            raise RecipeError(f"{where}: keys must be text, got {came}")
        if key in result:
            first = places[(*path, key)]
            raise RecipeError(f"{where}: duplicate key {key!r}, first given at {first}; keep one of the two")
        places[(*path, key)] = where
        result[key] = _plain(value_node, (*path, key), source, places)
    return result


def _scalar(node: yaml.Node, where: str) -> Any:
    text = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    if node.tag == _INT or node.tag == _FLOAT:
        return _number(text, node.tag, where)
    return text


def _number(text: str, tag: str, where: str) -> int | float:
    number = float(text)
    if abs(number) > (_MAX_INT if tag == _INT else sys.float_info.max):
        raise RecipeError(f"{where}: {text[:40]} is too large for a number")
    return int(text) if tag == _INT else number
