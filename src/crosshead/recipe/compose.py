"""One recipe out of a file, the recipes it starts from, and what the command line changes.

A recipe's file may name its ``base``: one recipe, or a list of them laid over one another from left to right, each of
which may have bases itself. Sections are merged key by key; everything else, lists included, is replaced. ``name`` and
``notes`` are not inherited.
"""

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from crosshead.files import regular
from crosshead.formats import check_comment
from crosshead.recipe.check import check_key, check_recipe
from crosshead.recipe.schema import Recipe
from crosshead.recipe.yaml import (
    MOST_CHARACTERS,
    Document,
    KeyPath,
    RecipeError,
    read_document,
    read_value,
    write_document,
)

_LENGTHS = ("train.epochs", "train.steps")
_WARMUPS = ("schedule.warmup_epochs", "schedule.warmup_steps")
_KIND = "model.interaction.kind"
_OF_EVERY_KIND = ("init", "blocks")
_SHARED = "shared"  # the folder of parts that are only there to be a base


def shipped_folder() -> Path:
    """Where the recipes lie that come with the package."""
    return Path(str(resources.files("crosshead") / "configs"))


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name; parts that only serve as a base are left out."""
    paths = sorted(shipped_folder().rglob("*.yaml"))
    return {path.stem: path for path in paths if path.parent.name != _SHARED}


def load_recipe(
    name_or_path: str | Path, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe, whole and checked.

    Args:
        name_or_path: a shipped recipe's name (``digits_mohsa``), or a path that ends in ``.yaml``.
        overrides: ``KEY=VALUE`` with dotted keys, applied in order: ``optimizer.lr=1e-3``.
        values: more of them as plain data, applied last: ``{"train.seed": 1}``.

    Raises:
        RecipeError: with file and line, for whatever can't be used.
    """
    path = find_recipe(name_or_path)
    own = _read(path)
    data, places = _with_bases(own, path, ())
    data.setdefault("name", path.stem)
    _keep_split(data)
    return _finish(data, places, str(path), overrides, values)


def _keep_split(data: dict[str, Any]) -> None:
    """A recipe that says nothing of its split is split by its own seed; what the command line says of ``train.seed``
    (a sweep's seeds, say) is the run's alone."""
    train, section = data.get("train", {}), data.setdefault("data", {})
    if isinstance(train, dict) and isinstance(section, dict):
        seed = train.get("seed", 0)
        if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0:
            section.setdefault("split_seed", seed)


def default_recipe(overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> Recipe:
    """The schema's defaults, changed as in ``load_recipe``."""
    return _finish({}, {}, "the defaults", overrides, values)


def _finish(
    data: dict[str, Any],
    places: dict[KeyPath, str],
    source: str,
    overrides: Sequence[str],
    values: Mapping[str, Any] | None,
) -> Recipe:
    written = {key: _get(key, data) for key in (*_LENGTHS, *_WARMUPS)}
    said = [(*_parse(each, f"command line, {each}"), f"command line, {each}") for each in overrides]
    for key, value, place in sorted(said, key=lambda one: one[0] != _KIND):  # the kind, and then its options
        if key == _KIND and isinstance(section := data.get("model"), dict):
            _leave_kind(section.get("interaction"), value)
        _set(key, value, place, data, places)
    for key, value in (values or {}).items():
        _set(key, value, "command line", data, places)
    _shorten_warmup(written, data)
    return check_recipe(data, places, source)


def _shorten_warmup(written: Mapping[str, Any], data: dict[str, Any]) -> None:
    """Where the command line shortens training and says nothing of the warm-up, that keeps its share of it.

    Of a recipe whose length is in epochs and that is given one in steps, nobody knows yet which is shorter: the
    warm-up keeps its share there in any case.
    """
    now = {key: _get(key, data) for key in written}
    if any(now[key] != written[key] for key in _WARMUPS):
        return
    if not all(_is_positive(value) for value in (*written.values(), *now.values()) if value is not None):
        return  # checked later, with a message
    epochs, steps = (now[key] for key in _LENGTHS)
    epochs_before, steps_before = (written[key] for key in _LENGTHS)
    warmup, warmup_steps = (now[key] for key in _WARMUPS)
    if steps is not None and steps_before is None:
        if warmup_steps is None:
            _say("warmup_steps", int(steps * warmup / epochs_before), data)
        return
    share = epochs / epochs_before if steps is None or steps_before is None else steps / steps_before
    if share >= 1:
        return
    if warmup_steps is None:
        _say("warmup_epochs", float(f"{warmup * share:.6g}"), data)
    else:
        _say("warmup_steps", int(warmup_steps * share), data)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def _say(key: str, value: float, data: dict[str, Any]) -> None:
    data["schedule"] = {**(data.get("schedule") or {}), key: value}


def _get(key: str, data: Mapping[str, Any]) -> Any:
    """What ``data`` says under the dotted ``key``, or else the schema's default."""
    section, _, leaf = key.partition(".")
    said = data.get(section)
    default = Recipe.model_fields[section].default
    return said[leaf] if isinstance(said, dict) and leaf in said else getattr(default, leaf)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every key written out; ``load_recipe`` reads it back equal."""
    return write_document(recipe.model_dump(mode="json"))


def find_recipe(name_or_path: str | Path, beside: Path | None = None) -> Path:
    """The file of a recipe: a path (also relative to ``beside``), a shipped name, or ``configs/PATH``."""
    text = str(name_or_path)
    if not text.endswith((".yaml", ".yml")):
        return _find_shipped(text)
    candidates = [Path(text), shipped_folder() / text.removeprefix("configs/")]
    if beside is not None:
        candidates.insert(0, beside / text)
    for path in candidates:
        if path.is_file():
            return path
    raise RecipeError(
        f"no recipe file {text}; shipped recipes are called by name: {_nearest_shipped(Path(text).stem)}"
    )


def _find_shipped(name: str) -> Path:
    recipes = shipped_recipes()
    parts = {f"{_SHARED}/{path.stem}": path for path in sorted((shipped_folder() / _SHARED).glob("*.yaml"))}
    if name in recipes or name in parts:
        return (recipes | parts)[name]
    raise RecipeError(
        f"no recipe is called {name!r}; {_nearest_shipped(name)} "
        "(a file of your own is given by its path, ending in .yaml)"
    )


def _nearest_shipped(name: str) -> str:
    near = difflib.get_close_matches(name, shipped_recipes(), n=3, cutoff=0.0)
    return f"the nearest are {', '.join(near)}"


def _read(path: Path) -> Document:
    try:
        with open(path, encoding="utf-8", opener=regular) as file:
            text = file.read(MOST_CHARACTERS + 1)
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not text in UTF-8; a recipe is a YAML file") from None
    except OSError as error:
        raise RecipeError(f"{path}: can't be read: {error.strerror}") from None
    check_comment(text, path)
    document = read_document(text, str(path))
    if not isinstance(document.data, dict):
        came = "nothing" if document.data is None else type(document.data).__name__
        raise RecipeError(f"{path}: expected keys and values (model: ..., data: ...), got {came}")
    return document


def _with_bases(
    own: Document, path: Path, below: tuple[Path, ...]
) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """``own`` laid over its bases; ``below`` are the recipes that ``path`` is a base of, however far."""
    data: dict[str, Any] = {}
    places: dict[KeyPath, str] = {}
    for name in _base_names(own):
        base_path = find_recipe(name, beside=path.parent)
        line = (*below, path)
        if base_path.resolve() in [each.resolve() for each in line]:
            circle = " -> ".join(each.name for each in (*line, base_path))
            raise RecipeError(f"{own.places[('base',)]}: {name!r} is its own base ({circle})")
        inherited, base_places = _with_bases(_read(base_path), base_path, line)
        _merge(data, {k: v for k, v in inherited.items() if k not in ("name", "notes")})
        places |= base_places
    _merge(data, {k: v for k, v in own.data.items() if k != "base"})
    return data, places | own.places


def _base_names(own: Document) -> list[str]:
    if "base" not in own.data:
        return []
    base = own.data["base"]
    names = [base] if isinstance(base, str) else base
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        place = own.places[("base",)]
        raise RecipeError(f"{place}: base: expected a recipe's name or a list of names, got {base!r}")
    return names


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            if key == "interaction":
                _leave_kind(into[key], value.get("kind"))
            _merge(into[key], value)
        else:
            into[key] = value


def _leave_kind(interaction: Any, kind: Any) -> None:
    """Drops what the kind that is left alone knows: an overlap, say, where heads are to talk."""
    if isinstance(interaction, dict) and kind is not None and kind != interaction.get("kind", kind):
        for option in {*interaction} - {*_OF_EVERY_KIND}:
            del interaction[option]


def _parse(override: str, place: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"command line: expected KEY=VALUE, as in optimizer.lr=1e-3, got {override!r}")
    check_key(key, place)
    if not text:
        raise RecipeError(f"{place}: no value after '='; write {key}=null to unset it")
    try:
        return key, read_value(text)
    except RecipeError as error:
        raise RecipeError(f"{place}: {str(error).removeprefix('value:1: ')}") from None


def _set(key: str, value: Any, place: str, data: dict[str, Any], places: dict[KeyPath, str]) -> None:
    check_key(key, place)
    path = tuple(key.split("."))
    holder = data
    for section in path[:-1]:
        if not isinstance(holder.get(section), dict):
            holder[section] = {}
        holder = holder[section]
    holder[path[-1]] = value
    for end in range(1, len(path)):
        places.setdefault(path[:end], place)
    places[path] = place
    places |= {(*path, i): place for i in range(len(value) if isinstance(value, list) else 0)}
