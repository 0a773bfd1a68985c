"""What ``crosshead data check`` found, for people."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from crosshead.cli.terminal.console import table_console

if TYPE_CHECKING:
    from crosshead.data.tools.check import CheckReport, SplitReport

_SHOWN = 10  # groups of duplicates


def print_report(report: "CheckReport") -> None:
    for name, part in report.splits.items():
        print(f"{name}: {part.total:,} images, from {part.origin}")
    table_console().print(_classes(report))
    train = report.splits["train"]
    print(_balance(report.info.class_names, train))
    for name, part in report.splits.items():
        print(f"{name}: {_sizes(part)}")
    for name, part in report.splits.items():
        for line in [] if part.boxes is None else part.boxes.lines():
            print(f"{name}: {line}")
    channels = "red, green, blue" if len(train.mean) == 3 else f"{len(train.mean)} channels"
    print(
        f"train: mean {_numbers(train.mean)}, standard deviation {_numbers(train.std)} (of 0 to 1; {channels})"
    )
    for name, part in report.splits.items():
        if part.wide:
            print(f"{name}: {part.wide:,} of 16 bits, values up to {part.highest}; {_white(report)}")
        if part.turned:
            done = "are turned upright" if report.decoding.exif == "apply" else "stay as they are stored"
            print(f"{name}: {part.turned:,} with an EXIF rotation, which {done} (data.exif)")
    for warning in _warnings(report):
        print(f"warning: {warning}", file=sys.stderr)


def _classes(report: "CheckReport") -> Table:
    counted = report.splits["train"].counted
    what = "class" if counted == "images" else f"{counted} of class"
    table = Table(what, *report.splits, box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for index, name in enumerate(report.info.class_names):
        table.add_row(name, *[f"{part.counts[index]:,}" for part in report.splits.values()])
    table.add_section()
    for kind in report.splits["train"].objects:
        table.add_row(kind, *[f"{part.objects[kind]:,}" for part in report.splits.values()])
    table.add_row("readable", *[f"{part.readable:,}" for part in report.splits.values()])
    table.add_row("broken", *[f"{len(part.broken):,}" for part in report.splits.values()])
    return table


def _balance(names: tuple[str, ...], train: "SplitReport") -> str:
    most, least = max(train.counts), min(train.counts)
    of_most, of_least = names[train.counts.index(most)], names[train.counts.index(least)]
    share = most / max(sum(train.counts), 1)
    ratio = f"{most / least:.1f} to 1" if least else "of some there are none"
    always = f"always saying {of_most} is right in {share:.1%}"
    if train.counted == "objects":
        always = f"{of_most} are {share:.1%} of the objects"
    elif train.counted == "pixels":
        always = f"{of_most} everywhere is right in {share:.1%} of the {train.counted}"
    return f"balance: most {of_most} ({most:,}), fewest {of_least} ({least:,}), {ratio}; {always}"


def _sizes(part: "SplitReport") -> str:
    if not part.sizes:
        return "no readable image"
    widths, heights = zip(*part.sizes, strict=True)
    (width, height), count = Counter(part.sizes).most_common(1)[0]
    whole = part.readable
    same = "all" if count == whole else f"{count / whole:.0%}"
    span = f", from {min(widths)} to {max(widths)} wide and {min(heights)} to {max(heights)} high" * (
        count != whole
    )
    grey = f"; {part.grey:,} without colours" if part.grey else ""
    return f"{same} {width} x {height} pixels{span}{grey}"


def _white(report: "CheckReport") -> str:
    white = report.decoding.white
    return f"white is {'the largest of each' if white is None else white} (data.white_level)"


def _decoding_warnings(report: "CheckReport") -> Iterator[str]:
    from crosshead.data.datasets.looking import exif_warning
    from crosshead.data.decode.decoding import judge_white

    for name, part in report.splits.items():
        if part.wide and (wrong := judge_white(part.highest, report.decoding)):
            many = f"{part.beyond_white:,} of them" if part.beyond_white else "they"
            yield f"{name}: {part.wide:,} images of 16 bits, and {many} have {wrong}"
        if part.turned and part.counted != "images" and not report.exif_stated:
            yield f"{name}: {part.turned:,} images {exif_warning(part.counted)}"


def _warnings(report: "CheckReport") -> list[str]:
    warnings = [*report.notes, *_decoding_warnings(report)]
    if len(report.info.class_names) < 2 and report.splits["train"].counted == "images":
        warnings.append(
            "one class only: nothing can be told apart; data.root is to be the folder above the classes"
        )
    reasons = Counter(
        (os.path.splitext(file)[1].lower() or "no suffix", why) for file, why in report.passed_over
    )
    first = {
        os.path.splitext(file)[1].lower() or "no suffix": file for file, _ in reversed(report.passed_over)
    }
    warnings += [
        f"{count:,} files ({suffix}) are passed over, {first[suffix]} for one: {why}"
        for (suffix, why), count in reasons.most_common()
    ]
    for group in report.duplicates[:_SHOWN]:
        warnings.append(
            "the same image lies in " + " and in ".join(f"{split}: {name}" for split, name in group)
        )
    if len(report.duplicates) > _SHOWN:
        warnings.append(
            f"and {len(report.duplicates) - _SHOWN:,} more that lie in several splits; --json has them all"
        )
    repeated = {name: count for name, count in report.repeated.items() if count}
    if repeated:
        counts = ", ".join(f"{count:,} in {name}" for name, count in repeated.items())
        warnings.append(f"images that another one of their own split equals: {counts}")
    return warnings


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"
