"""Which models go into ONNX files: of one image, of any number, and of any number and size.

python benchmarks/export_matrix.py            # all that is not measured yet, one export after another
python benchmarks/export_matrix.py --table    # docs/export.md's tables, out of what was measured

The models are those of tests/export/export_cases.py, the hosts and kinds those of the conformance suites: small models
of the registered families, every host with every kind that it carries, segmenters and detectors. Each file is compared
with its model on ONNX Runtime, on noise, at batches of 1, 2 and 5, and where sizes vary at sizes of every remainder by
landmarks and windows. Nothing is timed, so that it may run beside other work.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT / "tests")  # benchmarks/models.py would hide tests/models
from export.export_cases import MODES, cases, measure  # noqa: E402 - what is measured stands with the tests

RESULTS, PAGE = ROOT / "benchmarks" / "results" / "export_matrix.json", ROOT / "docs" / "export.md"
# Most telling first: what has a file there needs none of less. Windows whose number varies take the tracer minutes.
ORDER = ["any number and size", "any number", "one image"]


class Reasons:
    """A number for each reason why there is no file; reasons that differ in figures alone are one."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def cell(self, found: dict[str, Any] | None) -> str:
        if found is None:
            return "?"
        if "difference" in found:
            return f"{found['difference']:.1e}"
        if "refused" in found:
            return "–"
        reason = found["reason"].removesuffix("; nothing was written").replace("|", "/")
        reason = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : (.*?) Name:.*", r"\1", reason)
        alike = re.sub(r"\d+", "", reason)
        self.texts.setdefault(alike, reason)
        return f"[{1 + list(self.texts).index(alike)}]"

    def row(self, kinds: dict[str, Any], mode: str) -> list[str]:
        return [self.cell(settled(found, mode)) for found in kinds.values()]

    def text(self) -> str:
        return "".join(f"{number}. {reason}\n" for number, reason in enumerate(self.texts.values(), start=1))


def settled(found: dict[str, Any], mode: str) -> dict[str, Any] | None:
    """What is known of a row in a mode. A file of any number, or of any size too, takes what one of less would, and was
    compared with that as well; and a host that doesn't carry a kind doesn't in any mode."""
    if mode in found:
        return found[mode]
    modes = list(MODES)
    wider = [found[each] for each in modes[modes.index(mode) :] if "difference" in found.get(each, {})]
    refused = [each for each in found.values() if "refused" in each]
    return next(iter(wider + refused), None)


def page(results: dict[str, Any]) -> str:
    """A table of models, and one of hosts and kinds for each mode."""
    reasons = Reasons()
    models, hosts = {}, {}
    for name in dict(cases()):
        host, _, kind = name.rpartition(", ")
        if kind == "backbone and pyramid" or not host:
            models[name] = results.get(name, {})
        else:
            hosts.setdefault(host, {})[kind] = results.get(name, {})
    text = "### Registered models, segmenters, detectors\n\n" + _table(
        "model",
        MODES,
        {name: [reasons.cell(settled(found, mode)) for mode in MODES] for name, found in models.items()},
    )
    for mode in MODES:
        known = {
            host: kinds
            for host, kinds in hosts.items()
            if any("refused" not in (settled(found, mode) or {"refused": ""}) for found in kinds.values())
        }
        # Where a wider file says all, a row of its own would say nothing.
        shown = {
            host: kinds for host, kinds in known.items() if any(mode in found for found in kinds.values())
        }
        rows = {host: reasons.row(kinds, mode) for host, kinds in shown.items()}
        if rows:
            text += (
                f"\n### Hosts and interactions: {mode}\n\n{_table('host', next(iter(hosts.values())), rows)}"
            )
        if wider := len(known) - len(shown):
            text += f"\nOf {wider} of {len(hosts)} hosts the files below, which take more, are this.\n"
        if missing := len(hosts) - len(known):
            text += f"\nNot measured yet, {mode}: {missing} of {len(hosts)} hosts.\n"
    return f"{text}\n### Why not\n\n{reasons.text()}"


def _table(first: str, heads: Any, rows: dict[str, list[str]]) -> str:
    lines = [f"| {first} | {' | '.join(heads)} |", f"| --- |{' --- |' * len(list(heads))}"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def _keep(name: str, mode: str, found: dict[str, Any]) -> dict[str, Any]:
    """Adds a result to those that are there by now: another process may measure other rows."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault(name, {})[mode] = found
    aside = RESULTS.with_suffix(".tmp")
    aside.write_text(json.dumps(results, indent=1) + "\n")
    aside.replace(RESULTS)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose names match this")
    parser.add_argument("--mode", choices=MODES, help="this one alone")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no export after these")
    parser.add_argument("--table", action="store_true", help="write the page and measure nothing")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    end = time.monotonic() + args.seconds
    waiting = [
        (mode, name, make)
        for mode in ORDER
        for name, make in cases()
        if re.search(args.only, name) and args.mode in (None, mode)
    ]
    waiting.sort(key=lambda each: each[0] == ORDER[0] and "swin" in each[1].lower())
    for mode, name, make in [] if args.table else waiting:
        if time.monotonic() > end:
            break
        if settled(results.get(name, {}), mode):
            continue
        try:
            found = measure(make, MODES[mode])
        except Exception as error:  # a fault of this library, to be mended: no reason that a page may give
            print(f"{name}, {mode}: FAULT {error!r}", flush=True)
            continue
        results = _keep(name, mode, found)
        print(f"{name}, {mode}: {found}", flush=True)
    marks = re.compile(r"(<!-- table -->\n).*(<!-- end -->)", re.DOTALL)
    PAGE.write_text(marks.sub(lambda found: found[1] + page(results) + found[2], PAGE.read_text()))


if __name__ == "__main__":
    main()
