"""timm's own ``save_for_hf`` on swapped models: what it writes builds them again, to the last bit."""

import json

import pytest
import timm
import torch
from timm.models import save_for_hf

from crosshead import restore_attention, swap_attention
from crosshead.swap import interactions_of

SMALL = dict(img_size=32, depth=2, embed_dim=24, num_heads=3, patch_size=8, num_classes=3)
pytestmark = pytest.mark.skipif(
    not hasattr(timm.create_model("resnet10t"), "_model_args"), reason="this timm does not remember arguments"
)


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit(name="vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    return timm.create_model(name, **SMALL | options).eval()


def there_and_back(model, folder):
    """Through timm's own functions, and what its file says that the model is."""
    save_for_hf(model, str(folder), safe_serialization=True)
    back = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert interactions_of(back) == interactions_of(model)
    assert torch.equal(back(images()), model(images()))
    return json.loads((folder / "config.json").read_text())["architecture"]


@pytest.mark.parametrize("kind", ["overlap", "imhsa", "talking"])
def test_a_swapped_model_comes_back_from_timms_folder(kind, tmp_path):
    model = vit(act_layer="relu", global_pool="avg")
    swap_attention(model, kind, init="paper")
    assert there_and_back(model, tmp_path / "a") == "crosshead_swapped"
    again = timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True).eval()
    assert there_and_back(again, tmp_path / "b") == "crosshead_swapped"
    restore_attention(again)
    assert there_and_back(again, tmp_path / "c") in ("crosshead_swapped", "vit_tiny_patch16_224")


def test_swaps_count_as_they_are_when_the_model_is_saved(tmp_path):
    model = vit()
    swap_attention(model, "overlap", overlap=1)
    swap_attention(model, "overlap", overlap=3, init="paper")
    model.reset_classifier(7)
    assert there_and_back(model, tmp_path / "a") == "crosshead_swapped"
    assert restore_attention(model) == 2
    assert there_and_back(model, tmp_path / "b") == "vit_tiny_patch16_224"


def test_models_that_are_registered_swapped_and_restored(tmp_path):
    model = timm.create_model("mohsa_vit_micro_patch4_32", overlap=2, num_classes=3, depth=2).eval()
    assert there_and_back(model, tmp_path / "a") == "mohsa_vit_micro_patch4_32"
    restore_attention(model)
    assert there_and_back(model, tmp_path / "b") == "crosshead_swapped"
    swap_attention(model, "knocking")
    assert there_and_back(model, tmp_path / "c") == "crosshead_swapped"
