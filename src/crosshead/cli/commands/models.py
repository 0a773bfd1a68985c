"""``crosshead models``: this library's entries in timm's registry, with their sizes."""

import argparse
import fnmatch
import itertools
import json
import warnings
from typing import Any

from crosshead.cli.arguments.options import Commands


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "models",
        help="list the models",
        description="Lists this library's models in timm's registry. A recipe can name any other timm model too.",
    )
    parser.add_argument("--filter", default="*", metavar="GLOB", help="only names like this: 'mohsa_vit_*'")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    from rich.table import Table

    from crosshead.cli.terminal.console import table_console

    names = [name for name in _own_models() if fnmatch.fnmatch(name, args.filter)]
    if not names:
        raise ValueError(f"no model is like {args.filter!r}; expected one of {', '.join(_own_models())}")
    models = [_describe(name) for name in names]
    if args.json:
        print(json.dumps(models, indent=2))
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for title in ("parameters", "image", "width", "blocks", "heads"):
        table.add_column(title, justify="right")
    for model in models:
        table.add_row(model["model"], f"{model['parameters']:,}", *_shape(model))
    table_console().print(table)
    print(
        "any other model of timm can be named too: its attention is swapped with model.interaction.kind=overlap"
    )
    return 0


def _shape(model: dict[str, Any]) -> list[str]:
    size = "x".join(map(str, model["image_size"]))
    return [size, *("-".join(map(str, model[key])) for key in ("widths", "blocks", "heads"))]


def _own_models() -> list[str]:
    """Those that a name alone builds; what a saved model is read by is none of them."""
    import timm

    from crosshead.swap import SWAPPED

    ours = [n for n in timm.list_models() if timm.model_entrypoint(n).__module__.startswith("crosshead.")]
    return [name for name in ours if name != SWAPPED]


def _describe(name: str) -> dict[str, Any]:
    """Sizes of the model, built without memory for its weights; lists have one entry a stage."""
    import timm
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # initialisers complain that meta tensors can't be filled
        model = timm.create_model(name)
    size = timm.get_pretrained_cfg_value(name, "input_size")
    assert size is not None, "every entry states its input size"
    attentions = [m for m in model.modules() if hasattr(m, "num_heads") and not hasattr(m, "blocks")]
    stages = [list(stage) for _, stage in itertools.groupby(attentions, key=_kind)]
    return {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image_size": list(size[1:]),
        "widths": [_width(stage[0]) for stage in stages],
        "blocks": [len(stage) for stage in stages],
        "heads": [stage[0].num_heads for stage in stages],
    }


def _kind(attention: Any) -> tuple[int, int, str]:
    return attention.num_heads, _width(attention), type(attention).__name__


def _width(attention: Any) -> int:
    return attention.proj.out_features
