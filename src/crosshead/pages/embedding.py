"""The atlas of a model's heads as one HTML file, without a server, a network or anything beside it: numbers that a page
can hold, queries and keys in 8 bits, so that rows are computed there."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..heads.attention_layers import HeadLayer, head_layers
from ..heads.calls import Call, reading
from ..layers.grid_sources import prefix_names
from ..layers.interactions.inspectable import (
    AnyMixing,
    LandmarkMixing,
    MapMixing,
    PseudoHeadMixing,
    TokenMixing,
)
from ..layers.layer import Mixing
from ..swap import unwrapped


@torch.no_grad()
def embed_blocks(
    model: nn.Module, pictures: Tensor, blocks: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """The attention layers of ``model`` on ``pictures`` (P, C, H, W), as the page's ``engine.js`` reads them.

    Raises:
        ValueError: no attention that can be read, a block that isn't there, or a kind that the page can't compute.
    """
    model = unwrapped(model)
    layers = head_layers(model, blocks)
    found: dict[str, dict[str, Any]] = {}
    names = partial(prefix_names, model)
    was_training = model.training
    model.eval()
    try:
        with reading(
            model, layers, lambda call: found.update({call.layer.path: _block(call, len(pictures), names)})
        ):
            model(pictures)
    finally:
        model.train(was_training)
    return [found[layer.path] for layer in layers if layer.path in found]


def block_size(block: dict[str, Any]) -> int:
    """The characters that a block takes in the page, nearly."""
    if isinstance(block, dict):
        return sum(len(key) + 4 + block_size(value) for key, value in block.items())
    if isinstance(block, list):
        return sum(block_size(value) + 1 for value in block)
    return len(block) if isinstance(block, str) else 8


def _block(call: Call, pictures: int, names: Callable[[int], tuple[str, ...]]) -> dict[str, Any]:
    layer, heads, places = call.layer, call.heads, call.places
    view = layer.view
    q, k, _ = layer.inspected.operands(view, heads)
    own = (q.shape[-1] - view.head_dim) // 2
    mask = heads.window_mask
    if heads.attn_mask is not None or heads.is_causal:
        raise ValueError(
            f"block {layer.block} is called with a mask of its model's, which the page does not know"
        )
    mixing = layer.inspected.mixing(view, heads)
    if isinstance(mixing, LandmarkMixing) and (
        places.windows > 1 or heads.rotate is not None or heads.bias is not None
    ):
        raise ValueError(
            f"block {layer.block} attends to landmarks within windows, under rotations or a bias, which the page does "
            "not know; choose others with --block"
        )
    if isinstance(mixing, PseudoHeadMixing):
        raise ValueError(
            f"block {layer.block} attends in pseudo-heads (iha), which the page does not know; choose others "
            "with --block"
        )
    dynamic = mixing.matrices if isinstance(mixing, TokenMixing) else None
    return {
        "path": layer.path,
        "block": layer.block,
        "kind": layer.kind,
        "label": _label(layer),
        "heads": view.num_heads,
        "tokens": q.shape[2],
        "prefix": places.prefix,
        "prefixNames": list(names(places.prefix)),
        "rows": places.rows,
        "columns": places.columns,
        "windows": places.windows,
        # With the prefix, which lies nowhere, as what fills a window up.
        "places": None
        if places.windows == 1
        else _base64(F.pad(places.tokens, (places.prefix, 0), value=-1).to(torch.int32)),
        "width": q.shape[-1],
        "own": [own, own + view.head_dim],
        "scale": float(heads.scale),
        "bias": None if heads.bias is None else _packed(heads.bias, bits=16),
        "mask": None if mask is None else _base64((mask == 0).to(torch.uint8)),
        "signed": layer.inspected.signed(heads),
        **_plain(_named(mixing)),
        "sights": [_sight(q, k, dynamic, i, pictures) for i in range(pictures)],
    }


def _named(mixing: AnyMixing | None) -> dict[str, Any]:
    """A mixing as the page's ``engine.js`` names its parts."""
    named: dict[str, Any] = {"talking": None, "landmarks": None, "theta": None}
    match mixing:
        case Mixing():
            named["talking"] = dict(zip(("pre", "preBias", "post", "postBias"), mixing, strict=True))
        case LandmarkMixing():
            named["landmarks"] = dict(zip(("rows", "columns", "mixQuery", "mixKey"), mixing, strict=True))
        case MapMixing():
            named["theta"] = mixing._asdict()
        case TokenMixing() | None:
            pass
    return named


def _sight(q: Tensor, k: Tensor, dynamic: Tensor | None, picture: int, pictures: int) -> dict[str, Any]:
    windows = len(q) // pictures
    part = slice(picture * windows, (picture + 1) * windows)
    matrices = None if dynamic is None else _packed(dynamic[part], bits=16)
    return {"q": _packed(q[part]), "k": _packed(k[part]), "matrices": matrices}


def _label(layer: HeadLayer) -> str:
    return f"{layer.words}; {layer.view.num_heads} heads of {layer.view.head_dim}"


def _plain(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items()}
    return _base64(values.float()) if isinstance(values, Tensor) else values


def _packed(x: Tensor, bits: int = 8) -> dict[str, Any]:
    """Whole numbers of 8 or 16 bits with a factor for each row of the last axis."""
    x = x.detach().float().cpu()
    limit = 2 ** (bits - 1) - 1
    factors = (x.abs().amax(-1, keepdim=True) / limit).clamp(min=torch.finfo(torch.float32).tiny)
    whole = (x / factors).round().to(torch.int8 if bits == 8 else torch.int16)
    return {"bits": bits, "bytes": _base64(whole), "factors": _base64(factors), "width": x.shape[-1]}


def _base64(x: Tensor) -> str:
    return base64.b64encode(x.detach().cpu().contiguous().numpy().tobytes()).decode()


_SCRIPTS = (
    "engine.js",
    "colours.js",
    "data.js",
    "numbers.js",
    "marks.js",
    "panels.js",
    "cells.js",
    "theme.js",
    "view.js",
)


def atlas_page(title: str, notes: str, data: dict[str, Any]) -> str:
    """The atlas of ``data`` (as ``crosshead.pages.embedding`` makes it) as one HTML file.

    The page's policy admits its own script, named by its hash, its style, and pictures within it; nothing else.
    """
    script = _bundle()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(title),
        "notes": html.escape(notes),
        "style": _part("style.css"),
        "script": script,
        "script_hash": f"sha256-{digest}",
        # Inside a script element only its end tag, or a comment's start, could end the data.
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    # In one pass, so that nothing in a title or in the data is taken for a place of the template.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("index.html"))


def _bundle() -> str:
    """The modules as one, in an order in which each stands after what it uses."""
    text = "\n".join(_part(name) for name in _SCRIPTS)
    text = re.sub(r"^import .*?;$", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def _part(name: str) -> str:
    return (resources.files("crosshead.pages") / "atlas" / name).read_text(encoding="utf-8")
