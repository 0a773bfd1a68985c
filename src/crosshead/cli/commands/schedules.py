"""``crosshead schedules``: how far the heads of each block overlap, under each way of saying it."""

import argparse

from crosshead.cli.arguments.options import Commands

_EPILOG = """\
A schedule is what model.overlap takes. Beside the named ones: none, constant:4 (or 4), fraction:0.5 of the head
width, and a list [0,1,2,...] with one overlap a block.

examples:
  crosshead schedules                                   the eight of the paper, for ViT-Tiny
  crosshead schedules index fraction:0.5 --depth 24 --head-width 48
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "schedules",
        help="list the overlap schedules, block by block",
        description="Prints the overlap of every block, in channels per side, under each schedule.",
        epilog=_EPILOG,
    )
    parser.add_argument("specs", nargs="*", metavar="SCHEDULE", help="default: the paper's eight")
    parser.add_argument("--depth", type=int, default=12, metavar="L", help="number of blocks (default: 12)")
    parser.add_argument(
        "--head-width", type=int, default=16, metavar="d", help="channels of a head (default: 16)"
    )
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    from crosshead.layers.schedule import PARADIGMS, OverlapSchedule

    for name, number in (("--depth", args.depth), ("--head-width", args.head_width)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    specs = args.specs or [*PARADIGMS, "constant:6", "fraction:0.5"]
    schedules = [OverlapSchedule.parse(spec) for spec in specs]
    width = max(len(str(schedule)) for schedule in schedules)
    print(f"overlap of blocks 0 to {args.depth - 1}, in channels per side, for heads {args.head_width} wide")
    for schedule in schedules:
        try:
            overlaps = " ".join(f"{overlap:2}" for overlap in schedule.overlaps(args.depth, args.head_width))
        except ValueError as error:
            if args.specs:
                raise
            overlaps = str(error)
        print(f"{schedule!s:{width}}  {overlaps}")
    return 0
