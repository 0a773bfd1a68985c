"""The strict loader: what is a number, what is refused, and the place of everything."""

import pytest

from crosshead.recipe.yaml import RecipeError, read_document, read_value, write_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2", -2),
        ("010", 10),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("2020-01-01", "2020-01-01"),
        ("true", True),
        ("null", None),
        ("'5'", "5"),
        ("constant:4", "constant:4"),
        ("[0, 1, 2]", [0, 1, 2]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = read_value(text)
    assert read == value and type(read) is type(value)


def test_every_value_has_its_file_and_line():
    document = read_document("model:\n  name: a\n  blocks:\n    - 1\n    - 2\n", "x.yaml")
    assert document.places[("model", "name")] == "x.yaml:2"
    assert document.places[("model", "blocks", 1)] == "x.yaml:5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"x.yaml:3: duplicate key 'a', first given at x.yaml:1"),
        ("a:\n  b: 1\n  b: 1", r"x.yaml:3: duplicate key 'b', first given at x.yaml:2"),
        ("1: 2", r"x.yaml:1: keys must be text, got 1"),
        ("? [a]\n: 2", r"x.yaml:1: keys must be text, got a list"),
        ("a: &x 1\nb: *x", r"x.yaml:1: anchors"),
        ("a: !!python/object/apply:os.system ['true']", r"x.yaml:1: tags .*os.system"),
        ("a: !!binary aGVsbG8=", r"x.yaml:1: tags"),
        ("a: [1\nb: 2", r"x.yaml:2: not YAML"),
        ("a: 1\n---\nb: 2", r"x.yaml:2: not YAML"),
        ("a: \x01", r"x.yaml: not YAML: unacceptable character"),
        ("a: 1e999", r"x.yaml:1: 1e999 is too large"),
        ("a: " + "9" * 5000, r"x.yaml:1: 9+ is too large"),
        ("a: " + "[" * 5000, r"x.yaml:1: nested more than"),
    ],
)
def test_what_is_refused_names_file_and_line(text, message):
    with pytest.raises(RecipeError, match=message):
        read_document(text, "x.yaml")


@pytest.mark.parametrize("text", ["a: 1", "{a: 1}", "[[1]]", "[{a: 1}]"])
def test_a_value_is_a_scalar_or_a_flat_list(text):
    with pytest.raises(RecipeError, match="expected one value or a list"):
        read_value(text)


def test_what_is_written_reads_back_the_same():
    data = {
        "numbers": [5e-7, 1e22, -0.0, 1e16, 3, 0.1],
        "text": ["1e3", "no", "null", "", "~", "true", "x: y", "# a", "é", " b ", "a\nb", "*c", "&d", "!e"],
        "rest": [None, True, False, [], {}],
    }
    assert read_document(write_document(data), "x.yaml").data == data


def test_what_is_too_long_for_a_recipe_is_refused_at_once(tmp_path):
    with pytest.raises(RecipeError, match=r"x.yaml: more than 200,000 characters"):
        read_document("a: " + "b" * 10_000_000, "x.yaml")
