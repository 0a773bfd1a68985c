"""From a recipe's model section to a module."""

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import Attention

from crosshead.layers.hosts import PlainHost
from crosshead.models import build_model, load_weights
from crosshead.recipe.schema import InteractionConfig, ModelConfig

MICRO = dict(num_classes=3, in_chans=1, img_size=8)


def test_registered_model_with_its_schedule():
    model = build_model(ModelConfig(name="mohsa_vit_micro_patch2_32", overlap="reversed"), **MICRO)
    assert [b.attn.interaction.overlap for b in model.blocks] == [5, 4, 3, 2, 1, 0]
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def test_timm_model_with_swapped_attention():
    swap = InteractionConfig(kind="overlap", blocks=[0, 2])
    config = ModelConfig(name="vit_tiny_patch16_224", overlap=4, interaction=swap, args=dict(depth=3))
    model = build_model(config, num_classes=3, in_chans=3, img_size=(32, 64))
    assert [type(b.attn) for b in model.blocks] == [PlainHost, Attention, PlainHost]
    assert model(torch.randn(2, 3, 32, 64)).shape == (2, 3)


def test_convolutional_models_take_any_size():
    assert build_model(ModelConfig(name="resnet18"), num_classes=3, img_size=64)(
        torch.randn(2, 3, 64, 64)
    ).shape == (2, 3)


def test_starting_weights_come_before_the_swap_and_a_new_classifier_starts_anew(tmp_path):
    plain = ModelConfig(name="plain_vit_micro_patch2_32")
    donor = build_model(plain, num_classes=5, in_chans=1, img_size=8)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    config = ModelConfig(
        name=plain.name,
        overlap="index",
        interaction=InteractionConfig(),
        init_from=str(tmp_path / "donor.safetensors"),
    )
    model = build_model(config, **MICRO)
    assert torch.equal(model.blocks[1].attn.qkv.weight, donor.blocks[1].attn.qkv.weight)
    assert model.head.out_features == 3
    assert torch.allclose(
        model.eval().forward_features(torch.ones(1, 1, 8, 8)),
        donor.eval().forward_features(torch.ones(1, 1, 8, 8)),
        atol=1e-5,
    )


def test_settings_that_say_what_the_data_says_change_nothing():
    config = ModelConfig(
        name="mohsa_vit_micro_patch2_32", args={"num_classes": 3, "in_chans": 1, "img_size": [8, 8]}
    )
    assert build_model(config, **MICRO).head.out_features == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            dict(name="mohsa_vit_micro_patch2"),
            "no model 'mohsa_vit_micro_patch2'.*did you mean .*mohsa_vit_micro_patch2_32",
        ),
        (dict(name="plain_vit_micro_patch2_32", overlap=2), "has no overlapped heads; use a mohsa_"),
        (dict(name="mohsa_vit_micro_patch2_32", args=dict(heads=3)), "does not take .*'heads'"),
        (
            dict(name="mohsa_vit_micro_patch2_32", args=dict(num_classes=10)),
            "num_classes is 10, and the data has 3 classes: give the data",
        ),
        (
            dict(name="mohsa_vit_micro_patch2_32", args=dict(in_chans=3)),
            "in_chans is 3, and the images have 1",
        ),
        (
            dict(name="mohsa_vit_micro_patch2_32", args=dict(img_size=[8, 4])),
            r"img_size is \[8, 4\], and the images have a size of 8",
        ),
        (
            dict(name="mohsa_vit_micro_patch2_32", init_from="absent.safetensors"),
            "absent.safetensors: not a readable",
        ),
    ],
)
def test_bad_settings_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig(**config), **MICRO)


def test_weights_of_another_model(tmp_path):
    donor = build_model(ModelConfig(name="mohsa_vit_micro_patch2_32", overlap=1), **MICRO)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    model = build_model(ModelConfig(name="mohsa_vit_micro_patch2_32", overlap=2), **MICRO)
    before = model.head.weight.clone()
    with pytest.raises(
        ValueError,
        match=r"another model: blocks.0.attn.proj.weight has shape \(80, 90\), expected \(80, 100\)",
    ):
        load_weights(model, tmp_path / "donor.safetensors")
    assert torch.equal(model.head.weight, before)


def test_any_interaction_from_a_recipe():
    interaction = InteractionConfig.model_validate({"kind": "talking", "overlap": "index", "blocks": [1]})
    config = ModelConfig(name="vit_tiny_patch16_224", args=dict(depth=2), interaction=interaction)
    model = build_model(config, num_classes=3, in_chans=3, img_size=32)
    assert model.blocks[1].attn.interaction.options() == {"overlap": 1, "mode": "auto"}
    for wrong, message in (
        (dict(kind="imhsa"), "'imhsa' has no option 'overlap'"),
        (
            dict(kind="overlap", overlap=3),
            r"model.overlap is 2 and model.interaction.overlap 3; give one of them",
        ),
    ):
        config = ModelConfig(
            name="vit_tiny_patch16_224", overlap=2, interaction=InteractionConfig.model_validate(wrong)
        )
        with pytest.raises(ValueError, match=message):
            build_model(config, num_classes=3, in_chans=3, img_size=32)


def test_without_first_weights_no_file_is_read(monkeypatch):
    """A run's recipe may come from anyone."""
    import timm.models._factory as factory

    monkeypatch.setattr(factory, "load_checkpoint", lambda *args, **kwargs: pytest.fail("a file is read"))
    args = dict(depth=1, pretrained=True, checkpoint_path="/elsewhere.pth")
    build_model(
        ModelConfig(name="vit_tiny_patch16_224", args=args), num_classes=2, img_size=32, from_weights=False
    )
