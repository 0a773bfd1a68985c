"""Streamed measures equal the equations; planted cases come out as they must."""

import math

import naive_measures as naive
import pytest
import torch

from crosshead.heads.measures.maps import MapMeasures, Rows, map_products, row_sums
from crosshead.heads.measures.outputs import (
    OutputMeasures,
    effective_heads,
    mean_off_diagonal,
    neighbour_excess,
)
from crosshead.heads.measures.tokens import Sinks, alignment, outstanding_tokens, prefix_share

SHAPES = [(2, 3, 12, 5), (1, 1, 7, 4), (3, 2, 2, 1)]


def maps_of(batch, heads, tokens, seed=0, dtype=torch.float32):
    logits = 3 * torch.randn(batch, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    return logits.softmax(-1).to(dtype)


def separation_of(tokens):
    places = torch.rand(tokens, 2, generator=torch.Generator().manual_seed(1)) * 64
    return torch.cdist(places, places)


def in_chunks(maps, separation, size=5, allowed=None):
    for start in range(0, maps.shape[2], size):
        part = slice(start, start + size)
        yield Rows(maps[:, :, part], separation[part], None if allowed is None else allowed[part])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_streamed_maps_equal_the_equations(shape):
    batch, heads, tokens, _ = shape
    batches = [maps_of(batch, heads, tokens, seed) for seed in (0, 1)]
    separation = separation_of(tokens)
    gathered = MapMeasures(heads)
    for maps in batches:
        gathered.add(in_chunks(maps, separation))
    got, whole = gathered.result(), torch.cat(batches)
    for name in ("entropy", "confidence", "map_similarity", "map_divergence"):
        torch.testing.assert_close(got[name], getattr(naive, name)(whole), rtol=1e-5, atol=1e-5)
    want = naive.distance(whole, separation)
    torch.testing.assert_close(got["distance"], want, rtol=1e-5, atol=1e-5)
    uniform = naive.distance(torch.full_like(whole, 1 / tokens), separation)
    torch.testing.assert_close(got["distance_ratio"], want / uniform, rtol=1e-5, atol=1e-5)


def test_signed_maps_are_measured_by_their_mass_and_compared_as_they_are():
    maps = maps_of(2, 3, 9) - 0.1
    gathered = MapMeasures(3, signed=True)
    gathered.add(in_chunks(maps, separation_of(9)))
    got = gathered.result()
    torch.testing.assert_close(got["entropy"], naive.entropy(maps), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        got["map_similarity"], naive.map_similarity(maps, signed=True), rtol=1e-5, atol=1e-5
    )
    assert "map_divergence" not in got


def test_keys_that_may_not_be_seen_do_not_count():
    """Two windows of four tokens in one map of eight give what each window gives alone."""
    windows = maps_of(2, 3, 4, 0), maps_of(2, 3, 4, 1)
    whole = torch.zeros(2, 3, 8, 8)
    allowed = torch.zeros(8, 8, dtype=torch.bool)
    for i, window in enumerate(windows):
        part = slice(4 * i, 4 * i + 4)
        whole[:, :, part, part], allowed[part, part] = window, True
    separation = separation_of(8)
    gathered = MapMeasures(3)
    gathered.add(in_chunks(whole, separation, allowed=allowed))
    got = gathered.result()
    for name in ("entropy", "confidence", "map_divergence"):
        want = (getattr(naive, name)(windows[0]) + getattr(naive, name)(windows[1])) / 2
        torch.testing.assert_close(got[name], want, rtol=1e-5, atol=1e-5)
    near = [
        naive.distance(w, separation[4 * i : 4 * i + 4, 4 * i : 4 * i + 4]) for i, w in enumerate(windows)
    ]
    torch.testing.assert_close(got["distance"], (near[0] + near[1]) / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_streamed_outputs_equal_the_equations(shape):
    batches = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.5 for seed in (0, 1)]
    gathered = OutputMeasures(shape[1])
    for outputs in batches:
        gathered.add(outputs)
    got, whole = gathered.result(), torch.cat(batches)
    wanted = {
        "output_similarity": naive.output_similarity(whole),
        "output_rank": naive.output_rank(whole),
        "cka": naive.linear_cka(whole),
        "cka_debiased": naive.debiased_cka(whole),
    }
    for name, want in wanted.items():
        torch.testing.assert_close(got[name], want, rtol=1e-5, atol=1e-5)
    assert got["output_variance"] == pytest.approx(naive.output_variance(whole), rel=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
def test_factors_give_the_products_of_their_maps(mixed):
    generator = torch.Generator().manual_seed(0)
    a_q = torch.randn(2, 3, 11, 4, generator=generator).softmax(-1)
    a_k = torch.randn(2, 3, 4, 11, generator=generator).softmax(-1)
    if mixed:
        mix = torch.eye(3) + 0.3 * torch.randn(3, 3, generator=generator)
        a_q = torch.einsum("gi,binl->bgnl", mix, a_q)
    maps = a_q @ a_k
    gathered = MapMeasures(3, signed=True)
    gathered.add_products(map_products(a_q, a_k))
    torch.testing.assert_close(
        gathered.result()["map_similarity"], naive.map_similarity(maps, signed=True), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(row_sums(a_q, a_k), maps.sum(-1))


def test_planted_heads_are_counted():
    same = torch.randn(1, 1, 10, 4).expand(2, 3, 10, 4)
    gathered = OutputMeasures(3)
    gathered.add(same)
    assert effective_heads(gathered.result()["cka"]) == pytest.approx(1.0, abs=1e-6)
    assert gathered.result()["output_variance"] == pytest.approx(0.0, abs=1e-12)
    apart = torch.zeros(1, 3, 12, 1)
    for head in range(3):  # outputs that are orthogonal after centring, too
        apart[0, head, 4 * head : 4 * head + 2] = 1.0
        apart[0, head, 4 * head + 2 : 4 * head + 4] = -1.0
    gathered = OutputMeasures(3)
    gathered.add(apart)
    assert effective_heads(gathered.result()["cka"]) == pytest.approx(3.0, abs=1e-6)
    maps = maps_of(1, 1, 6).expand(2, 4, 6, 6)
    measured = MapMeasures(4)
    measured.add(in_chunks(maps, separation_of(6)))
    assert effective_heads(measured.result()["map_similarity"]) == pytest.approx(1.0, abs=1e-4)


def test_uniform_attention_has_entropy_one_and_a_distance_ratio_of_one():
    measured = MapMeasures(2)
    measured.add(in_chunks(torch.full((1, 2, 9, 9), 1 / 9), separation_of(9)))
    got = measured.result()
    assert got["entropy"].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert got["distance_ratio"].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert got["map_divergence"].abs().max() < 1e-6


def test_a_planted_object_is_found_and_a_shuffled_one_is_not():
    mask = torch.zeros(2, 100, dtype=torch.bool)
    mask[:, 20:30] = True
    planted = torch.where(mask, 0.6 / 10, 0.4 / 90)  # the object's tokens hold exactly 60 %
    noise = torch.rand(2, 100, generator=torch.Generator().manual_seed(3))
    rows = torch.stack([planted, noise / noise.sum(-1, keepdim=True)], 1)
    found = alignment(rows, mask)
    assert found["alignment"][:, 0].tolist() == pytest.approx([1.0, 1.0])
    assert found["alignment"][:, 1].abs().max() < 0.1
    chosen = naive.top_share(rows.double())
    torch.testing.assert_close(found["jaccard"][:, 1], naive.jaccard(chosen, mask[:, None])[:, 1].double())
    assert alignment(rows, torch.zeros_like(mask))["alignment"].isnan().all()


def test_neighbours_and_pairs():
    similarity = torch.tensor([[1.0, 0.5, 0.1], [0.5, 1.0, 0.5], [0.1, 0.5, 1.0]])
    assert neighbour_excess(similarity) == pytest.approx(0.4)
    assert mean_off_diagonal(similarity) == pytest.approx(1.1 / 3)
    assert math.isnan(neighbour_excess(torch.eye(2))) and math.isnan(mean_off_diagonal(torch.eye(1)))


def test_sinks():
    weights = maps_of(1, 2, 8)
    torch.testing.assert_close(prefix_share(weights, 2), weights[..., :2].sum(-1).mean(-1))
    features = torch.randn(2, 50, 16, generator=torch.Generator().manual_seed(0))
    features[1, 7] *= 30
    assert outstanding_tokens(features).nonzero().tolist() == [[1, 7]]


def test_a_sink_that_says_nothing_and_one_that_tells_all_the_same():
    """Token 2 draws nine tenths: of head 0 its value is 0, of head 1 as large as any."""
    maps = torch.full((1, 2, 6, 6), 0.1 / 5)
    maps[..., 2] = 0.9
    values = torch.nn.functional.normalize(
        torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    values[0, 0, 2] = 0.0
    sinks = Sinks(torch.ones(1, 6, dtype=torch.bool))
    for chunk in ([0, 1], [2, 3, 4, 5]):
        sinks.add(maps[:, :, chunk], chunk)
    found = sinks.result(values)
    assert found["sink_share"][0].tolist() == pytest.approx([0.9, 0.9])
    assert found["sink_value_norm"][0].tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    gathered = OutputMeasures(2)
    gathered.add(torch.stack([torch.ones(6, 3), torch.eye(6)[:, :3]])[None])
    assert gathered.result()["output_rank"].tolist() == pytest.approx([1.0, 3.0])


def test_what_fills_a_window_up_is_no_sink():
    """Of two windows the second has two tokens and two that fill it up; each has a sink of its own."""
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    maps = maps_of(2, 3, 4)
    maps[1, :, :, 2:] = 0.0
    values = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    sinks = Sinks(real)
    sinks.add(maps, range(4))
    found = sinks.result(values)
    parts = naive.sinks(maps[:1], values[:1]), naive.sinks(maps[1:, :, :2, :2], values[1:, :, :2])
    for name, index in (("sink_share", 0), ("sink_value_norm", 1)):
        want = (parts[0][index] + parts[1][index]) / 2
        torch.testing.assert_close(found[name][0].double(), want, rtol=1e-5, atol=1e-5)
