"""The logs on disk that every run has."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosshead.files import parse_json, read_bytes
from crosshead.train.events import EndRecord, EvalRecord, EventRecord, RunInfo, StepRecord
from crosshead.train.files import replace_file

_MOST = 1 << 32  # bytes of a log
METRICS_FILE, EVENTS_FILE, TENSORBOARD_FOLDER = "metrics.jsonl", "events.jsonl", "tensorboard"
_NUMBER = int | float
_STEP: dict[str, Any] = {"step": int, "epoch": _NUMBER, "loss": _NUMBER | None, "counts": dict}
_EVAL: dict[str, Any] = {"step": int, "epoch": _NUMBER, "split": str, "metrics": dict}


class LinesFile:
    """Appends JSON lines. A line that cannot be written (a full disk) is kept and tried again with the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []
        self._first: Callable[[], None] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Have ``work`` done on the file before the next line is written, again and again until it succeeds."""
        self._first = work

    def append(self, values: dict[str, Any]) -> None:
        """Raises OSError when it could not be written now; no half line is left behind."""
        self._waiting.append(json.dumps(_finite(values)) + "\n")
        self.flush()

    def flush(self) -> None:
        """Write what is waiting. Raises OSError as ``append`` does."""
        if self._first is not None:
            self._first()
            self._first = None
        if not self._waiting:
            return
        with open(self.path, "a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            content = "".join(self._waiting).encode()
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                content = b"\n" + content  # a kill cut the last line short
            try:
                if file.write(content) != len(content):
                    raise OSError(28, "No space left on device", str(self.path))
            except OSError:
                file.truncate(end)
                raise
        self._waiting.clear()


class JsonLines:
    """``metrics.jsonl``: steps (every ``every_steps``) and evaluations. ``events.jsonl``: everything else.

    Metrics after the step at which a run is resumed are of a future that is computed again: they are dropped. So is
    the test, which ends a run: one that was killed before it had written its result is tested again. Events
    happened, and stay.
    """

    def __init__(self, folder: Path, every_steps: int) -> None:
        self.every_steps = every_steps
        self._metrics, self._events = LinesFile(folder / METRICS_FILE), LinesFile(folder / EVENTS_FILE)

    def on_start(self, info: RunInfo) -> None:
        self._metrics.begin(lambda: self._drop_after(info.start_step, info.mid_epoch))
        self._events.append({"kind": "start", **asdict(info), "folder": str(info.folder)})
        self._metrics.flush()

    def _drop_after(self, step: int, mid_epoch: bool) -> None:
        records, damaged = read_metrics(self._metrics.path)
        if damaged:
            shutil.copyfile(self._metrics.path, self._metrics.path.with_name(f"{METRICS_FILE}.damaged"))
        kept = [
            record
            for record in records
            if record["step"] <= step - (mid_epoch and record["kind"] == "eval")
            and record.get("split") != "test"
        ]
        replace_file(self._metrics.path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        if damaged:
            message = f"{damaged} lines of {METRICS_FILE} were damaged; the file as it was is {METRICS_FILE}.damaged"
            self.on_event(EventRecord("damage", message, step))

    def on_step(self, record: StepRecord) -> None:
        if record.step % self.every_steps == 0:
            self._metrics.append({"kind": "step", **asdict(record)})

    def on_eval(self, record: EvalRecord) -> None:
        self._metrics.append({"kind": "eval", **asdict(record)})

    def on_event(self, record: EventRecord) -> None:
        self._events.append(asdict(record))

    def on_end(self, record: EndRecord) -> None:
        self._events.append({"kind": "end", "status": record.status, "message": record.message})
        self._metrics.flush()


class TensorBoard:
    """Losses, rates and metrics by step in ``tensorboard/``."""

    def __init__(self, folder: Path, every_steps: int) -> None:
        self.folder, self.every_steps = folder / TENSORBOARD_FOLDER, every_steps
        self._start_step = 0

    def on_start(self, info: RunInfo) -> None:
        self._start_step = info.start_step
        _ = self._writer

    @cached_property
    def _writer(self) -> Any:
        """Made when it is wanted, and again where it could not be made before."""
        from torch.utils.tensorboard import SummaryWriter  # costs a second to import, and is optional

        purge = self._start_step + 1 if self._start_step else None
        return SummaryWriter(str(self.folder), purge_step=purge)

    def on_step(self, record: StepRecord) -> None:
        if record.step % self.every_steps:
            return
        for name in ("loss", "lr", "grad_norm", "images_per_second"):
            self._writer.add_scalar(f"train/{name}", getattr(record, name), record.step)
        parts = record.losses if len(record.losses) > 1 else {}
        for name, value in {**parts, **record.counts}.items():
            self._writer.add_scalar(f"train/{name}", value, record.step)

    def on_eval(self, record: EvalRecord) -> None:
        for name, value in record.metrics.items():
            self._writer.add_scalar(f"{record.split}/{name}", value, record.step)
        self._writer.flush()

    def add_picture(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        """``pixels`` (height, width, 3)."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")
        self._writer.flush()

    def on_event(self, record: EventRecord) -> None:
        self._writer.add_text(record.kind, record.message, record.step)

    def on_end(self, record: EndRecord) -> None:
        self._writer.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON lines file; lines that a kill cut short or a disk damaged are left out."""
    if not path.exists():
        return []
    records = map(_record, read_bytes(path, most=_MOST).split(b"\n"))
    return [record for record in records if record is not None]


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The steps and evaluations in a run's ``metrics.jsonl``, and how many lines are damaged.

    A flipped bit may leave a line that is JSON and yet no record: what is given here has the keys and kinds of value
    that were written. What stands after the last line's end was cut short by a kill, and is not counted.
    """
    if not path.exists():
        return [], 0
    *lines, cut = read_bytes(path, most=_MOST).split(b"\n")
    records = [_record(line) for line in (*lines, cut) if line.strip()]
    whole = [record for record in records if record is not None and _is_metric(record)]
    return whole, len(records) - len(whole) - (bool(cut.strip()) and _record(cut) is None)


def _record(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        record = parse_json(line)
        return record if isinstance(record, dict) else None
    return None


def _is_metric(record: dict[str, Any]) -> bool:
    wanted = {"step": _STEP, "eval": _EVAL}.get(str(record.get("kind")))
    if wanted is None or not all(isinstance(record.get(key), kinds) for key, kinds in wanted.items()):
        return False
    numbers = record.get("metrics") or record.get("counts") or {}
    return all(value is None or isinstance(value, int | float) for value in numbers.values())


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
