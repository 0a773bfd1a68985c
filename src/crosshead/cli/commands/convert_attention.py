"""``crosshead convert-attention``: a trained model's attention turned into another kind, taught by the model itself."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands, add_checkpoint, add_device, find_checkpoint

if TYPE_CHECKING:
    from crosshead.conversion.outcome import Conversion

_EPILOG = """\
examples:
  crosshead convert-attention runs/digits --to imhsa --landmarks 3
  crosshead convert-attention runs/pets --to imhsa --no-labels --match
  crosshead convert-attention vit_small_patch14_dinov2 --weights dino.safetensors --pictures photos/ --steps 240
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "convert-attention",
        help="turn a trained model's attention into another kind",
        usage="crosshead convert-attention RUN|MODEL --to KIND [options]",
        description="Swaps the attention of a trained model and distils the result from the model itself, all blocks\n"
        "at once. Tells what it keeps, what the same time of fine-tuning gives, and what both cost as images grow.",
        epilog=_EPILOG,
    )
    parser.add_argument("words", nargs="*", metavar="RUN|MODEL", help="the folder of a run, or a timm model")
    parser.add_argument(
        "--to", metavar="KIND", help="an interaction, such as imhsa (default)", default="imhsa"
    )
    parser.add_argument(
        "--landmarks", type=int, metavar="L", help="of imhsa: L x L averages of queries and keys (default: 7)"
    )
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--labels", action="store_true", default=None, help="half of the loss from labels (default for a RUN)"
    )
    labels.add_argument(
        "--no-labels", action="store_false", dest="labels", help="only from what the model says itself"
    )
    parser.add_argument(
        "--match", action="store_true", help="begin with a quarter of the steps layer by layer"
    )
    parser.add_argument("--epochs", type=float, metavar="E", help="of a RUN's training images (default: 2)")
    parser.add_argument("--pictures", metavar="DIR", help="of a MODEL: pictures to convert with")
    parser.add_argument("--weights", metavar="FILE", help="of a MODEL: its weights (safetensors or .pth)")
    parser.add_argument("--steps", type=int, metavar="N", help="of a MODEL: steps (default: 240)")
    parser.add_argument(
        "--size", type=int, metavar="P", help="of a MODEL: pixels on a side (default: its own)"
    )
    parser.add_argument("--attention-only", action="store_true", help="of a MODEL: train attention alone")
    parser.add_argument(
        "--lr", metavar="R,...", help="rates to try; the best on validation images is told of"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of order and augmentation")
    parser.add_argument("--no-controls", action="store_true", help="leave plain fine-tuning out")
    parser.add_argument(
        "--out", metavar="DIR", help="the folder to save to (default: beside RUN, as NAME-KIND)"
    )
    add_checkpoint(parser)
    add_device(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if len(args.words) != 1:
        raise ValueError(f"expected one run or model, got {' and '.join(args.words) or 'none'}")
    options: dict[str, Any] = {}
    if args.landmarks is not None:
        if args.to != "imhsa":
            raise ValueError(f"--landmarks is of imhsa, and --to is {args.to}; leave it out")
        options["landmarks"] = args.landmarks
    word = args.words[0]
    is_run = Path(word).exists()
    _check_which(args, word, is_run)
    out = Path(args.out or (f"{Path(word)}-{args.to}" if is_run else f"{word}-{args.to}"))
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is there already and not empty; name another folder with --out")
    found, saving = (_of_run if is_run else _of_model)(word, args, options)

    import crosshead

    crosshead.save(found.model, out, **saving)
    (out / "conversion.json").write_text(found.to_json() + "\n", encoding="utf-8")
    print_conversion(found)
    print(f"\n{out}: the model, for crosshead.load; all figures are in its conversion.json")
    return 0


def _check_which(args: argparse.Namespace, word: str, is_run: bool) -> None:
    """Options of the other kind of word are refused, never ignored."""
    of_model = ("pictures", "weights", "steps", "size", "attention_only")
    other = of_model if is_run else ("epochs", "no_controls", "checkpoint")
    given = [name for name in other if getattr(args, name)]
    if given:
        what = "a model" if is_run else "a run"
        raise ValueError(
            f"--{given[0].replace('_', '-')} is of {what}, and {word} is {'a run' if is_run else 'none'}; leave it out"
        )
    if not is_run and args.pictures is None:
        raise ValueError(
            f"{word} is no folder, and a model of timm's needs pictures to be converted with: pass --pictures DIR"
        )
    if not is_run and args.labels:
        raise ValueError("--labels: pictures of a folder have none; convert a run, or pass --no-labels")


def _rates(text: str | None, default: tuple[float, ...]) -> tuple[float, ...]:
    try:
        found = default if text is None else tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < rate < 1 for rate in found):
        raise ValueError(f"--lr: expected rates between 0 and 1, such as 1e-3,2.5e-4, got {text!r}")
    return found


def _of_run(
    word: str, args: argparse.Namespace, options: dict[str, Any]
) -> "tuple[Conversion, dict[str, Any]]":
    from crosshead.conversion.of_run import convert_run
    from crosshead.train.inference import load_run, preparation_of

    run, checkpoint = find_checkpoint(word)
    checkpoint = args.checkpoint or checkpoint
    found = convert_run(
        run, args.to, epochs=2.0 if args.epochs is None else args.epochs, match=args.match,
        labels=args.labels is not False, lrs=_rates(args.lr, (1e-3, 2.5e-4)), seed=args.seed,
        controls=not args.no_controls, checkpoint=checkpoint, device=args.device, tell=_say, **options,
    )  # fmt: skip
    trained = load_run(run, checkpoint=checkpoint, device="cpu")
    preparation = preparation_of(trained)
    return found, {"classes": preparation.pop("label_names"), "preparation": preparation}


def _of_model(
    word: str, args: argparse.Namespace, options: dict[str, Any]
) -> "tuple[Conversion, dict[str, Any]]":
    import timm

    from crosshead.cli.commands.predict import find_pictures
    from crosshead.conversion.of_pictures import convert_on_pictures
    from crosshead.models import load_weights
    from crosshead.train.loop.devices import choose_device

    if not timm.is_model(word):
        raise ValueError(f"{word} is neither the folder of a run nor a model of timm's")
    rates = _rates(args.lr, (1e-3,))
    if len(rates) > 1:
        raise ValueError(
            "--lr: of a model without labels one rate is tried, since nothing chooses between them"
        )
    more = {} if args.size is None else {"img_size": args.size}
    model = timm.create_model(word, pretrained=args.weights is None, **more)
    if args.weights is not None:
        load_weights(model, args.weights, new_classifier=False)
    model = model.to(choose_device(args.device or "auto", 0)).eval()
    files = find_pictures([args.pictures])
    found = convert_on_pictures(
        model, files, args.to, steps=240 if args.steps is None else args.steps, match=args.match, lr=rates[0],
        attention_only=args.attention_only, seed=args.seed, tell=_say, **options,
    )  # fmt: skip
    return found, {"args": more}


def _say(line: str) -> None:
    print(line, flush=True)


def print_conversion(found: "Conversion") -> None:
    """The table of ways, that of costs, and what may be said."""
    from rich.table import Table

    from crosshead.cli.terminal.console import table_console

    ways = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("", "steps", "seconds", "rate", "validation", found.measure):
        ways.add_column(title, justify="right" if title else "left")
    for row in found.rows:
        rate = "-" if row.lr is None else f"{row.lr:g}"
        held = "-" if row.validation is None else f"{row.validation:.2%}"
        ways.add_row(row.what, f"{row.steps:,}", f"{row.seconds:,.0f}", rate, held, f"{row.value:.2%}")
    table_console().print(ways)
    costs = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("one image of", "model", "ms", "peak MiB beyond weights"):
        costs.add_column(title, justify="left" if title == "model" else "right")
    for cost in found.costs:
        told = (cost.refused, "-") if cost.refused else (f"{cost.ms:,.1f}", f"{cost.mib:,.1f}")
        costs.add_row(f"{cost.size[0]} x {cost.size[1]}", cost.model, *told)
    print()
    table_console().print(costs)
    print("  " + ", ".join(f"{key} {value}" for key, value in found.conditions.items()))
    print(f"\n{found.words()}")
