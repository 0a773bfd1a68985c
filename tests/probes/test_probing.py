"""Training on probes: kinds, controls, seeds, processes, and what is told of them."""

import json
from dataclasses import dataclass

import pytest
import torch

import crosshead
from crosshead.layers import INTERACTIONS, Interaction
from crosshead.probes import PROBES, Probe
from crosshead.probes.kinds import Kind
from crosshead.probes.model import build_model, count_parameters, equal_hidden
from crosshead.probes.report import Cell, ProbeReport, draw_probe
from crosshead.probes.training import Run

TINY = dict(keys=4, attributes=1, width=8, heads=4, steps=5, batch_size=2)


def test_recall_is_solved_by_interacting_heads_in_seconds():
    """One attribute and few keys, so that it takes no more than a second."""
    report = crosshead.probe("recall", ["talking"], keys=4, attributes=1, heads=2, steps=200)
    assert report.cells[0].mean > 0.95 and report.cells[0].steps_to_mark is not None


def test_every_interaction_takes_part():
    kinds = ["plain", *(kind if kind != "imhsa" else "imhsa:2" for kind in INTERACTIONS)]
    report = crosshead.probe("recall", kinds, controls=False, **TINY)
    assert [cell.kind for cell in report.cells] == kinds
    assert len(report.rows()) == len(kinds) and all(cell.gmacs > 0 for cell in report.cells)


def test_an_interaction_of_ones_own_takes_part():
    @dataclass(frozen=True)
    class Mean(Interaction):
        kind = "mean-of-values"

        def attend(self, layer, heads):
            v = heads.split()[2]
            return v.mean(2, keepdim=True).expand_as(v).transpose(1, 2).flatten(2)

    crosshead.register_interaction(Mean)
    try:
        report = crosshead.probe("recall", ["mean-of-values"], controls=False, **TINY)
        assert report.cells[0].kind == "mean-of-values"
    finally:
        del INTERACTIONS["mean-of-values"]


def test_a_probe_of_ones_own():
    @dataclass(frozen=True)
    class Copy(Probe):
        name = "copy"
        asks = "name their own token"
        tokens = features = answers = 3

        def examples(self, count, generator):
            symbols = torch.randint(3, (count, 3), generator=generator)
            return torch.eye(3)[symbols], symbols[..., None]

    report = crosshead.probe(Copy(), ["plain"], heads=2, width=8, steps=60)
    assert report.cells[0].mean > 0.9
    assert "copy" not in PROBES


def test_another_host_takes_part():
    report = crosshead.probe(
        "recall", ["plain", "talking"], host="beit.Attention", controls=False, **{**TINY, "steps": 2}
    )
    assert report.host == "beit.Attention"
    with pytest.raises(ValueError, match="takes no plain sequence"):
        crosshead.probe("recall", ["plain"], host="swin_transformer.WindowAttention", **TINY)
    with pytest.raises(ValueError, match="no one host"):
        crosshead.probe("recall", ["plain"], host="Attention", **TINY)


def test_a_seed_gives_the_same_numbers_in_this_process_and_in_others():
    here = crosshead.probe("recall", ["talking"], seeds=[0, 3], controls=False, **TINY)
    there = crosshead.probe("recall", ["talking"], seeds=[3], controls=False, jobs=2, **TINY)
    runs = [run.curve for run in here.cells[0].runs]
    assert runs[1] == there.cells[0].runs[0].curve != runs[0]


def test_kinds_of_one_seed_begin_alike():
    shape = dict(width=8, num_heads=4, depth=1, seed=0)
    probe = PROBES["recall"]()
    plain, talking = (build_model(probe, Kind.parse(kind), **shape) for kind in ("plain", "talking"))
    theirs = talking.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in plain.state_dict().items())


def test_plain_heads_at_equal_parameters():
    probe, shape = PROBES["recall"](), dict(width=16, num_heads=8, depth=2)
    wanted = count_parameters(build_model(probe, Kind.parse("overlap:2"), seed=0, **shape))
    hidden = equal_hidden(probe, wanted, **shape)
    found = count_parameters(build_model(probe, Kind.parse("plain"), seed=0, hidden=hidden, **shape))
    assert abs(found / wanted - 1) < 0.01


def test_controls_stand_beside_gains_and_nowhere_else(monkeypatch):
    accuracy = {"plain": 0.5, "overlap": 0.9, "knocking": 0.4}

    def run(self):
        attn = self.model.blocks[0].attn
        kind = attn.interaction.kind if hasattr(attn, "interaction") else "plain"
        return Run(self.seed, accuracy[kind], [(self.steps, accuracy[kind])])

    monkeypatch.setattr("crosshead.probes.training.Trainer.run", run)
    monkeypatch.setattr("crosshead.probes.running.step_seconds", lambda models, _: [1.0, 2.0][: len(models)])
    report = crosshead.probe("recall", ["plain", "overlap:1"], keys=4, attributes=1, heads=4, steps=10)
    found = [(cell.kind, cell.control, cell.of, cell.steps) for cell in report.cells]
    of = "overlap:1, 4 heads"
    assert found == [
        ("plain", "", "", 10),
        ("overlap:1", "", "", 10),
        ("plain", "parameters", of, 10),
        ("plain", "time", of, 20),
    ]
    assert report.cells[2].parameters > report.cells[0].parameters
    assert "overlap:1, 4 heads: 90.0%, the best plain heads" in report.words()
    monkeypatch.setattr("crosshead.probes.running.step_seconds", lambda models, _: [1.0] * len(models))
    report = crosshead.probe("recall", ["plain", "knocking"], keys=4, attributes=1, heads=4, steps=10)
    assert len(report.cells) == 2 and report.words().startswith("No kind lies above")


BAD = [
    (dict(name="recal"), "no probe 'recal'; expected one of bandwidth"),
    (
        dict(heads=3, width=16),
        "3 heads don't divide a width of 16; expected a divisor of it, such as 1, 2, 4",
    ),
    (dict(kinds=["plain:1"]), "plain heads take no options"),
    (dict(kinds=["overlapp"]), "no interaction 'overlapp'"),
    (dict(kinds=["overlap:width=2"]), "has no option 'width'"),
    (dict(kinds=["overlap:1:2"]), "expected KIND, KIND:VALUE or KIND:OPTION=VALUE, got '2'"),
    (dict(kinds=[]), "no kind of heads is named"),
    (dict(seeds=[0, 0]), "expected different seeds"),
    (dict(seeds=[]), "expected different seeds"),
    (dict(heads=[2, 2]), "expected different numbers of heads"),
    (dict(kinds=["plain@two"]), "expected a number of heads after @, got 'two'"),
    (dict(steps=0), "steps must be at least 1"),
    (dict(colour=1), "has no option 'colour'; it takes attributes"),
]


@pytest.mark.parametrize(("given", "words"), BAD)
def test_what_can_not_be_probed(given, words):
    given = {"name": "recall", "kinds": ["plain"], **given}
    with pytest.raises(ValueError, match=words):
        crosshead.probe(given.pop("name"), given.pop("kinds"), **given)


def test_kinds_are_parsed():
    assert Kind.parse("overlap:2").swap == {"kind": "overlap", "init": "paper", "overlap": 2}
    assert Kind.parse("dcmha:init=preserve").swap == {"kind": "dcmha", "init": "preserve"}
    assert Kind.parse("imhsa:[2,3]:interaction=false").swap == {
        "kind": "imhsa", "init": "paper", "landmarks": [2, 3], "interaction": False,
    }  # fmt: skip


def test_a_kind_at_a_number_of_heads_of_its_own():
    kinds = ["plain@2", "plain", "talking@4"]
    report = crosshead.probe("recall", kinds, controls=False, **{**TINY, "steps": 1})
    assert [(cell.kind, cell.num_heads) for cell in report.cells] == [
        ("plain", 2),
        ("plain", 4),
        ("talking", 4),
    ]


def report_of(*accuracies):
    runs = [Run(i, a, [(10, a / 2), (20, a)]) for i, a in enumerate(accuracies)]
    cells = [Cell("plain", 4, 100, 1e-4, 1.0, 20, runs), Cell("talking", 4, 110, 2e-4, 1.5, 20, runs)]
    return ProbeReport("recall", "find", {}, 0.25, 8, 1, 2, 1e-3, [0, 1], cells)


def test_steps_to_the_mark_are_a_median_or_unknown():
    assert report_of(0.95, 0.95, 0.5).cells[0].steps_to_mark == 20
    assert report_of(0.95, 0.5, 0.5).cells[0].steps_to_mark is None
    assert report_of(0.5).rows()[0]["steps to 90 %"] == "-"


def test_a_report_as_data_and_as_a_picture(tmp_path):
    report = report_of(0.9, 0.8)
    assert json.loads(report.to_json())["cells"][1]["mean"] == pytest.approx(0.85)
    assert draw_probe(report, tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")
