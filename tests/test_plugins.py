"""What other packages offer: found by entry points, loaded when it is asked for, and harmless when it is broken."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import timm

import crosshead
from crosshead.cli import main
from crosshead.data.datasets.registry import DATASETS
from crosshead.layers import INTERACTIONS
from crosshead.plugins import Registry
from crosshead.tasks import METRICS, TASKS
from crosshead.train.events import Result
from outside import install

GROUP = "crosshead.things"
THINGS: Registry[int] = Registry(GROUP, "thing")
GOOD = "from test_plugins import THINGS\nTHINGS.add('good', 5)\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of packages; what they register and import is gone afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    registries = (THINGS, DATASETS, INTERACTIONS, METRICS, TASKS)
    before, modules = [dict(each) for each in registries], set(sys.modules)
    yield tmp_path
    for registry, members in zip(registries, before, strict=True):
        registry.clear()
        registry.update(members)
    for module in set(sys.modules) - modules:
        if str(tmp_path) in (getattr(sys.modules[module], "__file__", None) or ""):
            del sys.modules[module]


def test_a_member_is_loaded_when_its_name_is_asked_for(place):
    install(place, "good", {"good.py": GOOD}, {GROUP: {"good": "good"}})
    assert THINGS.names() == ["good"] and "good" not in sys.modules
    assert THINGS.find("good") == 5 and THINGS.load_all() == {}


def test_what_is_broken_is_named_and_costs_nothing_else(place):
    install(place, "good", {"good.py": GOOD}, {GROUP: {"good": "good"}})
    install(place, "bad", {"bad.py": "import nothing_of_that_name\n"}, {GROUP: {"bad": "bad"}})
    install(place, "idle", {"idle.py": ""}, {GROUP: {"idle": "idle"}})
    faults = THINGS.load_all()
    assert faults.keys() == {"bad", "idle"} and THINGS["good"] == 5
    assert (
        "thing 'bad' is offered by bad 1.2, whose bad can't be loaded: ModuleNotFoundError" in faults["bad"]
    )
    assert "thing 'idle' is offered by idle 1.2, whose idle registers none of that name" in faults["idle"]
    with pytest.raises(ValueError, match="nothing_of_that_name"):
        THINGS.find("bad")
    with pytest.raises(ValueError, match=r"a.b: no thing 'goood'; did you mean good\? known are good, "):
        THINGS.find("goood", "a.b")


def test_two_that_offer_one_name_are_named(place):
    install(place, "good", {"good.py": GOOD}, {GROUP: {"good": "good"}})
    install(place, "other", {"other.py": GOOD}, {GROUP: {"good": "other"}})
    with pytest.raises(
        ValueError, match=r"'good' is offered by (good|other) 1.2 and (good|other) 1.2; remove"
    ):
        THINGS.find("good")


LOUDER = """
from dataclasses import dataclass
from crosshead import register_interaction
from crosshead.layers import Talking

@register_interaction
@dataclass(frozen=True)
class Louder(Talking):
    kind = "louder"
"""


def test_an_interaction_of_another_package_is_put_into_a_model(place):
    install(place, "loud", {"loud.py": LOUDER}, {"crosshead.interactions": {"louder": "loud"}})
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32)
    assert "loud" not in sys.modules
    assert crosshead.swap_attention(model, "louder").kind == "louder"
    assert "louder" in crosshead.supported(timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32))


def test_a_broken_package_costs_the_list_of_data_sets_nothing(place, capsys):
    install(place, "bad", {"bad.py": "1 / 0\n"}, {"crosshead.datasets": {"broken": "bad"}})
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("broken") and "bad 1.2" in line and "ZeroDivisionError" in line for line in lines
    )
    assert sum(line.startswith(("digits", "voc")) for line in lines) == 2


def example() -> tuple[dict[str, str], dict[str, dict[str, str]], list[str]]:
    """The package that CONTRIBUTING.md shows: its files, its entry points, and the words of its command."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = text[text.index("## From another package") :].partition("\n## ")[0]
    files = dict(re.findall(r"`([a-z_/]+\.[a-z]+)`:\n\n```[a-z]+\n(.*?)```", text, re.DOTALL))
    points = tomllib.loads(files.pop("pyproject.toml"))["project"]["entry-points"]
    command = re.search(r"    crosshead (.*)", text)
    assert command is not None and len(files) == 3
    return files, points, command[1].split()


def test_the_example_of_another_package_trains(place, monkeypatch, capsys):
    files, points, words = example()
    install(place, "my_package", files | {"my_package/__init__.py": ""}, points)
    monkeypatch.chdir(place)
    assert "my_package.kappa" not in sys.modules
    assert main([*words, "data.batch_size=16", "log.progress=lines"]) == 0
    run = place / "runs" / "digits"
    result = Result.load(run)
    assert result.metric == "kappa" and "kappa" in result.shown and result.validation["kappa"] <= 1
    assert "Cohen's kappa" in capsys.readouterr().out
    assert main(["eval", str(run), "--split", "validation"]) == 0
    assert "Cohen's kappa" in capsys.readouterr().out
    assert (
        main(["heads", str(run), "--ablate", "--images", "8"]) == 0
    )  # for what the task says it is, not its name
    assert main(["eval", str(run), "task.window=64"]) == 2
    assert "task.window is for task.name=segment and detect, and this run of" in capsys.readouterr().err
    assert main(["data", "list"]) == 0 and "stripes" in capsys.readouterr().out


def test_names_that_nobody_offers_are_refused_where_they_are_asked_for(capsys):
    for key, wrong in (("task.name", "clasify"), ("task.select_by", "acuracy"), ("task.metrics", "kapa")):
        value = f"[{wrong}]" if key == "task.metrics" else wrong
        assert main(["train", "digits", f"{key}={value}"]) == 2
        said = capsys.readouterr().err
        assert key in said and repr(wrong) in said and "known are" in said
    assert main(["train", "digits", "task.metrics=[miou]"]) == 2
    assert "task.metrics is 'miou'; this task and data give accuracy, " in capsys.readouterr().err
