"""Heads that are taken away: the planted ones matter, and the model is whole again afterwards."""

import pytest
import torch
import torch.nn.functional as F

from crosshead.heads import ablate_heads
from heads.small_models import images, vit


def loss(model, pictures, targets):
    return F.cross_entropy(model(pictures), targets, reduction="none")


def batches():
    targets = torch.tensor([0, 1, 2, 3])
    return [(images(16, 4)[:2], targets[:2]), (images(16, 4)[2:], targets[2:])]


def test_a_head_that_gives_nothing_matters_to_nobody():
    model = vit()
    with torch.no_grad():
        model.blocks[1].attn.proj.weight[:, 8:16] = 0  # head 1 of 3
    found = ablate_heads(model, batches, loss)
    assert found[1].output[1] == pytest.approx(0.0, abs=1e-6)
    assert found[1].importance[1] == pytest.approx(0.0, abs=1e-9)
    assert min(abs(found[1].output[0]), abs(found[1].output[2])) > 1e-5
    assert found[0].source is None


def test_importance_is_the_gradient_of_a_gate():
    model = vit()
    found = ablate_heads(model, batches, loss, blocks=[0])[0].importance
    proj, step = model.blocks[0].attn.proj, 1e-3
    want = 0.0
    for pictures, targets in batches():
        moved = []
        for sign in (1, -1):
            hook = proj.register_forward_pre_hook(
                lambda _, args, s=sign: (
                    torch.cat([args[0][..., :8] * (1 + s * step), args[0][..., 8:]], -1),
                )
            )
            with torch.no_grad():
                moved.append(loss(model, pictures, targets).double())
            hook.remove()
        want += ((moved[0] - moved[1]) / (2 * step)).abs().sum().item() / 4
    assert found[0] == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("overlap", {"overlap": "constant:2"}), ("talking", {}), ("imhsa", {"landmarks": 2}), ("dcmha", {})],
)
def test_a_source_takes_more_with_it_than_its_output(kind, options):
    model = vit(kind, **options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outputs = model(images(16))
    found = ablate_heads(model, batches, loss)[0]
    assert found.source is not None
    assert max(abs(a - b) for a, b in zip(found.source, found.output, strict=True)) > 1e-5
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(outputs, model(images(16)))


def test_neighbours_lose_what_they_borrow():
    """With its channels at 0, a head's neighbours see zeros, as the first and last head do at their outer sides."""
    model = vit("overlap", overlap="constant:2")
    layer = model.blocks[0].attn
    x = torch.randn(1, 17, 24)
    with layer.interaction.without_head(layer, 0), torch.no_grad():
        silent = layer.attention_weights(x)
        q, _, _ = layer.heads_of(x).split()
        assert q[:, 0].abs().max() == 0
    whole = layer.attention_weights(x)
    assert not torch.allclose(silent[:, 1], whole[:, 1])
    assert torch.allclose(silent[:, 2], whole[:, 2])
