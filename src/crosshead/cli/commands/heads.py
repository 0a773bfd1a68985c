"""``crosshead heads``: how a model's heads differ, layer by layer, in numbers."""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from crosshead.cli.arguments.options import Commands
from crosshead.cli.inspect.inspected import add_inspected
from crosshead.cli.inspect.measured import finite, measure_run

_EPILOG = """\
examples:
  crosshead heads runs/digits_mohsa                     writes runs/digits_mohsa/heads.json, prints a table
  crosshead heads runs/digits_mohsa --masks --ablate
  crosshead heads runs/plain --against runs/mohsa               side by side, nothing tested
  crosshead heads runs/plain_s* --against runs/mohsa_s*         three seeds a side or more: what differs
  crosshead heads vit_small_patch16_224 --weights vit.safetensors --pictures photos/
  crosshead heads torchvision/vit_b_16 --weights vit_b_16.pth --pictures photos/
  crosshead heads dinov2/ --pictures photos/    a folder of transformers' save_pretrained, or of crosshead.save
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
    parser.add_argument(
        "words", nargs="*", metavar="RUN", help="the folder of a run or of a saved model, or a name"
    )
    parser.add_argument("--images", type=int, default=256, metavar="N", help="how many images (default: 256)")
    parser.add_argument(
        "--split", metavar="S", help="of which split (default: test, or validation without one)"
    )
    parser.add_argument("--pictures", metavar="DIR", help="pictures to use instead of the run's data")
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images at a time (default: 32)"
    )
    parser.add_argument(
        "--queries", type=int, metavar="N", help="queries of a map (default: all up to 1,024, then 256)"
    )
    parser.add_argument(
        "--masks", action="store_true", help="alignment with the objects, where the data marks them"
    )
    parser.add_argument(
        "--ablate", action="store_true", help="the loss without each head, and how it leans on each"
    )
    parser.add_argument("--against", nargs="+", default=[], metavar="RUN", help="another recipe's runs")
    parser.add_argument("--output", metavar="FILE", help=f"where the numbers go (default: RUN/{HEADS_FILE})")
    add_inspected(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if not args.words:
        raise ValueError("expected the folder of a run: crosshead heads RUN")
    check_counts(args, "images", "batch_size", "queries")
    if args.against:
        from crosshead.cli.inspect.measured import compare_runs

        return compare_runs(args.words, args)
    if len(args.words) > 1:
        raise ValueError(
            f"expected one run, got {' and '.join(args.words)}; several are compared with --against"
        )
    found = measure_run(args.words[0], args)
    file = Path(args.output) if args.output else default_file(args.words[0])
    file.write_text(json.dumps(finite(found), indent=1, allow_nan=False) + "\n")
    print_table(found)
    print(f"all numbers, head by head: {file}")
    return 0


def check_counts(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        number = getattr(args, name)
        if number is not None and number < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {number}")


def default_file(word: str) -> Path:
    return Path(word) / HEADS_FILE if Path(word).is_dir() else Path(f"{Path(word).name}.{HEADS_FILE}")


# Measure, heading, decimals. Lists are averaged over heads.
COLUMNS = (
    ("distance_ratio", "distance", 2),
    ("entropy", "entropy", 2),
    ("confidence", "confidence", 2),
    ("map_similarity_mean", "maps alike", 2),
    ("effective_heads_map", "by maps", 1),
    ("cka_mean", "CKA", 2),
    ("effective_heads_cka", "by CKA", 1),
    ("output_variance", "variance", 2),
    ("output_rank", "rank", 1),
    ("sink_share", "sink", 2),
    ("sink_value_norm", "its value", 2),
    ("change", "changed", 2),
    ("alignment", "alignment", 2),
)
_EXPLAINED = """\
distance: how far heads look, over uniform attention's; entropy: 1 is uniform; confidence: the largest weight of a row;
maps alike: cosine of two heads' centred maps; CKA: of two heads' outputs; by maps, by CKA: effective heads, how many
they amount to; variance: of the outputs between heads; rank: of a head's output, 1 where it hands the same to all
tokens; sink: attention on the token that draws most; its value: the norm of its value over the other tokens', near 0
where the head has nothing to take from it; changed: total variation between a head's map and the one that it has
alone."""


def print_table(found: dict[str, Any]) -> None:
    """One line a layer; means over its heads."""
    from rich.table import Table

    from crosshead.cli.terminal.console import table_console

    images = found["images"]
    print(f"{found['model']}, {images['count']} images of {images['split']}; means over heads")
    columns = [c for c in COLUMNS if any(c[0] in layer["values"] for layer in found["layers"])]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("block", "kind", "heads"):
        table.add_column(title, justify="left" if title == "kind" else "right")
    for _, title, _ in columns:
        table.add_column(title, justify="right")
    for layer in found["layers"]:
        cells = [_cell(layer["values"].get(name), decimals) for name, _, decimals in columns]
        table.add_row(str(layer["block"]), layer["kind"], str(layer["heads"]), *cells)
    table_console().print(table)
    print(_EXPLAINED)
    if any("alignment" in layer["values"] for layer in found["layers"]):
        print("alignment: of what a head looks at most with the objects; 0 is chance, 1 a match.")
    if any(layer["signed"] for layer in found["layers"]):
        print(
            "Mixed maps may be negative: their distance, entropy and confidence are those of their magnitudes."
        )
    if "ablation" in found:
        _print_ablation(found["ablation"])


def _print_ablation(layers: list[dict[str, Any]]) -> None:
    print("loss without a head, less the loss with it (the head whose loss is felt most, of each block):")
    for layer in layers:
        worst = max(range(len(layer["output"])), key=lambda head: layer["output"][head])
        source = "" if layer["source"] is None else f", as a source too {layer['source'][worst]:+.4f}"
        print(f"  block {layer['block']}: head {worst} {layer['output'][worst]:+.4f}{source}")


def _cell(value: Any, decimals: int) -> str:
    if value is None:
        return ""
    mean = fmean(value) if isinstance(value, list) else value
    return "" if mean != mean else f"{mean:.{decimals}f}"
