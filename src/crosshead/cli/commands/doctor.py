"""``crosshead doctor``: what is wrong with a run, and what resuming it would do."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from crosshead.cli.arguments.options import Commands

_STYLES = {"good": "green", "note": "default", "warning": "yellow", "error": "bold red"}


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="examine a run and its data",
        usage="crosshead doctor [RUN] [--data-path DIR] [options]",
        description="Reads a run's folder and its data, and says what is wrong, which checkpoint is the newest good\n"
        "one, and what resuming would do. Changes nothing.",
        epilog="exit codes: 0 nothing keeps the run from going on; 1 something does; 2 wrong input",
    )
    parser.add_argument("words", nargs="*", metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "--data-path", metavar="DIR", help="where the data lies (default: where the recipe says)"
    )
    parser.add_argument("--images", action="store_true", help="read every image, which takes a while")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if len(args.words) > 1:
        raise ValueError(f"expected the folder of one run, got {' '.join(args.words)}")
    run = Path(args.words[0]) if args.words else None
    if run is not None and not run.is_dir():
        raise ValueError(f"{run} is not a folder; expected the folder of a run, such as runs/digits_mohsa")

    from rich.console import Console

    from crosshead.cli.terminal.console import plain, reading_bar
    from crosshead.train.tools.doctor import examine

    data = Path(args.data_path) if args.data_path else None
    with reading_bar() as progress:
        report = examine(run, data, read_images=args.images, progress=progress)
    if args.json:
        newest = None if report.newest_good is None else str(report.newest_good)
        findings = [asdict(finding) for finding in report.findings]
        print(json.dumps({"findings": findings, "newest_good": newest, "advice": report.advice}, indent=2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for finding in report.findings:
            level = f"[{_STYLES[finding.level]}]{finding.level:7}[/]"
            console.print(f"{level} {plain(finding.subject)}: {plain(finding.message)}")
        if report.newest_good is not None:
            console.print(f"newest good checkpoint: {plain(str(report.newest_good))}")
        if report.advice:
            console.print(plain(report.advice))
    return 0 if report.healthy else 1
