"""From plain data to a ``Recipe``, with messages that name the key, its place, and what was expected."""

import json
from typing import Any

from pydantic import ValidationError

from crosshead.recipe.describe import all_keys, expected_at, nearest_key
from crosshead.recipe.schema import Recipe
from crosshead.recipe.yaml import KeyPath, RecipeError


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
    keys = all_keys()
    free = any(key.startswith(f"{known}.") for known, each in keys.items() if each.is_open)
    if not free and key not in keys:
        raise RecipeError(_unknown(key, place))


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
    got = json.dumps(_at(data, path), ensure_ascii=False)
    return f"{place}: {key}: expected {expected_at(path)}, got {got}"


def _dotted(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data
