"""From plain data to a ``Recipe``, with messages that name the key, its place, and what was wanted."""

import difflib
import json
import types
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from crosshead.recipe.schema import Recipe, Section
from crosshead.recipe.yaml import KeyPath, RecipeError

_PLAIN_WORDS = {  # for what pydantic calls a valid ...
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "list": "a list",
    "tuple": "a list",
    "an object": "a section of keys",
}


def check_recipe(data: dict[str, Any], places: dict[KeyPath, str], source: str) -> Recipe:
    """Builds the recipe; raises ``RecipeError`` with one line for each thing that is wrong."""
    try:
        # The JSON route is strict about numbers, yet takes lists where the schema has tuples.
        return Recipe.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems: dict[KeyPath, list[dict[str, Any]]] = {}
        for item in error.errors(include_url=False):
            path = item["loc"] if item["type"] == "extra_forbidden" else _known_part(item["loc"], places)
            problems.setdefault(path, []).append(dict(item))
        deeper = {path[:end] for path in problems for end in range(len(path))}  # the item says it better
        problems = {path: items for path, items in problems.items() if not path or path not in deeper}
        lines = [_explain(path, items, data, places, source) for path, items in problems.items()]
        raise RecipeError("\n".join(lines)) from None


def check_key(key: str, place: str) -> None:
    """Raises ``RecipeError`` unless the dotted ``key`` is one that a recipe may hold."""
    free = any(key.startswith(f"{known}.") for known, open_ended in recipe_keys().items() if open_ended)
    if not free and key not in recipe_keys():
        raise RecipeError(_unknown(key, place))


def recipe_keys() -> dict[str, bool]:
    """Every dotted key of a recipe, sections included; True where any key may follow (``model.args``)."""
    return _keys(Recipe, "")


def _keys(section: type[Section], prefix: str) -> dict[str, bool]:
    keys: dict[str, bool] = {}
    for name, field in section.model_fields.items():
        options = _options(field.annotation)
        keys[prefix + name] = any(get_origin(option) is dict for option in options)
        for option in options:
            if isinstance(option, type) and issubclass(option, Section):
                keys |= _keys(option, f"{prefix}{name}.")
                keys[prefix + name] |= option.model_config.get("extra") == "allow"
    return keys


def _options(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def nearest_key(key: str) -> str:
    """The recipe's key that someone who wrote ``key`` most likely meant."""
    known = list(recipe_keys())
    section, _, leaf = key.rpartition(".")
    same_leaf = [k for k in known if k.rpartition(".")[2] == leaf]
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    close_sibling = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)
    if close_sibling:
        return siblings[close_sibling[0]]
    if same_leaf:
        return difflib.get_close_matches(key, same_leaf, n=1, cutoff=0.0)[0]
    leaves = {k.rpartition(".")[2]: k for k in reversed(known)}
    close_leaf = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)
    return leaves[close_leaf[0]] if close_leaf else difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]


def _unknown(key: str, place: str) -> str:
    return f"{place}: unknown key {key!r}; the nearest one is {nearest_key(key)!r}"


def _known_part(loc: KeyPath, places: dict[KeyPath, str]) -> KeyPath:
    """``loc`` without the tags that pydantic adds for the members of a union."""
    path: KeyPath = ()
    for part in loc:
        if (*path, part) in places:
            path = (*path, part)
    return path


def _explain(
    path: KeyPath,
    items: list[dict[str, Any]],
    data: dict[str, Any],
    places: dict[KeyPath, str],
    source: str,
) -> str:
    key = _dotted(path)
    place = places.get(path, source)
    if items[0]["type"] == "extra_forbidden":
        return _unknown(key, place)
    if items[0]["type"] == "value_error":  # the schema's own checks say it whole
        return f"{place}: {f'{key}: ' if key else ''}{items[0]['ctx']['error']}"
    wanted = " or ".join(dict.fromkeys(_wanted(item["msg"]) for item in items))
    came = json.dumps(_at(data, path), ensure_ascii=False)
    return f"{place}: {key}: wanted {wanted}, came {came}"


def _wanted(message: str) -> str:
    wanted = message.removeprefix("Input should be ").removeprefix("a valid ")
    return _PLAIN_WORDS.get(wanted, wanted[:1].lower() + wanted[1:])


def _dotted(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data
