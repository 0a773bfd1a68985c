"""Every key says what it is, and what is made of that is current."""

import json

import pytest
import reference

from crosshead.cli import main
from crosshead.recipe import RecipeError, dump_recipe, load_recipe, shipped_recipes
from crosshead.recipe.compose import shipped_folder
from crosshead.recipe.describe import all_keys, described, expected_at
from crosshead.recipe.yaml import read_document

KEYS = all_keys()


@pytest.mark.parametrize("name", KEYS)
def test_every_key_says_what_it_is(name):
    key = KEYS[name]
    assert key.description.endswith((".", "...")) and "a value" not in key.expected


def test_a_key_tells_its_range_unit_and_default():
    key = KEYS["train.rank_timeout_s"]
    assert (key.expected, key.unit, key.default) == ("a whole number above 0", "seconds", "600")
    assert KEYS["train.ema_decay"].expected == "a number above 0 to below 1 or null"
    assert KEYS["augment.crop_scale"].expected == "two numbers above 0, the smaller one first, or null"
    assert expected_at(("optimizer", "betas", 1)) == "a number from 0 to below 1"
    assert expected_at(("task", "class_weights", "cat")) == "a number above 0"


def test_one_key_a_section_and_all():
    assert [key.name for key in described("optimizer.lr")] == ["optimizer.lr"]
    assert {key.name for key in described("model.interaction")} == {
        "model.interaction", "model.interaction.kind", "model.interaction.init", "model.interaction.blocks"
    }  # fmt: skip
    assert len(described("")) == len(KEYS)
    with pytest.raises(RecipeError, match=r"no key .* 'optimiser.lr'; the nearest one is 'optimizer.lr'"):
        described("optimiser.lr")


def test_the_command_describes(capsys):
    assert main(["recipes", "--describe", "optimizer.lr"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("optimizer.lr: a number above 0; default 0.0005\n    The learning rate")
    assert main(["recipes", "--describe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.partition(":")[0] for line in lines if not line.startswith(" ")} == set(KEYS)
    assert main(["recipes", "--describe", "train.epoch"]) == 2
    assert "the nearest one is 'train.epochs'" in capsys.readouterr().err
    assert main(["recipes", "digits", "--describe", "train.epochs"]) == 2


def test_page_and_schema_are_current():
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: make reference"
    assert reference.SCHEMA.read_text(encoding="utf-8") == reference.schema(), "run: make reference"


@pytest.mark.parametrize("path", sorted(shipped_folder().rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_one_by_the_schema(path):
    schema = json.loads(reference.SCHEMA.read_text(encoding="utf-8"))
    assert faults(read_document(path.read_text(encoding="utf-8"), path.name).data, schema, schema) == []
    if path.stem in shipped_recipes():
        whole = read_document(dump_recipe(load_recipe(path.stem)), path.name).data
        assert faults(whole, schema, schema) == []


def test_the_schema_finds_what_is_wrong():
    schema = json.loads(reference.SCHEMA.read_text(encoding="utf-8"))
    for wrong in (
        {"optimizer": {"lrr": 1}},
        {"optimizer": {"lr": 0}},
        {"optimizer": {"lr": "fast"}},
        {"optimizer": {"betas": [0.9, 1.0]}},
        {"train": {"precision": "fp8"}},
        {"model": {"overlap": [1, "x"]}},
        {"model": None},
    ):
        assert faults(wrong, schema, schema), wrong


_TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    "number": (int, float),
}  # fmt: skip
_LIMITS = {
    "minimum": lambda value, limit: value >= limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
    "exclusiveMaximum": lambda value, limit: value < limit,
    "minItems": lambda value, limit: len(value) >= limit,
    "maxItems": lambda value, limit: len(value) <= limit,
    "enum": lambda value, known: value in known,
    "const": lambda value, known: value == known,
}
_SAYS_NOTHING = {
    "description",
    "default",
    "unit",
    "$defs",
    "$schema",
    "type",
    "properties",
    "items",
    "prefixItems",
}
_SAYS_NOTHING |= {"additionalProperties", "$ref", "anyOf"}


def faults(value, schema, whole, place="recipe"):
    """What of ``value`` JSON Schema's words, those that ours has, don't allow; every word must be known here."""
    assert schema.keys() <= _SAYS_NOTHING | _LIMITS.keys(), place
    if "$ref" in schema:
        schema = schema | whole["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in schema and all(faults(value, each, whole, place) for each in schema["anyOf"]):
        return [f"{place}: none of {len(schema['anyOf'])}"]
    kind = _TYPES.get(schema.get("type"), object)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
        return [f"{place}: no {schema['type']}"]
    found = [
        f"{place}: {word}"
        for word, fits in _LIMITS.items()
        if word in schema and not fits(value, schema[word])
    ]
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, each in value.items():
            inner = known.get(name, others)
            if inner is False:
                found.append(f"{place}.{name}: unknown")
            elif inner is not True:
                found += faults(each, inner, whole, f"{place}.{name}")
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        for i, each in enumerate(value):
            inner = first[i] if i < len(first) else schema.get("items", {})
            found += faults(each, inner, whole, f"{place}[{i}]")
    return found
