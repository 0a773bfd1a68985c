"""Re-attention in a model: its norm is batch norm in all that a user can see of it."""

import copy

import pytest
import timm
import torch
from timm.layers import Attention
from timm.models.swin_transformer import WindowAttention
from torch import nn
from torch.utils.checkpoint import checkpoint

from crosshead import swap_attention
from crosshead.layers import INTERACTIONS, from_attention
from golden_files import load_golden
from tolerances import GOLDEN_OUTPUT, OUTPUT, assert_close

Reattention = INTERACTIONS["reattention"]


def tokens(batch=2, number=9, dim=24, seed=0, dtype=torch.float32):
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer(**options):
    torch.manual_seed(0)
    return from_attention(Attention(24, 3, qkv_bias=True), Reattention(**options), init="paper")


def as_written(layer, x):
    """The authors' module, with a real convolution and batch norm, of the layer's parts."""
    q, k, v = layer.qkv(x).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    maps = torch.softmax(q @ k.mT * 8**-0.5, dim=-1)
    mixed = nn.functional.conv2d(
        maps, layer.reattention_mix.weight[:, :, None, None], layer.reattention_mix.bias
    )
    return layer.proj((layer.reattention_norm(mixed) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_batch_norms(momentum):
    ours = layer(momentum=momentum).double()  # PyTorch's batch norm is less exact in float32
    theirs = copy.deepcopy(ours)
    for step in range(3):
        assert_close(
            ours(tokens(seed=step, dtype=torch.float64)),
            as_written(theirs, tokens(seed=step, dtype=torch.float64)),
            OUTPUT[torch.float64],
        )
    for name, buffer in ours.reattention_norm.named_buffers():
        want = getattr(theirs.reattention_norm, name)
        assert_close(buffer, want, OUTPUT[torch.float64], name) if buffer.dim() else None
        assert buffer.dim() or buffer == want == 3
    ours.eval(), theirs.eval()
    before = copy.deepcopy(ours.state_dict())
    assert_close(
        ours(tokens(seed=9, dtype=torch.float64)),
        as_written(theirs, tokens(seed=9, dtype=torch.float64)),
        OUTPUT[torch.float64],
    )
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())
    # Frozen inside a model that trains: running statistics, and they stay.
    ours.train(), ours.reattention_norm.eval()
    assert_close(
        ours(tokens(seed=9, dtype=torch.float64)),
        as_written(theirs, tokens(seed=9, dtype=torch.float64)),
        OUTPUT[torch.float64],
    )
    assert torch.equal(before["reattention_norm.running_mean"], ours.reattention_norm.running_mean)


def test_golden_running_statistics():
    case, file = load_golden("reattention_train")
    ours = from_attention(
        Attention(case["dim"], case["heads"], qkv_bias=True).double(), Reattention(), init="paper"
    )
    names = {"reatten_matrix": "reattention_mix", "var_norm": "reattention_norm"}
    state = ours.state_dict()
    for key, value in file.items():
        kind, _, rest = key.partition(".")
        if kind in ("param", "buffer"):
            rest = rest if kind == "param" else f"var_norm.{rest}"
            part, _, leaf = rest.partition(".")
            state[f"{names.get(part, part)}.{leaf}"] = value.reshape(
                state[f"{names.get(part, part)}.{leaf}"].shape
            )
    ours.load_state_dict(state)
    assert_close(ours(file["x"]), file["y"], GOLDEN_OUTPUT[torch.float64])
    for name in ("running_mean", "running_var"):
        assert_close(
            getattr(ours.reattention_norm, name), file[f"after.{name}"], GOLDEN_OUTPUT[torch.float64], name
        )


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_batch_counts_once_under_gradient_checkpointing(use_reentrant):
    plain, checkpointed = layer(), layer()
    x = tokens().requires_grad_()
    plain(x).square().sum().backward()
    want = [p.grad for p in plain.parameters()]
    checkpoint(checkpointed, x, use_reentrant=use_reentrant).square().sum().backward()
    assert checkpointed.reattention_norm.num_batches_tracked == 1
    assert torch.equal(plain.reattention_norm.running_mean, checkpointed.reattention_norm.running_mean)
    for got, grad in zip(checkpointed.parameters(), want, strict=True):
        assert torch.equal(got.grad, grad)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_weights_are_those_that_meet_the_values(training):
    ours = layer().train(training)
    before = copy.deepcopy(ours.state_dict())
    whole = ours.attention_weights(tokens())
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())  # it only looks
    some = ours.attention_weights(tokens(), heads=[2, 0], queries=[8, 1])
    assert_close(some, whole[:, [2, 0]][:, :, [8, 1]], OUTPUT[torch.float32])
    v = ours.qkv(tokens())[..., 48:].unflatten(-1, (3, 8)).transpose(1, 2)
    assert_close(ours(tokens()), ours.proj((whole @ v).transpose(1, 2).flatten(2)), OUTPUT[torch.float32])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="preserve' can't hold for reattention: the norm of the mixed maps"):
        from_attention(Attention(24, 3), Reattention())
    with pytest.raises(ValueError, match="reattention can't carry mask, which WindowAttention brings"):
        from_attention(WindowAttention(24, 3, window_size=3), Reattention(), init="paper")
    with pytest.raises(ValueError, match="re-attention takes no mask"):
        layer()(tokens(), is_causal=True)
    with pytest.raises(ValueError, match=r"momentum must lie in \(0, 1\] or be None, got 2"):
        Reattention(momentum=2)
    with pytest.raises(ValueError, match="or be None, got 'slow'"):
        Reattention(momentum="slow")
    with pytest.raises(ValueError, match="leave reattention_norm out of convert_sync_batchnorm"):
        nn.SyncBatchNorm.convert_sync_batchnorm(layer())(tokens())


def test_in_a_model_it_trains_and_swaps_again_with_what_it_learned():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    report = swap_attention(model, "reattention", init="paper")
    assert len(report.replaced) == 2
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    for name, parameter in model.named_parameters():
        # The batch's mean cancels the bias of the mixing, as in the authors' code.
        assert parameter.grad is not None and (
            name.endswith("reattention_mix.bias") or parameter.grad.abs().max() > 0
        ), name
    model.eval()
    want = model(torch.ones(1, 3, 32, 32))
    swap_attention(model, "reattention", init="paper", momentum=0.5)
    assert torch.equal(model(torch.ones(1, 3, 32, 32)), want)
    assert model.blocks[0].attn.reattention_norm.momentum == 0.5
