"""``crosshead probe``: what kinds of heads can do, on small tasks made for it."""

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands

if TYPE_CHECKING:
    from crosshead.probes import ProbeReport

_EPILOG = """\
examples:
  crosshead probe                                             the probes there are, and what they ask
  crosshead probe recall --seeds 0-2
  crosshead probe recall attributes=3 --kinds plain,overlap:1,imhsa:4 --heads 8 --width 16
  crosshead probe pairs --kinds plain@8,plain@4,plain@2,talking@8 --page

A kind is plain, or KIND[:VALUE][:OPTION=VALUE ...]: overlap:2, dcmha:init=preserve, imhsa:4:interaction=false;
with @N at that number of heads alone.
Controls of equal parameters and of equal time are trained beside every kind that gains.
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "probe",
        help="what kinds of heads can do, in seconds",
        usage="crosshead probe [PROBE] [OPTION=VALUE ...] [options]",
        description="Trains small models on a task that tells kinds of heads apart, and shows all seeds of each.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "words", nargs="*", metavar="PROBE OPTION=VALUE", help="a probe, and options of it; none: lists them"
    )
    parser.add_argument(
        "--kinds",
        default="plain,overlap:1,talking",
        metavar="A,B,...",
        help="default: plain,overlap:1,talking",
    )
    parser.add_argument("--heads", metavar="N,...", help="numbers of heads, each tried with every kind")
    parser.add_argument("--width", type=int, metavar="D", help="channels of the model")
    parser.add_argument("--depth", type=int, metavar="L", help="blocks")
    parser.add_argument("--attributes", type=int, metavar="M", help="the same as attributes=M")
    parser.add_argument("--seeds", default="0", metavar="0-4", help="0-4, or 0,1,2 (default: 0)")
    parser.add_argument("--steps", type=int, metavar="N", help="training steps")
    parser.add_argument("--host", metavar="CLASS", help="another timm class of attention: beit.Attention")
    parser.add_argument("--no-controls", action="store_true", help="no controls beside gains")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: the cores there are)")
    parser.add_argument(
        "--import", action="append", default=[], dest="modules", metavar="MODULE", help="that registers more"
    )
    parser.add_argument("--output", metavar="DIR", help="for the files (default: runs/probe-PROBE)")
    parser.add_argument("--page", action="store_true", help="write an HTML page too")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    import importlib

    from crosshead.probes import PROBES, probe

    for module in args.modules:
        importlib.import_module(module)
    names = [word for word in args.words if "=" not in word]
    if not names:
        for name, cls in PROBES.items():
            print(f"{name:14} {cls.asks}")
        return 0
    if len(names) > 1:
        raise ValueError(f"expected one probe, got {' and '.join(names)}")
    report = probe(
        names[0],
        args.kinds.split(","),
        heads=None if args.heads is None else numbers("--heads", args.heads),
        width=args.width,
        depth=args.depth,
        seeds=numbers("--seeds", args.seeds),
        steps=args.steps,
        host=args.host,
        controls=not args.no_controls,
        jobs=cores() if args.jobs is None else args.jobs,
        tell=lambda line: print(line, flush=True),
        **_options(args),
    )
    folder = Path(args.output or Path("runs", f"probe-{names[0]}"))
    print()
    print_report(report)
    print("\n" + "\n".join(str(file) for file in save_report(report, folder, page=args.page)))
    return 0


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def numbers(option: str, text: str) -> list[int]:
    """``0-2,5`` as 0, 1, 2 and 5."""
    found: list[int] = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", word.strip())
        if match is None or (match[2] and not int(match[1]) <= int(match[2]) < int(match[1]) + 1000):
            raise ValueError(f"{option}: expected numbers like 0-4 or 0,1,2, got {text!r}")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def _options(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in (word for word in args.words if "=" in word):
        name, _, value = word.partition("=")
        if not re.fullmatch(r"-?\d{1,9}", value):
            raise ValueError(f"{word}: expected a whole number, got {value!r}")
        found[name] = int(value)
    if args.attributes is not None:
        found["attributes"] = args.attributes
    return found


def print_report(report: "ProbeReport") -> None:
    """The table, what may be said, and what it asks."""
    from rich.table import Table

    from crosshead.cli.terminal.console import table_console

    rows = report.rows()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, title in enumerate(rows[0]):
        table.add_column(title, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row.values())
    table_console().print(table)
    print(
        f"\n{report.probe}: heads must {report.asks}. Guessing gives {report.chance:.0%}.\n{report.words()}"
    )


def save_report(report: "ProbeReport", folder: Path, *, page: bool) -> list[Path]:
    """``probe.json``, ``probe.png`` and, if wanted, ``probe.html``; the files in that order."""
    import json

    from crosshead.pages.reports import probe_page
    from crosshead.probes.report import draw_probe

    folder.mkdir(parents=True, exist_ok=True)
    text = report.to_json()
    (folder / "probe.json").write_text(text, encoding="utf-8")
    files = [folder / "probe.json", draw_probe(report, folder / "probe.png")]
    if page:
        files.append(folder / "probe.html")
        files[-1].write_text(probe_page(json.loads(text), report.rows(), report.words()), encoding="utf-8")
    return files
