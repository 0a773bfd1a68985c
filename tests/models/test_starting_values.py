"""``weight_init="authors"``: the values that the MOHSA authors' models start from, in their statistics."""

import math

import pytest
import timm
import torch
from torch import nn

from crosshead.models import build_model
from crosshead.models.starting_values import layer_scale
from crosshead.recipe import load_recipe

CAIT = dict(depth=26, num_heads=6, embed_dim=48, overlap="constant:2", num_classes=50)
VIT = dict(depth=3, num_classes=50, overlap="constant:3")


def create(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, **options)


def assert_normal(tensor, std=1.0):
    """Mean and standard deviation within five of their own standard errors."""
    x, count = tensor.detach().flatten(), tensor.numel()
    assert x.mean().abs() < 5 * std / math.sqrt(count)
    assert abs(x.std() - std) < 5 * std / math.sqrt(2 * count)


def assert_as_pytorch_starts_it(layer, what):
    """Weights and bias from U(-n^(-1/2), n^(-1/2)), n the inputs of one output."""
    bound = layer.weight[0].numel() ** -0.5
    x = layer.weight.detach()
    assert x.abs().max() <= bound, what
    assert abs(x.std() * math.sqrt(3) / bound - 1) < 5 / math.sqrt(x.numel()), what
    if layer.bias is not None:
        assert 0 < layer.bias.abs().max() <= bound, what


def linear_layers(model):
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not path.endswith(("proj_l", "proj_w"))
    }


@pytest.mark.parametrize("options", [{}, {"form": "authors"}])
def test_cait(options):
    model = create("mohsa_cait_micro_patch4_32", weight_init="authors", **CAIT, **options)
    for embedding in (model.cls_token, model.pos_embed):
        assert_normal(embedding)
    layers = linear_layers(model)
    assert (
        len(layers) == 2 + 26 * 4 + 2 * 6
    )  # patch embedding and head; qkv, proj and MLP; q, k, v, proj and MLP
    for path, layer in layers.items():
        assert_as_pytorch_starts_it(layer, path)
    mixing = [p for name, p in model.named_parameters() if ".proj_l." in name or ".proj_w." in name]
    weights = [p for p in mixing if p.dim() == 2]
    assert len(weights) == 2 * (28 if options else 26)
    assert_normal(torch.stack(weights))
    assert all((p == 0).all() for p in mixing if p.dim() == 1)


def test_layer_scale_block_by_block():
    model = create("mohsa_cait_micro_patch4_32", weight_init="authors", **CAIT)
    gammas = [(block.gamma_1, block.gamma_2) for block in (*model.blocks, *model.blocks_token_only)]
    wanted = [0.1] * 18 + [1e-5] * 6 + [1e-6] * 2 + [0.1] * 2
    for pair, value in zip(gammas, wanted, strict=True):
        assert all(torch.equal(gamma, torch.full_like(gamma, value)) for gamma in pair)
    assert [layer_scale(n) for n in (1, 18, 19, 24, 25)] == [0.1, 0.1, 1e-5, 1e-5, 1e-6]


def test_layer_scale_that_is_given_is_taken():
    model = create("mohsa_cait_micro_patch4_32", weight_init="authors", init_values=0.5, **CAIT)
    assert all((block.gamma_1 == 0.5).all() for block in (*model.blocks, *model.blocks_token_only))


@pytest.mark.parametrize("again", [False, True])
def test_vit(again):
    model = create("mohsa_vit_tiny_patch16_224", weight_init="authors", img_size=64, **VIT)
    if again:  # as after to_empty
        nn.init.zeros_(model.cls_token)
        nn.init.zeros_(model.blocks[1].attn.proj.weight)
        model.init_weights()
    assert_normal(model.cls_token)
    assert_normal(model.pos_embed)
    layers = linear_layers(model)
    assert len(layers) == 2 + 3 * 4
    for path, layer in layers.items():
        assert_as_pytorch_starts_it(layer, path)
    assert all((m.weight == 1).all() for m in model.modules() if isinstance(m, nn.LayerNorm))


def test_vit_without_a_class_token():
    model = create(
        "mohsa_vit_micro_patch2_32", weight_init="authors", class_token=False, global_pool="avg", img_size=8
    )
    assert_normal(model.pos_embed)


def test_swin_starts_as_swin_does():
    sizes = dict(
        depths=(1, 2), num_heads=(2, 4), embed_dim=32, img_size=64, window_size=4, overlap="constant:3"
    )
    model = create("mohsa_swin_tiny_patch4_window7_224", weight_init="authors", **sizes)
    for path, layer in linear_layers(model).items():
        if path != "patch_embed.proj":
            assert_normal(layer.weight, 0.02)
            assert layer.bias is None or (layer.bias == 0).all()
    default = create("mohsa_swin_tiny_patch4_window7_224", **sizes).state_dict()
    assert all(torch.equal(tensor, default[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["mohsa_vit_micro_patch2_32", "mohsa_swin_micro_patch2_window4_32"])
@pytest.mark.parametrize("mode", ["reset", "jax", "moco", "skip"])
def test_timms_names_keep_their_meaning(name, mode):
    """Overlap 0 is timm's plain model: the same values from the same seed, with the projections copied."""
    plain = create(name.replace("mohsa", "plain"), weight_init=mode).state_dict()
    model = create(name, weight_init=mode, overlap="none").state_dict()
    for key in (k for k in plain if k.startswith(("blocks.0", "layers.0"))):
        assert torch.equal(model[key], plain[key]), key


@pytest.mark.parametrize(
    "name", ["vit_micro_patch2_32", "cait_micro_patch2_32", "swin_micro_patch2_window4_32"]
)
def test_unknown_names(name):
    with pytest.raises(ValueError, match=r"weight_init must be 'authors', or timm's '.*; got 'author'"):
        create(f"mohsa_{name}", weight_init="author")


PAPER = ["vit/vit_small_16_224", "cait/cait_xxs24_16_224", "swin/swin_tiny_patch4_window7_224"]


@pytest.mark.parametrize("recipe", PAPER)
def test_the_papers_recipes_start_there(recipe):
    torch.manual_seed(0)
    settings = load_recipe(f"configs/{recipe}_cifar10.yaml").model
    model = build_model(settings, num_classes=10, img_size=224)
    norms = [m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert set(norms) == {1e-5}
    if "swin" in recipe:
        assert_normal(model.layers[2].blocks[0].attn.proj.weight, 0.02)
        return
    assert_normal(model.pos_embed)
    assert_as_pytorch_starts_it(model.blocks[5].attn.proj, recipe)
    if "cait" in recipe:
        assert [round(b.gamma_1[0].item(), 6) for b in model.blocks] == [0.1] * 18 + [1e-5] * 6
        assert not hasattr(model.blocks_token_only[0].attn.proj_w.bias, "shape")
