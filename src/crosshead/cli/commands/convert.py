"""``crosshead convert``: a checkpoint of the MOHSA authors' code, as safetensors for this library's model."""

import argparse
import json
from pathlib import Path
from typing import Any

from crosshead.cli.arguments.options import Commands

_EPILOG = """\
example:
  crosshead convert ckpt_epoch_99.pth vit_tiny.safetensors
  crosshead train vit_tiny_16_224_imagenet model.init_from=vit_tiny.safetensors
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "convert",
        help="turn a checkpoint of the MOHSA authors' code into safetensors",
        usage="crosshead convert CHECKPOINT.pth [OUT.safetensors] [options]",
        description="Reads a checkpoint of the MOHSA authors' code, running nothing in it; writes the weights as\n"
        "safetensors and prints the model that they belong to, as a recipe's section.",
        epilog=_EPILOG,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT.pth")
    parser.add_argument("out", nargs="?", metavar="OUT.safetensors", help="default: beside the checkpoint")
    parser.add_argument("--num-heads", type=int, metavar="N", help="heads, where the widths don't tell them")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    source = Path(args.checkpoint)
    if not source.is_file():
        raise ValueError(f"{source}: no such file; expected a checkpoint of the authors' code (.pth)")
    if source.suffix == ".safetensors":
        raise ValueError(
            f"{source} is safetensors already; a recipe starts from it with model.init_from={source}"
        )
    out = Path(args.out) if args.out else source.with_suffix(".safetensors")
    if out.exists() and out.samefile(source):
        raise ValueError(f"{out} is the checkpoint itself, which would be lost; name another file")
    if out.exists() and not args.force:
        raise ValueError(f"{out} is there already; name another file, or replace it with --force")

    from safetensors.torch import save_file

    from crosshead.models import load_authors_checkpoint
    from crosshead.recipe.yaml import write_document

    loaded = load_authors_checkpoint(source, num_heads=args.num_heads)
    weights = {name: tensor.contiguous() for name, tensor in loaded.model.state_dict().items()}
    save_file(weights, out, metadata={"model": loaded.name, "args": json.dumps(loaded.args)})
    count = sum(tensor.numel() for tensor in weights.values())
    print(f"# {out}: {count:,} numbers in {len(weights)} tensors, {loaded.args['num_classes']} classes")
    print("# A recipe's model section that starts from them:")
    print(write_document({"model": model_section(loaded.name, loaded.args, out)}), end="")
    return 0


def model_section(name: str, args: dict[str, Any], weights: Path) -> dict[str, Any]:
    """What a recipe says of the model; classes, channels and image size come from its data."""
    rest = {key: value for key, value in args.items() if key not in ("overlap", "num_classes", "img_size")}
    return {"name": name, "overlap": args["overlap"], "args": rest, "init_from": str(weights)}
