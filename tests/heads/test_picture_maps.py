"""Maps of a picture: the layers' own rows on the grid, and what is made of them."""

import pytest
import timm
import torch

from crosshead.heads import head_layers, reading
from crosshead.heads.picture import attention_maps, gradient_maps, rollout
from crosshead.layers.grid_sources import prefix_names
from heads.small_models import MODELS, images, vit


def weights_of(model, picture):
    found = {}
    with (
        torch.no_grad(),
        reading(model, head_layers(model), lambda c: found.update({c.layer.path: (c.weights(), c.places)})),
    ):
        model(picture)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_of_the_layers(name):
    model, size = MODELS[name]()
    picture = images(size, 1)
    x, y = size * 0.7, size * 0.3
    whole = weights_of(model, picture)
    for layer in attention_maps(model, picture, (x, y)):
        weights, places = whole[layer.path]
        window, token = places.query_at(0.7, 0.3)
        row, column = int(0.3 * places.rows), int(0.7 * places.columns)
        assert places.tokens[window, token - places.prefix] == row * places.columns + column
        flat = layer.maps.flatten(1)
        inside = places.tokens[window]
        torch.testing.assert_close(
            flat[:, inside], weights[window, :, token, places.prefix :], rtol=0, atol=1e-6
        )
        outside = torch.ones(flat.shape[1], dtype=torch.bool)
        outside[inside] = False
        assert flat[:, outside].isnan().all() and outside.any() == (places.windows > 1)


def test_a_class_token_a_mean_and_a_box():
    model, picture = vit(), images(16, 1)
    weights, _ = weights_of(model, picture)["blocks.1.attn"]
    for query, want in (
        ("cls", weights[0, :, 0, 1:]),
        ("mean", weights[0, :, 1:, 1:].mean(1)),
        ((4, 0, 11, 7), weights[0, :, [2, 3, 6, 7], 1:].mean(1)),
    ):
        found = attention_maps(model, picture, query, blocks=[1], heads=[2])[0]
        torch.testing.assert_close(found.maps.flatten(), want[2], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="sees no class token; ask for a pixel"):
        attention_maps(MODELS["plain swin"]()[0], images(32, 1), "cls")


@pytest.mark.parametrize("kind", [None, "overlap", "talking", "imhsa"])
def test_gradients_of_maps_are_those_of_autograd(kind):
    """A model of one block, its attention formed by hand, against the product of gradients and values."""
    options = {"overlap": {"overlap": "constant:2"}, "imhsa": {"landmarks": 2}}.get(kind, {})
    model, picture = vit(kind, **options), images(16, 1)
    found = gradient_maps(model, picture, 3, "mean", blocks=[1])[0]
    layer = head_layers(model, [1])[0]
    kept = {}

    def by_hand(x):
        heads = layer.view.heads_of(x)
        kept["a"] = layer.view.weights_of(heads).detach().requires_grad_()
        values = layer.inspected.operands(layer.view, heads)[2]
        return layer.view.write((kept["a"] @ values).transpose(1, 2).flatten(2), heads)

    model.blocks[1].attn.forward = lambda x, **_: by_hand(x)
    grad = torch.autograd.grad(model(picture)[0, 3], kept["a"])[0]
    want = (grad * kept["a"]).clamp(min=0)[0, :, 1:, 1:].mean(1)
    torch.testing.assert_close(found.maps.flatten(1), want, rtol=1e-4, atol=1e-7)


def test_rollout_multiplies_probabilities_and_nothing_else():
    model, picture = vit(), images(16, 1)
    maps = [found[0].mean(1)[0] for found in weights_of(model, picture).values()]
    eye = torch.eye(17)
    want = ((maps[1] + eye) / 2) @ ((maps[0] + eye) / 2)
    torch.testing.assert_close(rollout(model, picture).flatten(), want[0, 1:], rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match=r"block 0 \(imhsa\) may be negative"):
        rollout(vit("imhsa", landmarks=2), picture)
    with pytest.raises(ValueError, match="same whole grid"):
        rollout(MODELS["plain swin"]()[0], images(32, 1), "mean")


def test_what_is_not_there_is_said():
    model, picture = vit(), images(16, 1)
    for change, message in (
        ({"query": (16, 3)}, r"\(16, 3\) is not in the picture of 16 x 16"),
        ({"query": "top"}, "cls, mean, a pixel"),
        ({"blocks": [2]}, "no block 2; expected 0 to 1"),
        ({"heads": [3]}, "no head 3 in block 0; expected 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            attention_maps(model, picture, **change)
    with pytest.raises(ValueError, match="no class 5; expected 0 to 4"):
        gradient_maps(model, picture, 5)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_tokens_that_are_no_patch_have_their_names():
    names = {
        "deit_tiny_distilled_patch16_224": ("class token", "distillation token"),
        "vit_base_patch16_reg4_gap_256": ("register 1", "register 2"),
    }
    for name, want in names.items():
        with torch.device("meta"):
            assert prefix_names(timm.create_model(name), 2) == want
    assert prefix_names(torch.nn.Linear(2, 2), 2) == ("token 0", "token 1")


def test_what_heads_do_is_said_in_words():
    said = {
        ("overlap", "constant:2"): "borrows 2 channels a side",
        ("overlap", "constant:1"): "borrows 1 channel a side",
        ("talking", "constant:2"): "heads mixed before and after the softmax, borrows 2 channels a side",
        ("knocking", None): "heads mixed as they are projected",
    }
    assert head_layers(vit())[0].words == "plain attention"
    for (kind, overlap), want in said.items():
        options = {} if overlap is None else {"overlap": overlap}
        assert head_layers(vit(kind, **options))[0].words == want
    assert head_layers(vit("imhsa", landmarks=2))[0].words == "through 2 x 2 landmarks, heads mixed"
