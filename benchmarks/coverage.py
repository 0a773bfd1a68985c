"""The share of timm's pretrained models whose attention can be replaced, and what happens to every class of it.

python benchmarks/coverage.py [--markdown docs/coverage.md] [--only 'vit_*']

Every architecture with pretrained weights is built on the meta device, without memory and without weights. Counted are
tags (``vit_small_patch16_dinov3.lvd1689m``), as users name them, whose models have attention of several heads; a tag is
served when at least one of its model's attention modules can overlap its heads. Classes count once a tag. Nothing is
downloaded.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import timm
import torch
from torch import nn

from crosshead.layers import HOSTS, Overlap, from_attention
from crosshead.swap import attention_modules

# Why classes without a host have none; the rest is "no host yet".
_ONE_QUERY = "one query, the class token"
_POOLS = "pools, does not mix tokens"
_FEWER_KEYS = "keys and values come from a smaller map than queries"
_CONVOLVES = "its projections are convolutions of a map"
WHY = {
    "XCA": "attends over channels: its heads have no tokens to weigh",
    "CrossCovarianceAttn": "attends over channels",
    "ChannelAttention": "attends over channels",
    "ChannelAttentionV2": "attends over channels",
    "ClassAttn": _ONE_QUERY,
    "ClassAttention": _ONE_QUERY,
    "CrossAttention": f"{_ONE_QUERY} of the other branch",
    "AttentionPoolLatent": _POOLS,
    "AttentionPool2d": _POOLS,
    "RotAttentionPool2d": _POOLS,
    "AttentionPoolPrr": _POOLS,
    "OutlookAttention": "its weights are predicted from the centre; there are no keys",
    "EfficientAdditiveAttention": "one global query; no pairs of tokens",
    "FactorAttnConvRelPosEnc": "linear attention: no pairs of tokens",
    "LiteMLA": "linear attention: no pairs of tokens",
    "LambdaLayer": "linear in a context of lambdas; no weights",
    "MaskUnitAttention": "queries are pooled: keys outnumber them",
    "MultiScaleAttention": "queries and keys are pooled differently",
    "EfficientAttention": _FEWER_KEYS,
    "GlobalSubSampleAttn": _FEWER_KEYS,
    "MultiQueryAttention2d": "all heads share one head of keys and values",
    "HaloAttn": "keys come from a wider window than queries",
    "Attention2d": _CONVOLVES,
    "ConvAttention": _CONVOLVES,
    "BottleneckAttn": _CONVOLVES,
    "AttentionDownsample": "queries are a smaller map than keys",
    "GPSA": "half of its weights come from positions alone, under a gate of each head",
    "CascadedGroupAttention": "each head is fed by the one before it",
    "nest.Attention": "its projection reads the heads' channels interleaved",
    "DiffAttention": "a head is the difference of two maps",
    "DiffParallelScalingBlock": "attention and MLP share one projection",
    "ParallelScalingBlock": "attention and MLP share one projection",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    parser.add_argument("--only", default="*", help="a pattern of models")
    given = parser.parse_args()

    tags: dict[str, list[str]] = defaultdict(list)
    for tag in timm.list_models(given.only, pretrained=True):
        tags[tag.split(".")[0]].append(tag)
    with_attention = served = 0
    classes: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # tags that have it, tags where it is served
    whys: dict[str, str] = {}
    for architecture, named in tags.items():
        found = classify(architecture)
        if not found:
            continue
        with_attention += len(named)
        served += len(named) * any(why is None for why in found.values())
        for name, why in found.items():
            classes[name][0] += len(named)
            classes[name][1] += len(named) * (why is None)
            if why is not None:
                whys[name] = why
    text = report(with_attention, served, classes, whys)
    print(text)
    if given.markdown:
        given.markdown.write_text(text)


def classify(architecture: str) -> dict[str, str | None]:
    """Every class of attention in a model, and why it is not served, or None where it is."""
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture)
    except Exception as error:  # a model that can't be built so is told, and not counted
        print(f"{architecture}: not built on the meta device: {type(error).__name__}: {error}")
        return {}
    found: dict[str, str | None] = {}
    for _, module in attention_modules(model):
        if not has_heads(module):
            continue
        name = f"{type(module).__module__.removeprefix('timm.')}.{type(module).__name__}"
        why = refusal(module)
        found[name] = why if name not in found or found[name] is not None else None
    return found


def _why(cls: type[nn.Module]) -> str:
    name = f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"
    return WHY.get(name) or WHY.get(cls.__name__) or "no host yet"


def has_heads(module: nn.Module) -> bool:
    """Whether a module that looks like attention has heads, and weights to make something of tokens with."""
    counted = isinstance(getattr(module, "num_heads", None), int) or type(module) in HOSTS
    return counted and "pos_embed" not in type(module).__module__


def refusal(module: nn.Module) -> str | None:
    if type(module) not in HOSTS:
        return _why(type(module))
    try:
        from_attention(module, Overlap(1))
    except ValueError as error:
        return str(error).split(", which")[0]
    return None


def report(with_attention: int, served: int, classes: dict[str, list[int]], whys: dict[str, str]) -> str:
    rows = sorted(classes.items(), key=lambda item: -item[1][0])
    share = served / max(with_attention, 1)
    lines = [
        "# Which attention can be replaced",
        "",
        f"Of timm {timm.__version__}'s {with_attention} pretrained tags with multi-head attention {served} are "
        f"served ({share:.0%}): at least one of the model's attention modules can have interacting heads. Written by "
        "`python benchmarks/coverage.py --markdown docs/coverage.md`; `no host yet` means that nobody wrote it.",
        "",
        "| class | tags | served | why not |",
        "| --- | ---: | ---: | --- |",
    ]
    lines += [f"| `{name}` | {tags} | {ok} | {whys.get(name, '')} |" for name, (tags, ok) in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
