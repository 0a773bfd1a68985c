"""Measures of whole models, in streams, against the equations on whole maps; and that looking changes nothing."""

import naive_measures as naive
import pytest
import timm
import torch

from crosshead.heads import head_layers, measure_heads, reading
from crosshead.heads import measuring as streams
from crosshead.heads.measures.tokens import alignment
from heads.small_models import MODELS, images, vit, windowed


def whole_calls(model, pictures):
    """Every call of every layer: its places, its whole maps in float64, the heads' outputs."""
    maps, places, outputs, values = {}, {}, {}, {}

    def on_call(call):
        values[call.layer.path] = call.layer.inspected.operands(call.layer.view, call.heads)[2]
        maps[call.layer.path] = call.weights().double()
        places[call.layer.path] = call.places

    def on_outputs(layer, found, count):
        outputs[layer.path] = found

    with torch.no_grad(), reading(model, head_layers(model), on_call, on_outputs):
        model(pictures)
    return maps, places, outputs, values


@pytest.mark.parametrize("name", MODELS)
def test_streams_equal_the_equations(name, monkeypatch):
    model, size = MODELS[name]()
    pictures = images(size)
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 2000)  # several chunks, at this size too
    found = measure_heads(model, [pictures[:1], pictures[1:]])
    maps, places, outputs, values = whole_calls(model, pictures)
    assert [layer.path for layer in found] == list(maps)
    for layer in found:
        where, p = places[layer.path], places[layer.path].prefix
        a = maps[layer.path][:, :, p:, p:]
        if where.windows == 1:
            check(layer, "distance", naive.distance(a, where.separation(range(where.count))))
            check(layer, "entropy", naive.entropy(a))
            check(layer, "confidence", naive.confidence(a))
            check(layer, "map_similarity", naive.map_similarity(a, signed=layer.signed))
            if not layer.signed:
                check(layer, "map_divergence", naive.map_divergence(a))
        o = outputs[layer.path][:, p:]
        width, view = o.shape[-1], next(each.view for each in head_layers(model) if each.path == layer.path)
        borrowed = (width - view.head_dim) // 2
        own = slice(borrowed, borrowed + view.head_dim)
        o = o[..., own]
        # Windows alike in all of their tokens are as many images.
        share, value = naive.sinks(maps[layer.path][:, :, p:], values[layer.path][..., own])
        check(layer, "sink_share", share)
        check(layer, "sink_value_norm", value)
        o = o.reshape(2, -1, *o.shape[2:]).transpose(1, 2)
        check(layer, "cka", naive.linear_cka(o))
        check(layer, "cka_debiased", naive.debiased_cka(o))
        check(layer, "output_similarity", naive.output_similarity(o))
        check(layer, "output_rank", naive.output_rank(o))
        assert layer.values["output_variance"] == pytest.approx(naive.output_variance(o), rel=1e-5)


def check(layer, name, want):
    got = torch.tensor(layer.values[name], dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5, msg=lambda m: f"{layer.path} {name}: {m}")


def test_windows_are_measured_where_they_may_look():
    """Entropy and similarity of a shifted layer, window by window, over the keys that its mask leaves."""
    model, size = MODELS["overlapped swin"]()
    pictures = images(size)
    found = {layer.path: layer for layer in measure_heads(model, [pictures])}
    masks = {}
    with (
        torch.no_grad(),
        reading(model, head_layers(model), lambda c: masks.update({c.layer.path: c.heads.window_mask})),
    ):
        model(pictures)
    path = next(path for path, mask in masks.items() if mask is not None)
    maps, _, _, _ = whole_calls(model, pictures)
    windows = len(masks[path])
    a = maps[path].unflatten(0, (2, windows))
    keys = (masks[path] == 0).sum(-1).double()
    entropy = -torch.special.xlogy(a, a).sum(-1) / keys.clamp(min=2).log()[None, :, None]
    check(found[path], "entropy", entropy.mean((0, 1, 3)))
    allowed = masks[path] == 0
    mean = 1 / keys[..., None]
    centred = torch.where(allowed[None, :, None], a - mean[None, :, None], 0.0).transpose(1, 2).flatten(2)
    unit = torch.nn.functional.normalize(centred, dim=-1)
    check(found[path], "map_similarity", (unit @ unit.mT).mean(0))


@pytest.mark.parametrize("name", MODELS)
def test_looking_changes_nothing(name):
    model, size = MODELS[name]()
    pictures = images(size)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    before = model(pictures)
    seen = []
    with reading(model, head_layers(model), seen.append, lambda *_: None):
        during = model(pictures)
    model.train()
    measure_heads(model, [pictures])
    assert model.training and seen
    model.eval()
    assert torch.equal(before, during) and torch.equal(before, model(pictures))
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_are_gone_where_the_model_fails():
    model = vit()
    with pytest.raises(AssertionError):
        measure_heads(model, [images(8)])
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_what_heads_give_each_other():
    """Overlapped and mixed maps differ from the heads' own; plain ones don't."""
    pictures = images(16)
    assert max(measure_heads(vit(), [pictures])[0].values["change"]) == 0.0
    for kind, options in (
        ("overlap", {"overlap": "constant:2"}),
        ("talking", {}),
        ("imhsa", {"landmarks": 2}),
    ):
        found = measure_heads(vit(kind, **options), [pictures])[0]
        assert min(found.values["change"]) > 1e-3, kind
    assert found.signed and "entropy_query" in found.values and "row_sum_spread" in found.values


def test_an_object_is_found_in_the_attention_to_it():
    pictures = images(16)
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[:, 4:12, 4:12] = True
    found = measure_heads(vit(), [(pictures, mask)])[0]
    assert len(found.values["alignment"]) == 3 and all(-1 <= each <= 1 for each in found.values["alignment"])
    assert "alignment" not in measure_heads(vit(), [pictures])[0].values


@pytest.mark.parametrize("name", ["overlapped swin", "windowed vit"])
def test_in_windows_an_object_is_found_in_what_its_tokens_receive_from_all(name):
    """Query by query, laid onto the grid and added up; what fills a window up neither asks nor receives."""
    model, size = MODELS[name]() if name in MODELS else (windowed("overlap", overlap="constant:2"), 16)
    pictures, mask = images(size), torch.zeros(2, size, size, dtype=torch.bool)
    mask[:, : size // 2, size // 4 :] = True
    found = {layer.path: layer for layer in measure_heads(model, [(pictures, mask)]) if layer.windows > 1}
    assert found
    maps, places, _, _ = whole_calls(model, pictures)
    for path, layer in found.items():
        where = places[path]
        received = torch.zeros(2, layer.heads, where.rows, where.columns, dtype=torch.float64)
        for row in range(where.rows):
            for column in range(where.columns):
                window, token = where.query_at((column + 0.5) / where.columns, (row + 0.5) / where.rows)
                rows = maps[path].unflatten(0, (2, where.windows))[:, window, :, token, where.prefix :]
                received += where.on_grid(rows, window).nan_to_num(0.0)
        step = size // where.rows
        on_grid = mask.unfold(1, step, step).unfold(2, step, step).double().mean((-1, -2)) >= 0.5
        want = alignment(received.flatten(2), on_grid.flatten(1))["alignment"].mean(0)
        check(layer, "alignment", want)


def test_sampled_queries_come_near_to_all():
    model = timm.models.VisionTransformer(img_size=64, patch_size=4, embed_dim=24, depth=1, num_heads=3)
    pictures = images(64, 1)
    whole = measure_heads(model, [pictures])[0]
    some = measure_heads(model, [pictures], queries=64)[0]
    assert (whole.queries, some.queries) == (256, 64)
    assert some.values["distance"] == pytest.approx(whole.values["distance"], rel=0.03)


def test_bad_questions_are_answered():
    with pytest.raises(ValueError, match="no images"):
        measure_heads(vit(), [])
    with pytest.raises(ValueError, match=r"no block 7; expected 0 to 1"):
        measure_heads(vit(), [images(16)], blocks=[7])
    with pytest.raises(ValueError, match="ResNet has no attention whose heads can be read"):
        measure_heads(timm.create_model("resnet10t"), [images(32)])
    with pytest.raises(ValueError, match="queries must be at least 1"):
        measure_heads(vit(), [images(16)], queries=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xcit_nano_12_p16_224", "weigh their channels"),
        ("pvt_v2_b0", "not its queries' tokens"),
        ("hiera_tiny_224", "mask unit by mask unit"),
    ],
)
def test_heads_of_no_tokens_of_a_picture_are_refused(name, message):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ValueError, match=rf"block 0 .* {message}.* choose such blocks with blocks="):
        head_layers(model)


def test_blocks_whose_heads_attend_among_their_tokens_are_measured():
    model = timm.create_model(
        "pvt_v2_b0", embed_dims=(8, 8, 8, 16), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 2)
    ).eval()
    measured = measure_heads(model, [torch.randn(2, 3, 64, 64)], blocks=[-1])
    assert len(measured) == 1 and set(measured[0].values) >= {"entropy"}
