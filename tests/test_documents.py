"""What the documents show runs: Python as it stands; of commands every name, option and key is checked.

What the commands do is run by `make docs-test` (tests/docs/test_commands.py), which takes minutes.
"""

import re
import tomllib

import pytest

from crosshead.cli.arguments.parser import parse
from crosshead.recipe import load_recipe, shipped_recipes
from crosshead.recipe.describe import all_keys
from doc_blocks import ROOT, blocks, documents

BLOCKS = blocks()
SHOWN = ("text", "toml", "bibtex")  # neither code nor a command of ours
TAKES_RECIPE = ("train", "sweep", "augment", "profile", "tune")
PLACEHOLDERS = ("RECIPE", "RUN", "my_recipe.yaml")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def params(chosen):
    return [pytest.param(block, id=str(block)) for block in BLOCKS if chosen(block) and not block.reason]


@pytest.mark.parametrize("block", params(lambda block: block.language == "python"))
def test_an_example_runs(block, tmp_path, monkeypatch):
    if block.document.name == "CONTRIBUTING.md":  # parts of one package, which tests/test_plugins.py installs
        compile(block.text, str(block), "exec")
        return
    monkeypatch.chdir(tmp_path)  # for what an example saves
    exec(block.text, {})


def test_every_fence_says_what_it_is():
    known = (None, "python", "sh", "yaml", *SHOWN)
    unknown = [str(each) for each in BLOCKS if each.language not in known and not each.reason]
    assert not unknown, (
        "a fence is python, sh, yaml, text or toml or bibtex, or says <!-- not run: why --> before it"
    )


@pytest.mark.parametrize("block", params(lambda block: block.commands))
def test_a_command_is_one(block):
    for words in block.commands:
        CHECKS[words[0]](words)


def check_crosshead(words):
    args = parse(words[1:])
    named = [word for word in getattr(args, "words", []) if "=" not in word]
    keys = [word for word in getattr(args, "words", []) if re.match(r"[a-z_]+(\.[a-z_0-9]+)*=", word)]
    recipes = [name for name in named if name in shipped_recipes()]
    if args.command in TAKES_RECIPE:
        assert recipes == [name for name in named if name not in PLACEHOLDERS], f"{named}: no such recipe"
    if args.command == "probe":
        return  # its words are options of a probe, which its own tests check
    for recipe in recipes:
        load_recipe(recipe, keys)
    if not recipes:
        for key in keys:
            assert key.partition("=")[0] in all_keys() or key.startswith("model.args."), f"{key}: no such key"


def check_torchrun(words):
    check_crosshead(words[words.index("crosshead") :])


def check_make(words):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words[1:]) <= set(targets)


def check_python(words):
    if words[1] == "-m":
        assert words[2] in ("venv", "pytest", "crosshead"), words
        return
    script = (ROOT / words[1]).read_text()
    assert all(f'"{word}"' in script for word in words[2:] if word.startswith("--")), words


def check_pip(words):
    asked = [extra for word in words for extra in re.findall(r"crosshead\[(.+)\]", word)]
    assert {each for extra in asked for each in extra.split(",")} <= set(EXTRAS), words


def check_activation(words):
    assert words[1].endswith("/bin/activate")


CHECKS = {
    "crosshead": check_crosshead,
    "torchrun": check_torchrun,
    "make": check_make,
    "python": check_python,
    "python3": check_python,
    "pip": check_pip,
    "uv": check_pip,
    ".": check_activation,
}


@pytest.mark.parametrize(
    "block", params(lambda block: block.language == "yaml" or block.text.startswith("base: "))
)
def test_a_recipe_is_one(block, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(block.text)
    assert load_recipe(path)


def test_the_documents_have_blocks_of_every_kind():
    """The finder finds: a block that it misses would be checked by nobody."""
    found = {
        language: sum(each.language == language for each in BLOCKS) for language in (None, "python", "sh")
    }
    assert min(found.values()) > 10
    texts = [document.read_text() for document in documents()]
    fences = sum(len(re.findall(r"^ *```\w+$", text, re.MULTILINE)) for text in texts)
    assert fences == sum(each.language is not None for each in BLOCKS)
