"""Interacting attention in symbolic traces: one node, so that features can be extracted as from timm's models."""

import pytest
import torch
from timm.models._features_fx import create_feature_extractor
from timm.models.vision_transformer import VisionTransformer

from crosshead import swap_attention
from crosshead.layers import INTERACTIONS, InteractingAttention


def small_vit():
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5
    ).eval()


@pytest.mark.parametrize("kind", [*INTERACTIONS])
def test_features_are_extracted_by_graph(kind):
    model = small_vit()
    swap_attention(model, kind, init="paper")
    model.eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = []
    model.blocks[1].register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        model(images)
        found = create_feature_extractor(model, {"blocks.1": "tokens"})(images)
    assert torch.equal(found["tokens"], seen[0])


def test_a_layer_is_one_node():
    model = small_vit()
    swap_attention(model, "overlap", overlap=2)
    graph = torch.fx.symbolic_trace(model)
    layers = [name for name, module in model.named_modules() if isinstance(module, InteractingAttention)]
    assert [node.target for node in graph.graph.nodes if node.target in layers] == layers
