"""``crosshead judge``: where a run errs, and the thresholds and temperature that its validation pictures choose."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands, add_checkpoint, add_device, find_checkpoint

if TYPE_CHECKING:
    from crosshead.judging.judgement import Report

_EPILOG = """\
examples:
  crosshead judge runs/pets                           writes runs/pets/judging.html and judging.json
  crosshead judge runs/cells --split validation --pictures 30 --page cells.html
  crosshead predict runs/cells new/ --judged          with the thresholds that were chosen

Temperature and thresholds are chosen on validation pictures, never on test pictures.
"""
_WIDEST = 720  # pixels of a gallery's picture: more than a page shows side by side


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "judge",
        help="curves, thresholds, calibration and the worst pictures of a run",
        usage="crosshead judge RUN [options]",
        description="Of a classifier: ROC and a threshold (two classes), temperature, the worst errors.\n"
        "Of a detector: precision against recall, a threshold a class, what is taken for what, truth beside findings.\n"
        "Of a segmenter: Dice, boundary IoU, scores of single pictures, the worst maps.",
        epilog=_EPILOG,
    )
    parser.add_argument("words", nargs="*", metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "--split",
        choices=["validation", "test"],
        help="which pictures to judge (default: test, or validation where there is no such split)",
    )
    parser.add_argument("--pictures", type=int, default=12, metavar="N", help="of the worst (default: 12)")
    parser.add_argument(
        "--page", metavar="FILE.html", help="where to write the page (default: RUN/judging.html)"
    )
    parser.add_argument("--data-path", metavar="DIR", help="where the data lies now, if it moved")
    parser.add_argument("--json", action="store_true", help="print it all as JSON")
    add_checkpoint(parser)
    add_device(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if len(args.words) != 1:
        raise ValueError(f"expected the folder of one run, got {len(args.words)} ({' '.join(args.words)})")
    if args.pictures < 0:
        raise ValueError(f"--pictures: expected 0 or more, got {args.pictures}")
    if args.page is not None and not args.page.lower().endswith((".html", ".htm")):
        raise ValueError(
            f"--page: expected a name that ends in .html so that a browser opens it, got {args.page}"
        )
    run, checkpoint = find_checkpoint(args.words[0])

    from crosshead.judging.run import judge_run

    report, choices = judge_run(
        run,
        split=args.split,
        checkpoint=args.checkpoint or checkpoint,
        device=args.device,
        data_root=args.data_path,
        pictures=args.pictures,
    )
    page = Path(args.page or run / "judging.html")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_page(report), encoding="utf-8")
    choices.save(run)
    if args.json:
        print(json.dumps({**report.as_data(), "chosen": vars(choices)}, indent=1))
        return 0
    _print(report)
    print(f"\n{page}: open it in a browser")
    if chosen := choices.values():
        print(f"crosshead predict {run} PICTURES --judged uses what was chosen ({', '.join(chosen)})")
    return 0


def _print(report: "Report") -> None:
    from rich.table import Table

    from crosshead.cli.terminal.console import table_console

    print("\n".join(report.sentences))
    for each in report.tables:
        print(f"\n{each.title}")
        table = Table(box=None, header_style="bold", pad_edge=False)
        for number, title in enumerate(each.rows[0] if each.rows else ()):
            table.add_column(title, justify="right" if number else "left")
        for row in each.rows:
            table.add_row(*row.values())
        table_console().print(table)
    if report.gallery:
        print(f"\n{report.gallery_note}")
        print("\n".join(f"  {shown.caption}" for shown in report.gallery))


def _page(report: "Report") -> str:
    from crosshead.pages.reports import judging_page

    data: dict[str, Any] = report.as_data()
    notes = [each.note for each in report.charts] + [each.note for each in report.tables]
    for entry, its in zip([*data["charts"], *data["tables"]], notes, strict=True):
        entry["note"] = its
    return judging_page(
        data, [(shown.caption, _encoded(shown.image)) for shown in report.gallery], report.gallery_note
    )


def _encoded(image: Any) -> bytes:
    """JPEG: a page of many photographs as PNG would have tens of megabytes. Small pictures are enlarged to be seen."""
    import io

    from PIL import Image

    image = image.convert("RGB")
    if (factor := _WIDEST // 2 // image.width) > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((_WIDEST, _WIDEST))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()
