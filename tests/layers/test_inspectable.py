"""What looking into heads asks of an interaction: an error that names what is lacking, never a silent nothing."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import timm
import torch

from crosshead.heads import ablate_heads, head_layers, measure_heads
from crosshead.layers import INTERACTIONS, Inspectable, Interaction, from_attention


@dataclass(frozen=True)
class Mute(Interaction):
    """Computes, and says nothing of how."""

    kind: ClassVar[str] = "mute"

    def attend(self, layer, heads):
        q, k, v = heads.split()
        return ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)


def test_every_kind_of_this_library_can_be_looked_into():
    assert all(isinstance(cls.example(), Inspectable) for cls in INTERACTIONS.values())


def test_a_kind_that_says_nothing_is_named_with_what_it_lacks():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=3)
    model.blocks[0].attn = from_attention(model.blocks[0].attn, Mute(), init="paper")
    images = torch.randn(2, 3, 32, 32)
    assert model(images).shape == (2, 3)
    for look in (
        lambda: head_layers(model),
        lambda: measure_heads(model, [images]),
        lambda: ablate_heads(model, lambda: [(images, torch.zeros(2))], lambda m, x, y: m(x).sum(1)),
    ):
        with pytest.raises(
            ValueError, match="'mute' does not say how its heads attend: it has no operands, own_wei"
        ):
            look()
    with pytest.raises(ValueError, match="'mute' does not say what its values are multiplied by"):
        model.blocks[0].attn.attention_weights(torch.randn(1, 5, 192))


def test_the_older_name_of_a_module_warns():
    with pytest.warns(FutureWarning, match=r"crosshead\.heads\.picture\.rollout"):
        from crosshead.heads.looking import rollout
    assert callable(rollout)
