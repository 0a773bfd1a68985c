"""PEFT's adapters before and after a swap: they count, they learn, they are merged, saved and loaded."""

import peft
import pytest
import timm
import torch
from torch import nn

import crosshead
from crosshead import restore_attention, supported, swap_attention
from crosshead.heads import ablate_heads, attention_maps, measure_heads
from crosshead.swap import interaction_parameters
from crosshead.swap.sites import find_sites
from tolerances import OUTPUT, assert_close

KINDS = {
    "overlap": dict(overlap=2),
    "talking": {},
    "knocking": {},
    "dcmha": {},
    "iha": {},
    "reattention": dict(init="paper"),
    "imhsa": dict(init="paper", landmarks=2),
}


def vit(name="vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    small = dict(img_size=32, patch_size=8, depth=2, embed_dim=24, num_heads=3, num_classes=5)
    return timm.create_model(name, **small, **options).eval()


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def swapped(kind):
    model = vit()
    swap_attention(model, kind, **KINDS[kind])
    return model


def with_lora(model, *targets, **options):
    config = peft.LoraConfig(r=2, target_modules=list(targets), **options)
    return peft.get_peft_model(model, config).eval()


def stirred(model):
    """As after training: whatever learns has moved."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def dead(model):
    """Parameters that should learn and get no gradient."""
    model(images()).square().sum().backward()
    learning = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert learning
    return [name for name, p in learning if p.grad is None or not p.grad.abs().max() > 0]


@pytest.mark.parametrize("kind", KINDS)
def test_lora_after_a_swap_learns_is_saved_loaded_and_merged(kind, tmp_path):
    model = swapped(kind)
    want = model(images())
    adapted = with_lora(model, "qkv", "proj", modules_to_save=["head"])
    assert torch.equal(adapted(images()), want)
    out = stirred(adapted)(images())
    assert (out - want).abs().max() > 1e-2 and not dead(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(swapped(kind), tmp_path / "adapter").eval()
    assert torch.equal(again(images()), out)
    assert len(measure_heads(adapted, [images()])) == len(attention_maps(adapted, images()[:1])) == 2
    merged = adapted.merge_and_unload().eval()
    assert_close(merged(images()), out, OUTPUT[torch.float32])
    crosshead.save(merged, tmp_path / "merged")
    assert torch.equal(crosshead.load(tmp_path / "merged")(images()), merged(images()))
    assert restore_attention(merged) == 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].get("init") != "paper"])
def test_lora_before_a_swap_stays_and_learns_on_beside_what_is_new(kind, tmp_path):
    adapted = stirred(with_lora(vit(), "qkv", init_lora_weights=False))
    want = adapted(images())
    assert kind in supported(adapted)
    swap_attention(adapted, kind, **KINDS[kind])
    assert_close(adapted(images()), want, OUTPUT[torch.float32])
    new = interaction_parameters(adapted)
    assert new and all(parameter.requires_grad for parameter in new.values())
    with pytest.raises(ValueError, match=r"crosshead\.save"):  # the adapter's files have no place for them
        adapted.save_pretrained(tmp_path)
    out = stirred(adapted)(images())
    merged = adapted.merge_and_unload().eval()
    assert_close(merged(images()), out, OUTPUT[torch.float32])
    crosshead.save(merged, tmp_path / "merged")
    assert torch.equal(crosshead.load(tmp_path / "merged")(images()), merged(images()))


def test_what_interactions_learn_is_named():
    model = swapped("talking")
    names = [f"blocks.{b}.attn.proj_{x}.{y}" for b in (0, 1) for x in "lw" for y in ("weight", "bias")]
    assert list(interaction_parameters(model)) == names
    assert list(interaction_parameters(swapped("knocking"))) == ["blocks.0.attn.knock", "blocks.1.attn.knock"]
    assert not interaction_parameters(vit())


@pytest.mark.parametrize(
    ("kind", "modules"),
    [("talking", ["proj_l", "proj_w"]), ("reattention", ["reattention_mix", "reattention_norm"])],
)
def test_modules_of_an_interaction_are_trained_whole_and_saved(kind, modules, tmp_path):
    model = swapped(kind)
    want = model(images())
    adapted = with_lora(model, "qkv", modules_to_save=modules)
    assert_close(adapted(images()), want, OUTPUT[torch.float32])
    out = stirred(adapted)(images())
    lasting = [name for name in dead(adapted) if "bias" not in name]  # one bias cancels in the softmax
    assert not lasting
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(swapped(kind), tmp_path).eval()
    assert torch.equal(again(images()), out)
    assert_close(adapted.merge_and_unload().eval()(images()), out, OUTPUT[torch.float32])


@pytest.mark.parametrize("kind", ["talking", "reattention"])
def test_adapters_of_what_mixes_the_heads_count(kind):
    adapted = with_lora(swapped(kind), *({"talking": ["proj_l", "proj_w"]}.get(kind, ["reattention_mix"])))
    want = adapted(images())
    out = stirred(adapted)(images())
    assert (out - want).abs().max() > 1e-3 and not dead(adapted)
    assert_close(adapted.merge_and_unload().eval()(images()), out, OUTPUT[torch.float32])


def test_a_head_of_adapted_mixing_is_not_taken_away():
    adapted = with_lora(swapped("talking"), "proj_l")
    with pytest.raises(ValueError, match="merge adapters"):
        ablate_heads(
            adapted, lambda: [(images(), torch.tensor([0, 1]))], lambda m, x, y: m(x).square().sum(-1)
        )


def test_attention_that_is_trained_whole():
    adapted = with_lora(swapped("overlap"), "fc1", modules_to_save=["attn"])
    out = stirred(adapted)(images())
    assert len(measure_heads(adapted, [images()])) == 2
    assert [site.path.rpartition(".")[2] for site in find_sites(adapted)] == ["default", "default"]
    with pytest.raises(ValueError, match="put around the whole attention"):
        restore_attention(adapted)
    assert_close(adapted.merge_and_unload().eval()(images()), out, OUTPUT[torch.float32])


def test_adapters_around_attention_and_of_a_growing_projection_are_refused():
    whole = with_lora(vit(), "fc1", modules_to_save=["attn"])
    with pytest.raises(ValueError, match=r"put around the whole attention.*swap first"):
        swap_attention(whole)
    projection = with_lora(vit(), "qkv", "proj")
    with pytest.raises(ValueError, match="merge or remove what was added"):
        swap_attention(projection, overlap=2)
    assert "talking" in supported(projection) and "overlap" not in supported(projection)
    encoder = nn.Sequential(nn.TransformerEncoderLayer(24, 3, 32, batch_first=True))
    around = with_lora(encoder, "self_attn")  # PEFT computes attention itself there
    with pytest.raises(ValueError, match="put around the whole attention"):
        swap_attention(around)
    swap_attention(encoder := nn.Sequential(nn.TransformerEncoderLayer(24, 3, 32, batch_first=True)))
    with pytest.raises(
        ValueError, match="Only same embed"
    ):  # PEFT's words: it would pass over the interaction
        with_lora(encoder, "self_attn")


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "swinv2_tiny_window8_256"])
def test_adapters_count_where_a_bias_lies_apart(name):
    """timm's own modules read the weight past the adapter, which then learns nothing."""
    torch.manual_seed(0)
    sizes = dict(depth=1, num_heads=3)
    if "swin" in name:
        sizes = dict(depths=(1, 1), num_heads=(3, 3), window_size=4, img_size=64)
    model = timm.create_model(name, embed_dim=24, **sizes).eval()
    stirred(model)  # norms that start as zeros would hide it
    x = torch.randn(1, 3, *model.patch_embed.img_size)
    swap_attention(model, overlap=0)
    with torch.no_grad():
        want = model.forward_features(x)
        adapted = stirred(with_lora(model, "qkv"))
        out = adapted.base_model.model.forward_features(x)
        assert (out - want).abs().max() > 1e-3
        merged = adapted.merge_and_unload().eval()
        assert_close(merged.forward_features(x), out, OUTPUT[torch.float32])


def test_a_model_with_adapters_is_saved_merged(tmp_path):
    with pytest.raises(ValueError, match=r"merge_and_unload"):
        crosshead.save(with_lora(swapped("overlap"), "qkv"), tmp_path / "a")
    assert not (tmp_path / "a").exists()
