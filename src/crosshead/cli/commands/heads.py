"""``crosshead heads``: how a model's heads differ, layer by layer, in numbers."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands
from crosshead.cli.arguments.viewed import Viewed, add_viewed, open_viewed

if TYPE_CHECKING:
    from torch import Tensor

    from crosshead.heads import HeadAblation, LayerMeasures

_EPILOG = """\
examples:
  crosshead heads runs/digits_mohsa                     writes runs/digits_mohsa/heads.json, prints a table
  crosshead heads runs/digits_mohsa --masks --ablate
  crosshead heads runs/plain --against runs/mohsa_seed*
  crosshead heads vit_small_patch16_224 --weights vit.safetensors --pictures photos/
"""
HEADS_FILE = "heads.json"


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "heads",
        help="measure a model's attention heads",
        usage="crosshead heads RUN [options]",
        description="Measures distance, entropy, similarity and diversity of a model's heads over its own images.",
        epilog=_EPILOG,
    )
    parser.add_argument("words", nargs="*", metavar="RUN", help="the folder of a run, or a timm model")
    parser.add_argument("--images", type=int, default=256, metavar="N", help="how many images (default: 256)")
    parser.add_argument("--split", metavar="S", help="of which split (default: test, or validation without one)")
    parser.add_argument("--pictures", metavar="DIR", help="pictures to use instead of the run's data")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images at a time (default: 32)")
    parser.add_argument("--queries", type=int, metavar="N", help="queries of each map (default: all up to 1,024, then 256)")
    parser.add_argument("--masks", action="store_true", help="alignment with the objects, where the data marks them")
    parser.add_argument("--ablate", action="store_true", help="the loss without each head, and how it leans on each")
    parser.add_argument("--against", nargs="+", default=[], metavar="RUN", help="runs of another recipe to compare with")
    parser.add_argument("--output", metavar="FILE", help=f"where the numbers go (default: RUN/{HEADS_FILE})")
    add_viewed(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if not args.words:
        raise ValueError("wanted the folder of a run: crosshead heads RUN")
    for name, number in (("--images", args.images), ("--batch-size", args.batch_size)):
        if number < 1:
            raise ValueError(f"{name}: wanted at least 1, came {number}")
    if args.against:
        from crosshead.cli.commands.heads_against import compare_runs

        return compare_runs(args.words, args)
    if len(args.words) > 1:
        raise ValueError(f"wanted one run, came {' and '.join(args.words)}; several are compared with --against")
    found = measure_run(args.words[0], args)
    file = Path(args.output) if args.output else default_file(args.words[0])
    file.write_text(json.dumps(found, indent=1, allow_nan=True) + "\n")
    print_table(found)
    print(f"all numbers, head by head: {file}")
    return 0


def default_file(word: str) -> Path:
    return Path(word) / HEADS_FILE if Path(word).is_dir() else Path(f"{word}.{HEADS_FILE}")


def measure_run(word: str, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that is asked of one model, as plain data."""
    from crosshead.heads import ablate_heads, measure_heads

    viewed = open_viewed(word, args)
    images, split = _images(viewed, args)
    layers = measure_heads(viewed.model, images(masks=args.masks), queries=args.queries)
    found: dict[str, Any] = {
        "model": viewed.name,
        "split": split,
        "images": min(args.images, images.count),
        "layers": [asdict(layer) for layer in layers],
    }
    if args.ablate:
        if viewed.trained is None or args.pictures:
            raise ValueError("--ablate needs images with their classes: name a run, without --pictures")
        ablated = ablate_heads(viewed.model, lambda: images.labelled(), _loss)
        found["ablation"] = [asdict(layer) for layer in ablated]
    return found
