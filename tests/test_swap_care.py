"""What a swap must not break: what hangs on a model's layers, what is frozen, what was learned, what is shared."""

import copy

import pytest
import timm
import torch
from timm.layers import Attention
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from crosshead import restore_attention, swap_attention
from crosshead.layers import INTERACTIONS, InteractingAttention, Overlap, from_attention
from tolerances import GRADIENT, OUTPUT, assert_close


def tokens(batch=2, number=9, dim=24, seed=0):
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed))


def images(*size, seed=0):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def vit(**options):
    torch.manual_seed(0)
    small = dict(img_size=32, depth=2, embed_dim=24, num_heads=3, num_classes=3, patch_size=8)
    return timm.create_model("vit_tiny_patch16_224", **small | options).eval()


class LowRank(nn.Linear):
    """As adapters do it: a linear layer with a learned product beside its weight."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.down, self.up = nn.Linear(sizes[0], 2, bias=False), nn.Linear(2, sizes[1], bias=False)

    def forward(self, x):
        return super().forward(x) + self.up(self.down(x))


def low_rank(attn, name):
    new = LowRank(getattr(attn, name).in_features, getattr(attn, name).out_features)
    setattr(attn, name, new)


ADDED = {
    "low rank": low_rank,
    "spectral norm": lambda attn, name: spectral_norm(getattr(attn, name)),
    "parametrized": lambda attn, name: parametrizations.weight_norm(getattr(attn, name)),
    "pruned": lambda attn, name: prune.l1_unstructured(getattr(attn, name), "weight", 0.5),
    "hook": lambda attn, name: getattr(attn, name).register_forward_hook(lambda m, x, y: 2 * y),
}


@pytest.mark.parametrize("added", ADDED)
def test_what_was_added_to_the_projection_is_refused_where_it_would_be_lost(added):
    model = vit()
    ADDED[added](model.blocks[1].attn, "proj")
    model.eval()
    want = model(images(32, 32))
    with pytest.raises(ValueError, match=r"block 1 \(blocks.1.attn\): the projection (is a|carries hooks)"):
        swap_attention(model, overlap=2)
    assert not any(isinstance(m, InteractingAttention) for m in model.modules())
    swap_attention(model, "talking")  # the projection stays, with all that hangs on it
    assert_close(model(images(32, 32)), want, OUTPUT[torch.float32])


@pytest.mark.parametrize("added", ADDED)
def test_what_was_added_elsewhere_stays(added):
    model = vit()
    ADDED[added](model.blocks[1].attn, "qkv")
    model.eval()
    want = model(images(32, 32))
    swap_attention(model, overlap=2)
    assert_close(model(images(32, 32)), want, OUTPUT[torch.float32])


def test_hooks_of_attention_itself_go_on_and_a_patched_forward_is_refused():
    model, seen = vit(), []
    model.blocks[0].attn.register_forward_hook(lambda module, args, result: seen.append(result.shape))
    swap_attention(model, overlap=2)
    model(images(32, 32))
    assert seen == [(2, 17, 24)]
    patched = vit()
    patched.blocks[0].attn.forward = lambda x: x
    with pytest.raises(ValueError, match="has a forward of its own in its place"):
        swap_attention(patched, overlap=2)


def test_frozen_is_carried_tensor_by_tensor():
    attn = Attention(24, 3)
    attn.proj.weight.requires_grad_(False)
    layer = from_attention(attn, Overlap(2))
    assert (
        not layer.proj.weight.requires_grad
        and layer.proj.bias.requires_grad
        and layer.proj.bias is attn.proj.bias
    )
    attn.proj.weight.requires_grad_(True)
    attn.proj.bias.requires_grad_(False)
    layer = from_attention(attn, Overlap(2))
    assert layer.proj.weight.requires_grad and not layer.proj.bias.requires_grad


def test_interactive_heads_keep_what_they_learned_when_they_are_swapped_again():
    model = vit()
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.mix_query.add_(torch.randn(3, 3))
    want = model(images(32, 32))
    mixing = model.blocks[0].attn.mix_query
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    assert model.blocks[0].attn.mix_query is mixing
    assert_close(model(images(32, 32)), want, OUTPUT[torch.float32])


@pytest.mark.parametrize(
    ("kind", "names"), [("imhsa", {"mix_query", "mix_key"}), ("talking", {"proj_l.weight", "proj_w.weight"})]
)
def test_mixing_is_spared_the_weight_decay(kind, names):
    model = vit()
    before = model.no_weight_decay()
    swap_attention(model, kind, init="paper")
    twin = copy.deepcopy(model)
    for swapped in (model, twin):
        mixing = {f"blocks.{b}.attn.{name}" for b in range(2) for name in names}
        assert swapped.no_weight_decay() == before | mixing
    assert twin.no_weight_decay._model is twin
    groups = param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    spared = {id(p) for group in groups for p in group["params"] if group["weight_decay"] == 0}
    assert all(id(p) in spared for n, p in model.named_parameters() if n in mixing)


def test_what_a_model_itself_spares_stays_spared():
    model = vit()
    model.no_weight_decay = lambda: {"head.bias"}
    for _ in range(2):
        swap_attention(model, "talking")
        assert {"head.bias", "blocks.0.attn.proj_l.weight"} <= model.no_weight_decay()
    restore_attention(model)
    assert model.no_weight_decay() == {"head.bias"}


def test_any_iterable_names_blocks():
    model = vit()
    report = swap_attention(model, overlap=2, blocks=(b for b in range(2) if b))
    assert [r.block for r in report.replaced] == [1]
    for wrong in ([True], ["0"], 1, iter(())):
        with pytest.raises(ValueError, match="blocks must name some of 0 to 1"):
            swap_attention(vit(), overlap=2, blocks=wrong)


def test_a_module_at_two_places_is_replaced_at_both():
    shared = Attention(24, 3)
    model = nn.Sequential(shared, nn.LayerNorm(24), shared, Attention(24, 3)).eval()
    want = model(tokens())
    report = swap_attention(model, overlap=[1, 2])
    assert model[0] is model[2] and [(r.path, r.block) for r in report.replaced] == [
        ("0", 0),
        ("2", 0),
        ("3", 1),
    ]
    assert_close(model(tokens()), want, OUTPUT[torch.float32])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Attention(24, 3), r"the model is itself attention \(Attention\).*from_attention"),
        (lambda: timm.create_model("efficientvit_m0"), "attention of class CascadedGroupAttention at"),
        (lambda: timm.create_model("vit_pwee_patch16_reg1_gap_256"), "has attention of class"),
    ],
)
def test_models_that_cannot_be_are_told_why(model, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        swap_attention(model(), overlap=2)


def test_a_model_that_is_wrapped_is_refused(monkeypatch):
    class DistributedDataParallel(nn.Module):  # as PyTorch's, which wants a process group
        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(ValueError, match=r"wrapped for several processes .*swap first, then wrap"):
        swap_attention(DistributedDataParallel(vit()), overlap=2)
    assert "make the optimizer" in str(swap_attention(vit(), overlap=2))


@pytest.mark.parametrize(
    ("name", "options", "grids"),
    [
        ("pit_ti_distilled_224", dict(img_size=64), [(7, 7), (4, 4), (2, 2)]),
        ("mobilevit_xxs", {}, [(4, 6), (2, 3), (1, 2)]),
        ("caformer_s18", {}, [(4, 6), (2, 3)]),
        ("fastvit_sa12", {}, [(2, 3)]),
        ("volo_d1_224", dict(img_size=64), [(4, 4)]),
    ],
)
def test_interactive_heads_on_other_grids(name, options, grids):
    """Each stage has its own, whatever the images: the layer's map is right only on the right one."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **options).eval()
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    seen = []
    for module in model.modules():
        if isinstance(module, InteractingAttention):
            attend = module.interaction.attend

            def note(layer, heads, attend=attend):
                seen.append((heads.grid, heads.num_prefix_tokens))
                return attend(layer, heads)

            object.__setattr__(module.interaction, "attend", note)
    size = (64, 64) if options else (64, 96)
    with torch.no_grad():
        assert model(images(*size)).shape == (2, 3)
    assert list(dict.fromkeys(grid for grid, _ in seen)) == grids
    assert {prefix for _, prefix in seen} == ({2} if "pit" in name else {0})


def test_interactive_heads_inside_other_models():
    inner = vit(img_size=(32, 64))
    want = copy.deepcopy(inner)
    swap_attention(want, "imhsa", init="paper", landmarks=2)
    model = nn.Sequential(nn.Identity(), inner)
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    assert_close(model(images(32, 64)), want(images(32, 64)), OUTPUT[torch.float32])
    features = timm.create_model(
        "vit_tiny_patch16_224",
        features_only=True,
        out_indices=(1,),
        img_size=(32, 64),
        depth=2,
        embed_dim=24,
        num_heads=3,
    ).eval()
    swap_attention(features, "imhsa", init="paper", landmarks=2)
    assert features(images(32, 64))[0].shape == (2, 24, 2, 4)


@pytest.mark.parametrize("sizes", [((32, 32), (48, 64)), ((32, 64), (64, 32))], ids=["apart", "alike"])
def test_two_sizes_of_images_before_one_backward_pass_of_checkpointing(sizes):
    """On grids of equally many tokens the backward pass can't tell them apart, and says so."""
    gradients = []
    for checkpointing in (False, True):
        model = vit(dynamic_img_size=True)
        swap_attention(model, "imhsa", init="paper", landmarks=2)
        model.train().set_grad_checkpointing(checkpointing)
        loss = sum(model(images(*size)).square().sum() for size in sizes)
        if checkpointing and sizes[0] == sizes[1][::-1]:
            with pytest.raises(RuntimeError, match="have 32 tokens each, and gradient checkpointing"):
                loss.backward()
            for size in sizes:  # one after the other there is nothing to confuse
                model(images(*size)).square().sum().backward()
            return
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for got, want in zip(*gradients, strict=True):
        assert_close(got, want, GRADIENT[torch.float32])


@pytest.mark.parametrize("kind", INTERACTIONS)
def test_what_comes_in_is_in_the_mode_of_its_layer(kind):
    for mode in (False, True):
        model = vit().train(mode)
        swap_attention(model, kind, init="paper")
        assert all(module.training is mode for module in model.modules())
