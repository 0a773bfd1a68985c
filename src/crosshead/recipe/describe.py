"""What each key of a recipe is, as the schema has it: for people, for messages, and for editors."""

import difflib
import functools
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from crosshead.recipe.schema import Recipe, Section
from crosshead.recipe.yaml import KeyPath, RecipeError

SCHEMA_FILE = "recipe.schema.json"  # beside the shipped recipes
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


@dataclass(frozen=True)
class Key:
    """``name`` is dotted. ``expected`` is what it takes ("a number above 0, or null"), ``default`` as YAML writes it.

    ``is_section``: keys follow under it; ``is_open``: any keys may, which are another part's options.
    """

    name: str
    description: str
    expected: str
    default: str
    unit: str | None
    is_section: bool
    is_open: bool


@functools.cache
def all_keys() -> dict[str, Key]:
    """Every dotted key of a recipe, sections included, in the schema's order."""
    return {key.name: key for key in _keys(Recipe, "")}


def described(name: str) -> list[Key]:
    """The key, and all under it if it is a section; every key for "".

    Raises:
        RecipeError: no key is called so; the nearest one is named.
    """
    keys = all_keys()
    found = [key for each, key in keys.items() if f"{each}.".startswith(f"{name}." if name else "")]
    if not found:
        raise RecipeError(f"no key of a recipe is called {name!r}; the nearest one is {nearest_key(name)!r}")
    return found


def expected_at(path: KeyPath) -> str:
    """What the schema expects at ``path``, which may lead into a list."""
    annotation, metadata, unit = Recipe, (), None  # type: Any, tuple[Any, ...], str | None
    for part in path:
        section = _section(annotation)
        if isinstance(part, str) and section is not None and part in section.model_fields:
            field = section.model_fields[part]
            annotation, metadata, unit = field.annotation, tuple(field.metadata), _unit(field)
        else:
            annotation, metadata = _item(annotation), ()
    text = _expected(annotation, metadata)
    return f"{text} ({unit})" if unit else text


def nearest_key(name: str) -> str:
    """The recipe's key that someone who wrote ``name`` most likely meant."""
    known = list(all_keys())
    section, _, leaf = name.rpartition(".")
    same_leaf = [k for k in known if k.rpartition(".")[2] == leaf]
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    close_sibling = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)
    if close_sibling:
        return siblings[close_sibling[0]]
    if same_leaf:
        return difflib.get_close_matches(name, same_leaf, n=1, cutoff=0.0)[0]
    leaves = {k.rpartition(".")[2]: k for k in reversed(known)}
    close_leaf = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)
    return leaves[close_leaf[0]] if close_leaf else difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def json_schema(names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A recipe's JSON schema, by which editors complete and check a file.

    Args:
        names: by dotted key, what may stand there among others: data sets, which packages may add to.
    """
    schema = Recipe.model_json_schema()
    schema["properties"] = {"base": _BASE} | schema["properties"]
    for dotted, known in names.items():
        section, _, leaf = dotted.rpartition(".")
        holder: Any = Recipe
        for part in section.split("."):
            holder = _section(holder.model_fields[part].annotation)
        key = schema["$defs"][holder.__name__]["properties"][leaf]
        key["anyOf"] = [{"enum": [*known]}, *key.pop("anyOf", [{"type": key.pop("type", "string")}])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _without_titles(schema)


_BASE = {
    "description": "What the recipe starts from: a shipped recipe's name, a file, or a list, laid over one another.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}


def _without_titles(value: Any) -> Any:
    """pydantic's titles say the names again. No key of a recipe is called so."""
    if isinstance(value, list):
        return [_without_titles(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_titles(each) for key, each in value.items() if key != "title"}
    return value


def _keys(section: type[Section], prefix: str) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        inner = _section(field.annotation)
        is_open = _is(dict, field.annotation) or (
            inner is not None and inner.model_config.get("extra") == "allow"
        )
        yield Key(
            prefix + name,
            field.description or "",
            _expected(field.annotation, tuple(field.metadata)),
            _default(field),
            _unit(field),
            inner is not None,
            is_open,
        )
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.")


def _unit(field: FieldInfo) -> str | None:
    extra = field.json_schema_extra
    unit = extra.get("unit") if isinstance(extra, dict) else None
    return None if unit is None else str(unit)


def _default(field: FieldInfo) -> str:
    return "its keys'" if isinstance(field.default, Section) else _written(field.default)


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}" if value != int(value) else str(value)
    return value if isinstance(value, str) else json.dumps(value)


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _section(annotation: Any) -> type[Section] | None:
    found = (each for each in _options(annotation) if isinstance(each, type) and issubclass(each, Section))
    return next(found, None)


def _is(kind: type, annotation: Any) -> bool:
    return any(get_origin(each) is kind for each in _options(annotation))


def _item(annotation: Any) -> Any:
    """What a list, or a section of free keys, holds."""
    for option in _options(annotation):
        bare = get_args(option)[0] if get_origin(option) is Annotated else option
        if get_origin(bare) in (list, tuple, dict):
            return get_args(bare)[-1]
    return Any


def _expected(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """``a whole number above 0 or null``."""
    texts = [text for each in _options(annotation) for text in _of_one(each, metadata)]
    if "a number" in texts and "a whole number" in texts:
        texts.remove("a whole number")
    if texts[-1] == "null" and any("," in text for text in texts):
        return f"{_listed(texts[:-1])}, or null"
    return _listed(texts)


def _of_one(annotation: Any, metadata: tuple[Any, ...]) -> list[str]:
    """What one member of a union takes: of a choice each of its words."""
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata = (*more, *metadata)
    if told := next((each for each in metadata if isinstance(each, str)), None):
        return [told]
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [str(each) for each in inside]
    if origin in (list, tuple):
        several = "a list of " if origin is list else f"a list of {len(inside)} "
        text = _listed(_of_one(inside[0], ()))
        return [several + re.sub("^a (whole number|number)", r"\1s", text)]
    if origin is dict or _section(annotation) is not None:
        return ["a section of keys"]
    return [_WORDS.get(annotation, "a value") + _range(metadata)]


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def _range(metadata: tuple[Any, ...]) -> str:
    """`` above 0``, `` from 0 to 1``, `` from 0 to below 1``, of pydantic's limits."""
    limits: dict[str, Any] = {}
    for each in metadata:
        for item in getattr(each, "metadata", [each]):  # a Field(...) holds its limits
            limits |= {name: getattr(item, name) for name in ("gt", "ge", "lt", "le") if hasattr(item, name)}
    low = (
        f" above {limits['gt']:g}" if "gt" in limits else f" from {limits['ge']:g}" if "ge" in limits else ""
    )
    high = (
        f" to below {limits['lt']:g}" if "lt" in limits else f" to {limits['le']:g}" if "le" in limits else ""
    )
    return f"{low}{high or ' up'}" if low.startswith(" from") else f"{low}{high}"
