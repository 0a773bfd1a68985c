"""Measures and maps of attention heads, of this library's models and of timm's; it looks, and changes nothing.

measure_heads(model, batches) -> [LayerMeasures]      what each measure is stands in crosshead.heads.measures
ablate_heads(model, batches, loss) -> [HeadAblation]
head_layers(model) -> [HeadLayer]; reading(model, layers, ...) to read them while a model runs
"""

from .ablation import HeadAblation, ablate_heads
from .attention_layers import HeadLayer, head_layers
from .calls import Call, reading
from .measuring import LayerMeasures, measure_heads
from .picture import attention_maps, gradient_maps, rollout

__all__ = [
    "Call",
    "HeadAblation",
    "HeadLayer",
    "LayerMeasures",
    "ablate_heads",
    "attention_maps",
    "gradient_maps",
    "head_layers",
    "measure_heads",
    "reading",
    "rollout",
]
