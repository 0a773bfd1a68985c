"""Heads of torchvision's detectors and segmentation-models-pytorch's segmenters, under the names that they have here.

The backbone of such a file is found by ``Weights.load_backbone``; this is about what stands on it.
"""

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .weights import Weights

_logger = logging.getLogger(__name__)

# Their names and ours; the first that fits counts.
_TORCHVISION = (
    (r"backbone\.fpn\.(inner_blocks|layer_blocks)\.", r"pyramid.neck.\1."),
    (r"backbone\.fpn\.extra_blocks\.p6\.", "pyramid.further.0."),
    (r"backbone\.fpn\.extra_blocks\.p7\.", "pyramid.further.1."),
    (r"(rpn|roi_heads|head)\.", r"net.\1."),
)
_SMP = ((r"segmentation_head\.0\.", "classifier."), (r"decoder\.", "decoder."))
_SEG_BLOCK = re.compile(r"decoder\.seg_blocks\.(\d+)\.")  # of its FPN, the coarsest level first
_MARKS = (("backbone.body.", _TORCHVISION), ("segmentation_head.", _SMP))
_SHOWN = 12


def load_foreign_heads(model: nn.Module, path: str | os.PathLike[str]) -> list[str]:
    """Loads what ``model``, a detector or segmenter, has the place for of the heads in a file of torchvision's or
    smp's; a warning lists what was left, and what starts anew for its shape. The names that were loaded; none where the
    file is not of theirs."""
    weights = Weights.read(path)
    own = model.state_dict()
    for state in weights.states:
        rules = next(
            (rules for mark, rules in _MARKS if any(name.startswith(mark) for name in state.tensors)), None
        )
        if rules is None:
            continue
        named = _renamed(state.tensors, rules)
        fitting = {
            new: state.tensors[old] for old, new in named.items() if _fits(own, new, state.tensors[old])
        }
        other_shape = [new for new in named.values() if new in own and new not in fitting]
        left = [old for old, new in named.items() if new not in own]
        model.load_state_dict(fitting, strict=False)
        _logger.warning("%s: %d tensors of its heads taken", weights.file, len(fitting))
        for names, what in ((other_shape, "of another shape, and started anew"), (left, "not used")):
            if names:
                shown = ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
                _logger.warning("%s: %d tensors of its heads %s: %s", weights.file, len(names), what, shown)
        return list(fitting)
    return []


def _fits(own: Mapping[str, Tensor], name: str, tensor: Tensor) -> bool:
    return name in own and own[name].shape == tensor.shape


def _renamed(tensors: Mapping[str, Any], rules: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Their names of all that is no backbone, and ours."""
    blocks = [int(found[1]) for name in tensors if (found := _SEG_BLOCK.match(name))]
    out = {}
    for name in tensors:
        if name.startswith(("backbone.body.", "encoder.")):
            continue
        if found := _SEG_BLOCK.match(name):  # ours have the finest level first
            out[name] = f"branches.{max(blocks) - int(found[1])}.{name[found.end() :]}"
            continue
        new = next(
            (re.sub(f"^{theirs}", ours, name) for theirs, ours in rules if re.match(theirs, name)), name
        )
        out[name] = new
    return out
