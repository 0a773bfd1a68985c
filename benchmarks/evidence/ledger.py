"""What a part has measured so far: a JSON file, written anew after every run."""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interleave import RESULTS, conditions

FOLDER = RESULTS / "evidence"


@dataclass(frozen=True)
class Job:
    """One run of a part: a ``cell`` of its table, and a seed."""

    cell: str
    seed: int


@dataclass(frozen=True)
class Part:
    """A claim that is measured: the runs that were planned beforehand, in the order in which they are made.

    ``run`` gives what is kept of a run, as JSON. ``about`` and ``settings`` are written beside the runs.
    """

    name: str
    about: str
    settings: Mapping[str, Any]
    jobs: list[Job]
    run: Callable[[str, int], Mapping[str, Any]]


class Ledger:
    """The runs of a part that are through, and under which conditions each was made."""

    def __init__(self, part: Part) -> None:
        self.part, self.file = part, FOLDER / f"{part.name}.json"
        self.held: dict[str, Any] = {"conditions": [], "runs": []}
        if self.file.is_file():
            self.held = json.loads(self.file.read_text())
            if self.held["settings"] != json.loads(json.dumps(dict(part.settings))):
                raise ValueError(
                    f"{self.file} holds runs of other settings than the part has now; move it away, or go back"
                )

    def remaining(self, only: Iterable[str] = ()) -> list[Job]:
        """Planned runs that are not through; of cells that ``only`` names, where it names any."""
        through = {(run["cell"], run["seed"]) for run in self.held["runs"]}
        chosen = set(only)
        return [
            j for j in self.part.jobs if (j.cell, j.seed) not in through and (not chosen or j.cell in chosen)
        ]

    def measure(self, job: Job) -> dict[str, Any]:
        """Makes one run and keeps it. ``cpu_seconds`` are of this process, ``seconds`` on the wall."""
        begun, cpu = time.perf_counter(), time.process_time()
        found = dict(self.part.run(job.cell, job.seed))
        run = {
            "cell": job.cell,
            "seed": job.seed,
            **found,
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "seconds": round(time.perf_counter() - begun, 2),
            "load": round(os.getloadavg()[0], 1),
            "conditions": self._conditions(),
        }
        self.held["runs"].append(run)
        self._write()
        return run

    def _conditions(self) -> int:
        """The number of the present conditions among those noted; the load, which changes, stands with each run."""
        now = {key: value for key, value in conditions("as set").items() if key != "load"}
        now["allocator"] = "heap" if "MALLOC_MMAP_THRESHOLD_" in os.environ else "default"
        if now not in self.held["conditions"]:
            self.held["conditions"].append(now)
        return self.held["conditions"].index(now)

    def _write(self) -> None:
        head = {
            "part": self.part.name,
            "about": self.part.about,
            "settings": dict(self.part.settings),
            "planned": len(self.part.jobs),
        }
        content = {**head, "conditions": self.held["conditions"], "runs": self.held["runs"]}
        self.held |= head
        FOLDER.mkdir(parents=True, exist_ok=True)
        spare = self.file.with_suffix(".part")
        spare.write_text(_lines(content))
        spare.replace(self.file)


def _lines(content: Mapping[str, Any]) -> str:
    """JSON with a line for each run, so that a difference of two versions can be read."""
    runs = ",\n  ".join(json.dumps(run) for run in content["runs"])
    rest = json.dumps({key: value for key, value in content.items() if key != "runs"}, indent=1)
    return f'{rest.removesuffix("}").rstrip()},\n "runs": [\n  {runs}\n ]\n}}\n'


def read_runs(name: str) -> list[dict[str, Any]]:
    """The runs of a part; none where it was not begun."""
    file: Path = FOLDER / f"{name}.json"
    return json.loads(file.read_text())["runs"] if file.is_file() else []


def by_cell(runs: Iterable[Mapping[str, Any]], key: str) -> dict[str, dict[int, float]]:
    """cell -> seed -> value."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        if key in run:
            found.setdefault(run["cell"], {})[run["seed"]] = run[key]
    return found
