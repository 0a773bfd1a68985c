"""A model's card, as hubs show it: what the model is, how it is loaded, and what else is known of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import nn

from crosshead.models.transformers_models import is_named
from crosshead.swap import interactions_of

from .repository import PREFIX, Repository

MARK = "<!-- written by crosshead -->"
PAPERS = {"overlap": "2410.14874", "imhsa": "2402.17507"}
_MOST_NAMES = 20  # of classes


@dataclass(frozen=True)
class Known:
    """What is known of a model beside itself: ``about`` it in half a sentence, ``sections`` of Markdown by title, its
    ``limits`` as sentences, and ``metadata`` for the head of the card (``huggingface_hub.ModelCardData``)."""

    about: str = "a model of pictures"
    sections: Mapping[str, str] = field(default_factory=dict)
    limits: Sequence[str] = (
        "What it learned from and how well it does is not recorded here: judge it on pictures of your own.",
    )
    metadata: Mapping[str, Any] = field(default_factory=dict)


def card(model: nn.Module, config_file: Path, repository: Repository, known: Known | None = None) -> str:
    """The text of README.md, for a model that was saved with ``config_file``."""
    known = known or Known()
    config = json.loads(config_file.read_text())
    title = repository.name.partition("/")[2]
    sections = {
        "Model": _model(model, config),
        "Use": _use(config, repository),
        **known.sections,
        "Limits": "\n".join(f"- {each}" for each in known.limits),
    }
    text = "".join(f"\n## {name}\n\n{body.strip()}\n" for name, body in sections.items() if body)
    opening = f"{MARK}\n\n# {title}\n\n{_opening(model, config, known)}\n"
    return f"---\n{_head(model, config, title, known)}\n---\n{opening}{text}"


def _head(model: nn.Module, config: Mapping[str, Any], title: str, known: Known) -> str:
    from huggingface_hub import ModelCardData

    timms = not is_named(config["architecture"])
    tags = ["crosshead", *(["timm"] if timms else ["transformers"]), "vision-transformer", *_kinds(model)]
    data = ModelCardData(
        library_name="crosshead",
        tags=tags,
        **{"model_name": title} | dict(known.metadata),  # type: ignore[arg-type]
    )
    out: str = data.to_yaml()
    return out.strip()


def _opening(model: nn.Module, config: Mapping[str, Any], known: Known) -> str:
    kinds = _kinds(model)
    heads = f", its heads interacting ({', '.join(kinds)})" if kinds else ""
    return f"`{_architecture(config)}`{heads}: {known.about}."


def _architecture(config: Mapping[str, Any]) -> str:
    name: str = config["model_args"].get("name", config["architecture"])
    return name


def _kinds(model: nn.Module) -> list[str]:
    return list(dict.fromkeys(each["kind"] for each in interactions_of(model)))


def _model(model: nn.Module, config: Mapping[str, Any]) -> str:
    cfg, lines = config["pretrained_cfg"], []
    lines.append(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    lines += [_interaction(kind, list(layers)) for kind, layers in groupby(interactions_of(model), key=_kind)]
    if "input_size" in cfg:
        lines.append("pictures of " + " x ".join(map(str, cfg["input_size"])) + " (channels, height, width)")
    for key, what in (("mean", "mean"), ("std", "standard deviation"), ("interpolation", "resized by")):
        if key in cfg:
            value = cfg[key] if isinstance(cfg[key], str) else ", ".join(f"{each:g}" for each in cfg[key])
            lines.append(f"{what}: {value}")
    if names := list(cfg.get("label_names", [])):
        more = f" and {len(names) - _MOST_NAMES} more (`config.json`)" if len(names) > _MOST_NAMES else ""
        lines.append(f"{len(names)} classes: {', '.join(map(str, names[:_MOST_NAMES]))}{more}")
    return "\n".join(f"- {line}" for line in lines)


def _kind(entry: Mapping[str, Any]) -> str:
    kind: str = entry["kind"]
    return kind


def _interaction(kind: str, layers: Sequence[Mapping[str, Any]]) -> str:
    options = [", ".join(f"{key} {value}" for key, value in each["options"].items()) for each in layers]
    what = options[0] if len(set(options)) == 1 else "; ".join(options)
    paper = f" ([arXiv {PAPERS[kind]}](https://arxiv.org/abs/{PAPERS[kind]}))" if kind in PAPERS else ""
    return f"{kind} in {len(layers)} layers{paper}" + (f": {what}" if what else "")


def _use(config: Mapping[str, Any], repository: Repository) -> str:
    address = f'"{PREFIX}{repository.name}"'
    text = f"""`pip install 'crosshead[hub]'`, then

```python
import crosshead

model = crosshead.load({address})  # in evaluation mode
```
"""
    if is_named(config["architecture"]):
        return text
    text += f"""
timm builds it too, once `crosshead` is imported:

```python
import crosshead, timm

model = timm.create_model({address}, pretrained=True).eval()
```
"""
    if config["pretrained_cfg"].get("input_size", [3])[0] == 3:
        text += """
Pictures are prepared by `timm.data.create_transform(**timm.data.resolve_model_data_config(model))`.
"""
    return text
