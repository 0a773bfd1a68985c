"""The share of timm's, torchvision's and transformers' models whose attention can be replaced, class by class.

python benchmarks/coverage.py [--markdown docs/coverage.md] [--only 'vit_*'] [--of timm torchvision transformers]

Every architecture with pretrained weights is built on the meta device, without memory and without weights. Counted are
timm's tags (``vit_small_patch16_dinov3.lvd1689m``), torchvision's classifiers and transformers' types of models of
pictures alone, as users name them, that have attention of several heads; one is served when the heads of at least one
of its attention modules can interact, by overlap or another kind. Classes count once a tag, classifier or type.
Nothing is downloaded.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import nn

from crosshead.layers import INTERACTIONS, Interaction, Overlap, from_attention
from crosshead.layers.registry import host_of
from crosshead.swap import attention_modules

# Why classes without a host have none; the rest is "no host yet".
_ONE_QUERY = "one query, the class token"
_POOLS = "pools, does not mix tokens"
_LINEAR = "linear attention: no pairs of tokens"
WHY = {
    "davit.ChannelAttention": "attends over channels; the blocks between attend in windows, and are served",
    "ChannelAttentionV2": "attends over channels; the blocks between attend in windows, and are served",
    "ClassAttn": _ONE_QUERY,
    "ClassAttention": _ONE_QUERY,
    "CrossAttention": f"{_ONE_QUERY} of the other branch",
    "AttentionPoolLatent": _POOLS,
    "AttentionPool2d": _POOLS,
    "RotAttentionPool2d": _POOLS,
    "AttentionPoolPrr": _POOLS,
    "OutlookAttention": "its weights are predicted from the centre; there are no keys",
    "EfficientAdditiveAttention": "one global query; no pairs of tokens",
    "FactorAttnConvRelPosEnc": _LINEAR,
    "LiteMLA": _LINEAR,
    "LinearSelfAttention": f"{_LINEAR}, one head",
    "LambdaLayer": "linear in a context of lambdas; no weights",
    "HaloAttn": "keys come from a wider window than queries, and there is no projection behind the heads",
    "BottleneckAttn": "there is no projection behind the heads",
    "AttentionDownsample": "queries are a smaller map than keys; the blocks between are served",
    "efficientformer_v2.Attention2d": "its heads talk already, beside a convolution of its values",
    "Attention2dDownsample": "queries are a smaller map, beside a convolution of its values",
    "GPSA": "half of its weights come from positions alone, under a gate of each head",
    "CascadedGroupAttention": "each head is fed by the one before it",
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
    parser.add_argument("--of", nargs="+", choices=SOURCES, default=list(SOURCES), help="whose models")
    given = parser.parse_args()

    text = HEADING + "".join(counted(source, given.only) for source in given.of)
    print(text)
    if given.markdown:
        given.markdown.write_text(text)


# A name, how many tags it stands for, and what builds it.
Models = Iterator[tuple[str, int, Callable[[], nn.Module]]]


def of_timm(only: str) -> Models:
    tags: dict[str, int] = defaultdict(int)
    for tag in timm.list_models(only, pretrained=True):
        tags[tag.split(".")[0]] += 1
    for architecture, count in tags.items():
        yield architecture, count, lambda name=architecture: timm.create_model(name)


def of_torchvision(only: str) -> Models:
    import torchvision

    for name in torchvision.models.list_models(module=torchvision.models, include=only):
        yield name, 1, lambda name=name: torchvision.models.get_model(name, weights=None)


def of_transformers(only: str) -> Models:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    transformers.logging.set_verbosity_error()
    for config in MODEL_MAPPING:
        try:
            cls = MODEL_MAPPING[config]
            cls = cls[0] if isinstance(cls, tuple) else cls
            of_pictures = cls.main_input_name == "pixel_values" and set(cls.input_modalities) == {"image"}
        except (
            ImportError,
            ValueError,
        ):  # wants a package that is not there, or a class of theirs that isn't
            continue
        if of_pictures and fnmatch(config.model_type, only):
            yield config.model_type, 1, lambda cls=cls, config=config: cls(config())


SOURCES = {
    "timm": (of_timm, "pretrained tags"),
    "torchvision": (of_torchvision, "classifiers"),
    "transformers": (of_transformers, "types of models of pictures"),
}


def counted(source: str, only: str) -> str:
    """The part of the report about one package."""
    models, unit = SOURCES[source]
    with_attention = served = overlapped = 0
    # Tags that have it, tags where its heads can interact, tags where they can overlap.
    classes: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    whys: dict[str, str] = {}
    for name, count, build in models(only):
        found = classify(name, build)
        if not found:
            continue
        with_attention += count
        served += count * any(verdict.served for verdict in found.values())
        overlapped += count * any(verdict.why is None for verdict in found.values())
        for cls, verdict in found.items():
            classes[cls][0] += count
            classes[cls][1] += count * verdict.served
            classes[cls][2] += count * (verdict.why is None)
            if verdict.why is not None:
                whys[cls] = verdict.why
    return report(source, unit, (with_attention, served, overlapped), classes, whys)


class Verdict(NamedTuple):
    """Whether the heads of a module can interact, and why they can't overlap; None where they can."""

    served: bool
    why: str | None


def classify(name: str, build: Callable[[], nn.Module]) -> dict[str, Verdict]:
    """Every class of attention in a model; of several modules of a class the one of which most can be had."""
    try:
        with torch.device("meta"):
            model = build()
    except Exception as error:  # a model that can't be built so is told, and not counted
        print(f"{name}: not built on the meta device: {type(error).__name__}: {str(error).splitlines()[:1]}")
        return {}
    found: dict[str, Verdict] = {}
    for _, module in attention_modules(model):
        if not has_heads(module):
            continue
        name = shown(type(module))
        if name not in found or found[name].why is not None:
            verdict = judged(module)
            if name not in found or (verdict.served and (verdict.why is None or not found[name].served)):
                found[name] = verdict
    return found


def shown(cls: type[nn.Module]) -> str:
    """A class as the table names it."""
    where = cls.__module__.removeprefix("timm.").removeprefix("torchvision.models.")
    if where.startswith("transformers.models."):
        where = where.split(".")[2]
    return f"{where}.{cls.__name__}"


def _why(cls: type[nn.Module]) -> str:
    name = f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"
    why = WHY.get(name) or WHY.get(cls.__name__)
    if why is None and cls.__module__.startswith("transformers."):
        from crosshead.layers.hosts.transformers_classes import unknown_names

        unknown = unknown_names(cls)
        more = f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
        return f"says {', '.join(unknown[:4])}{more}" if unknown else "does not use the common interface"
    return why or "no host yet"


def has_heads(module: nn.Module) -> bool:
    """Whether a module that looks like attention has heads, and weights to make something of tokens with."""
    names = ("num_heads", "num_attention_heads")
    counts = any(isinstance(getattr(module, name, None), int) for name in names)
    return (counts or host_of(type(module)) is not None) and "pos_embed" not in type(module).__module__


def judged(module: nn.Module) -> Verdict:
    if host_of(type(module)) is None:
        return Verdict(False, _why(type(module)))
    why = refusal(module, Overlap(1))
    others = (cls.example() for kind, cls in INTERACTIONS.items() if kind != "overlap")
    return Verdict(why is None or any(refusal(module, other) is None for other in others), why)


def refusal(module: nn.Module, interaction: Interaction) -> str | None:
    try:
        from_attention(module, interaction, init="paper")
    except ValueError as error:
        return str(error).split(", which")[0]
    return None


HEADING = """# Which attention can be replaced

A model is served where the heads of at least one of its attention modules can interact, by overlap or by another kind;
[hosts_and_interactions.md](hosts_and_interactions.md) says which. Written by `python benchmarks/coverage.py --markdown
docs/coverage.md`; `no host yet` means that nobody wrote it. A class of transformers has a host where its `forward` says
nothing that this library doesn't know; what it says beside is named.
"""


def report(
    source: str,
    unit: str,
    counts: tuple[int, int, int],
    classes: dict[str, list[int]],
    whys: dict[str, str],
) -> str:
    with_attention, served, overlapped = counts
    rows = sorted(classes.items(), key=lambda item: -item[1][0])
    share = served / max(with_attention, 1)
    lines = [
        "",
        f"## {source} {import_module(source).__version__.partition('+')[0]}",
        "",
        f"Of {with_attention} {unit} with multi-head attention {served} are served ({share:.0%}), "
        f"{overlapped} of them by overlap too.",
        "",
        f"| class | {unit.split()[-1] if source != 'transformers' else 'types'} | served | overlap | why not |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    lines += [f"| `{name}` | {tags} | {ok} | {o} | {whys.get(name, '')} |" for name, (tags, ok, o) in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
