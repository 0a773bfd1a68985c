"""What is expected of names that PyTorch and timm keep to themselves, each alone: a new version shows here first."""

import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from crosshead.ops import private_torch as private


def test_transforms_are_seen():
    seen = []

    def function(x):
        seen.append(private.transforms_are_active())
        return x.sin()

    function(torch.ones(2))
    torch.func.vmap(function)(torch.ones(2))
    torch.func.grad(function)(torch.tensor(1.0))
    assert seen == [False, True, True]


def test_a_backward_pass_is_seen_where_it_forms_activations_again():
    seen = []

    def function(x):
        seen.append(private.backward_is_running())
        return x.sin()

    checkpoint(function, torch.ones(2, requires_grad=True), use_reentrant=False).sum().backward()
    assert seen == [False, True]


def test_a_tensor_without_data_is_known():
    with FakeTensorMode():
        assert private.is_without_data(torch.ones(2))
    assert not private.is_without_data(torch.ones(2))


def test_the_gradient_of_a_softmax():
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 3, 5, dtype=torch.float64)
    weights = logits.softmax(-1)
    (want,) = torch.autograd.grad(weights, logits, upstream)
    assert torch.equal(private.softmax_gradient(upstream, weights.detach()), want)
    room = torch.empty_like(want)
    assert private.softmax_gradient(upstream, weights.detach(), out=room) is room and torch.equal(room, want)


def test_the_processor_is_asked_in_words_that_pytorch_knows():
    assert isinstance(private.has_native_bfloat16(), bool)
    assert hasattr(torch.cpu, "_is_avx512_bf16_supported") or hasattr(torch.cpu, "_is_amx_tile_supported")


def test_hooks_are_found_and_those_of_an_owner_removed():
    class Owner:
        def note(self, *_):
            pass

    linear, owner = nn.Linear(2, 2), Owner()
    assert private.hooks_of(linear) == []
    for register in (linear.register_forward_hook, linear.register_forward_pre_hook):
        register(owner.note)
    kept = linear.register_full_backward_hook(lambda *_: None)
    assert len(private.hooks_of(linear)) == 3
    private.remove_hooks_of(linear, owner)
    assert len(private.hooks_of(linear)) == 1
    kept.remove()
    assert private.hooks_of(linear) == []


def test_parts_of_a_module_are_named_and_forgotten():
    module = nn.Module()
    module.register_parameter("gain", nn.Parameter(torch.ones(2)))
    module.register_parameter("absent", None)
    module.add_module("norm", nn.LayerNorm(2))
    assert private.own_names(module) == ("gain", "absent", "norm")
    private.forget(module, ["absent", "norm", "nobody"])
    assert private.own_names(module) == ("gain",) and not hasattr(module, "norm")


def test_timms_feature_maps():
    assert private.taken_indices(4, [-1, 1]) == ([3, 1], 3)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0).eval()
    maps = private.feature_getter(vit, (1,))(torch.randn(1, 3, 32, 32))
    assert [m.shape for m in maps] == [(1, 192, 2, 2)]
