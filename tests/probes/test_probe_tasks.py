"""Every probe: examples that are functions of (seed, split, index), with the answers that its rule gives."""

import pytest
import torch

from crosshead.probes import IGNORED, PROBES, Probe, register_probe
from crosshead.probes.tasks.bandwidth import Bandwidth
from crosshead.probes.tasks.chain import Chain
from crosshead.probes.tasks.counting import Counting
from crosshead.probes.tasks.distance import Distance
from crosshead.probes.tasks.pairs import Pairs
from crosshead.probes.tasks.recall import Recall
from crosshead.probes.tasks.recall_pixels import RecallPixels
from crosshead.probes.tasks.regions import Regions


@pytest.mark.parametrize("name", PROBES)
def test_examples_have_their_shapes_and_come_again(name):
    probe = PROBES[name]()
    inputs, right = probe.batch(3, "train", 7, 5)
    assert inputs.shape == (5, probe.tokens, probe.features) and inputs.dtype == torch.float32
    assert right.shape[0] == 5 and right.shape[1] <= probe.tokens and right.shape[2] == probe.questions
    known = right[right != IGNORED]
    assert len(known) and known.min() >= 0 and known.max() < probe.answers
    rows, columns = probe.grid
    assert rows * columns == probe.tokens and probe.asks and probe.width % probe.num_heads == 0
    again = probe.batch(3, "train", 7, 5)
    assert torch.equal(inputs, again[0]) and torch.equal(right, again[1])
    for other in ((4, "train", 7), (3, "test", 7), (3, "train", 8)):
        assert not torch.equal(inputs, probe.batch(*other, 5)[0])


@pytest.mark.parametrize("name", PROBES)
def test_no_answer_is_right_more_often_than_guessing(name):
    """The constant answer: what a model without attention could learn of the answers alone."""
    probe = PROBES[name]()
    _, right = probe.batch(0, "test", 0, 400)
    for question in range(probe.questions):
        asked = right[..., question]
        shares = torch.bincount(asked[asked != IGNORED], minlength=probe.answers) / (asked != IGNORED).sum()
        assert (shares - probe.chance).abs().max() < 0.05


def test_recall_answers_by_the_key_that_agrees_in_all():
    probe = Recall(attributes=2, values=3, keys=6)
    inputs, right = probe.batch(0, "train", 0, 4)
    keys, queries = inputs[:, :6], inputs[:, 6:]
    for b in range(4):
        for q in range(6):
            agree = (keys[b, :, :6] == queries[b, q, :6]).all(-1)
            assert agree.sum() == 1
            assert keys[b, agree][0, 6:10].argmax() == right[b, q, 0]
    assert queries[..., 6:10].sum() == 0 and (queries[..., -1] == 1).all() and (keys[..., -1] == 0).all()


def test_glyphs_of_queries_are_those_of_one_key():
    probe = RecallPixels()
    inputs, right = probe.batch(0, "train", 0, 2)
    keys, queries = inputs[:, :32], inputs[:, 32:]
    apart = torch.cdist(queries[..., :48], keys[..., :48])
    nearest = apart.argmin(-1)
    assert (apart.gather(-1, nearest[..., None]) < 2).all()  # noise alone
    textures = keys.gather(1, nearest[..., None].expand(-1, -1, 96))[..., 48:]
    for answer in range(4):
        shown = textures[right[..., 0] == answer]
        assert (shown - shown.mean(0)).abs().max() < 1


def test_pairs_ask_only_where_one_key_agrees():
    probe = Pairs(attributes=3, values=3, keys=8, queries=5)
    inputs, right = probe.batch(0, "train", 0, 3)
    symbols = inputs[..., :9].unflatten(-1, (3, 3)).argmax(-1)
    payload = inputs[:, :8, 9:13].argmax(-1)
    for b in range(3):
        for q in range(5):
            for number, (i, j) in enumerate(probe.pairs):
                fits = [k for k in range(8) if all(symbols[b, k, a] == symbols[b, 8 + q, a] for a in (i, j))]
                assert right[b, q, number] == (payload[b, fits[0]] if len(fits) == 1 else IGNORED)


def test_counting_counts():
    probe = Counting()
    inputs, right = probe.batch(0, "train", 0, 3)
    keys, queries = inputs[:, : probe.keys, :-1], inputs[:, probe.keys :, :-1]
    agree = (keys[:, None] == queries[:, :, None]).all(-1)
    assert torch.equal(agree.sum(-1), right[..., 0])
    whole = Counting(values=3, queries=9)  # every combination is asked for
    inputs, right = whole.batch(0, "train", 0, 3)
    agree = (inputs[:, None, :27, :-1] == inputs[:, 27:, None, :-1]).all(-1)
    assert torch.equal(agree.sum(-1), right[..., 0])


def test_distances_compare_what_lies_there():
    probe = Distance(distances=4, side=7, values=3)
    inputs, right = probe.batch(0, "train", 0, 2)
    symbol = inputs[..., 14:].argmax(-1).view(2, 7, 7)
    asked = right.view(2, 7, 7, 4)
    for number, (down, across) in enumerate([(0, 1), (1, 0), (0, 3), (2, 0)]):
        for row in range(7):
            for column in range(7):
                answer = asked[:, row, column, number]
                if row + down > 6 or column + across > 6:
                    assert (answer == IGNORED).all()
                    continue
                same = (symbol[:, row, column] == symbol[:, row + down, column + across]).long()
                assert ((answer == same) | (answer == IGNORED)).all()


def test_chains_end_at_the_payload_that_is_pointed_to():
    probe = Chain(keys=5)
    inputs, right = probe.batch(0, "train", 0, 2)
    for b in range(2):
        for q in range(5):
            named = inputs[b, 5 + q, :5].argmax()
            pointed = inputs[b, named, 5:10].argmax()
            assert inputs[b, pointed, 10:14].argmax() == right[b, q, 0]


def test_bandwidth_asks_for_all_of_a_payload():
    probe = Bandwidth(keys=4, symbols=3)
    inputs, right = probe.batch(0, "train", 0, 2)
    named = inputs[:, 4:, :4].argmax(-1)
    payload = inputs[:, :4, 4:16].unflatten(-1, (3, 4)).argmax(-1)
    assert torch.equal(right, payload.gather(1, named[..., None].expand(-1, -1, 3)))


def test_regions_are_what_most_of_their_tokens_show():
    probe = Regions(side=2, values=4)
    inputs, right = probe.batch(0, "train", 0, 50)
    shown = inputs[..., -4:].view(50, 2, 2, 2, 2, 4).sum((2, 4)).flatten(1, 2)  # of each region
    address = inputs[..., 8:12].unflatten(-1, (2, 2)).argmax(-1)
    region = 2 * address[..., 0] + address[..., 1]
    votes = shown.gather(1, region[..., None].expand(-1, -1, 4)).gather(-1, right)
    assert votes.min() >= 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Recall(attributes=9), "attributes must be a whole number from 1 to 8, got 9"),
        (lambda: Recall(attributes=1, values=4), "4 different keys; expected from 32"),
        (lambda: RecallPixels(attributes=3), "two attributes"),
        (lambda: Counting(queries=30), "more than 5 values"),
        (lambda: Distance(side=True), "got True"),
    ],
)
def test_options_that_no_probe_can_have(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_name_belongs_to_one_probe():
    class Other(Probe):
        name = "recall"

    with pytest.raises(ValueError, match="probe 'recall' is Recall; choose another name"):
        register_probe(Other)
