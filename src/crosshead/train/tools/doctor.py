"""What is wrong with a run folder and its data, and what resuming would do. Looks, and changes nothing."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from crosshead.data.datasets.registry import open_splits
from crosshead.data.tools.check import CheckReport, check_images
from crosshead.files import read_json
from crosshead.formats import NewerFormat
from crosshead.recipe.compose import load_recipe
from crosshead.recipe.schema import Recipe
from crosshead.train.checkpoint.memory import splits_of_run
from crosshead.train.checkpoint.store import BEST, CheckpointStore, read_state, step_of
from crosshead.train.events import RESULT_FILE
from crosshead.train.files import Damaged, verify
from crosshead.train.logging.log_files import METRICS_FILE, read_metrics
from crosshead.train.loop.finish import result_of
from crosshead.train.run_folder.folder import (
    RECIPE_FILE,
    VERSIONS_FILE,
    compare_versions,
    holds_run,
    read_info,
    versions,
)
from crosshead.train.run_folder.lock import is_held

Level = Literal["good", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """``subject`` is a file, folder or part of the run. An "error" keeps the run from going on as it should."""

    level: Level
    subject: str
    message: str


@dataclass(frozen=True)
class Report:
    """``newest_good`` is the checkpoint that resuming would use, ``advice`` what resuming would do."""

    findings: list[Finding] = field(default_factory=list)
    newest_good: Path | None = None
    advice: str = ""

    @property
    def healthy(self) -> bool:
        return not any(finding.level == "error" for finding in self.findings)


def examine(
    run_folder: Path | None,
    data_root: Path | None = None,
    *,
    read_images: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Look at a run folder, at the data that it was trained on, or at both.

    Args:
        run_folder: the run; None looks at the data alone, as the image folder ``data_root``.
        data_root: where the data lies; the recipe's place when None.
        read_images: decode every image, which takes a while; ``progress(done, total)`` is called meanwhile.

    Raises:
        ValueError: ``run_folder`` is no run folder, or there is neither a run nor data to look at.
    """
    if run_folder is None:
        if data_root is None:
            raise ValueError("nothing to examine: name a run folder, a data folder, or both")
        pictures = Recipe.model_validate({"data": {"name": "folder", "root": str(data_root)}})
        return Report([*_data(pictures, None, None, read_images, progress)])
    if not holds_run(run_folder):
        raise ValueError(f"{run_folder} holds no run: no {RECIPE_FILE}, no {METRICS_FILE}, no checkpoints")
    try:
        return _examine_run(run_folder, data_root, read_images, progress)
    except (
        NewerFormat
    ) as error:  # names the file and the version that reads it; nothing else can be said of the run
        return Report([Finding("error", str(run_folder), str(error))])


def _examine_run(
    run_folder: Path, data_root: Path | None, read_images: bool, progress: Callable[[int, int], None] | None
) -> Report:
    store = CheckpointStore(run_folder)
    damages = {step: _damage(store.path(step)) for step in store.steps()}
    newest = next((store.path(step) for step in reversed(damages) if damages[step] is None), None)
    findings = [*_folder(run_folder, newest), *_checkpoints(store, damages), *_logs(run_folder, newest)]
    recipe, recipe_findings = _recipe(run_folder)
    findings += recipe_findings
    if recipe is not None:
        findings += _data(recipe, run_folder, data_root, read_images, progress)
    return Report(findings, newest, _advice(run_folder, newest, recipe))


def _folder(folder: Path, newest: Path | None) -> Iterator[Finding]:
    owner = is_held(folder)
    if owner is not None:
        yield Finding("note", str(folder), f"in use by {owner}; a second run would be refused")
    if not os.access(folder, os.W_OK):
        yield Finding("error", str(folder), "cannot be written: a run here would be refused")
    free = shutil.disk_usage(folder).free
    if newest is not None:
        size = sum(file.stat().st_size for file in newest.iterdir())
        room = free // max(size, 1)
        level: Level = "good" if room >= 4 else "error" if room < 1 else "warning"
        yield Finding(
            level,
            str(folder),
            f"{free / 1e9:.1f} GB free, room for {room} more checkpoints of {size / 1e6:.1f} MB",
        )


def _damage(path: Path) -> str | None:
    try:
        verify(path)
    except Damaged as error:
        return str(error)
    return None


def _checkpoints(store: CheckpointStore, damages: Mapping[int, str | None]) -> Iterator[Finding]:
    for step, damage in damages.items():
        if damage is None:
            yield Finding("good", str(store.path(step)), "whole")
        else:
            yield Finding("error", str(store.path(step)), f"damaged: {damage}; resuming passes it over")
    if not damages:
        yield Finding("warning", str(store.folder), "no checkpoint")
    if store.folder.exists():
        for left in sorted(store.folder.iterdir()):
            if left.name.startswith("."):
                yield Finding("note", str(left), "left by a process that was killed; the next run removes it")
            elif not left.name.removeprefix("step-").isdigit():
                yield Finding("note", str(left), "set aside, not used; delete it when you have looked at it")
    best = store.run_folder / BEST
    best_step = store.best_step()
    if best_step is None:
        found = None
    elif best_step in damages and damages[best_step] is None:
        found = store.path(best_step)
    else:
        found = store.find(best_step)
    if found is not None:
        yield Finding("good", str(best), f"step {best_step}, in {found}")
    elif best.is_symlink() and not best.exists():
        yield Finding(
            "error", str(best), "leads to a checkpoint that is not there; resuming chooses the best anew"
        )


def _logs(folder: Path, newest: Path | None) -> Iterator[Finding]:
    try:
        records, damaged = read_metrics(folder / METRICS_FILE)
    except OSError as error:
        yield Finding("error", METRICS_FILE, f"cannot be read: {error.strerror}")
        return
    if damaged:
        yield Finding("warning", METRICS_FILE, f"{damaged} lines are damaged; resuming leaves them out")
    steps = [record["step"] for record in records]
    if steps and newest is not None and max(steps) > step_of(newest):
        lost = max(steps) - step_of(newest)
        yield Finding(
            "note", METRICS_FILE, f"{lost} steps after the newest good checkpoint would be computed again"
        )
    bad = [record["step"] for record in records if record.get("skipped")]
    if bad:
        yield Finding(
            "warning", METRICS_FILE, f"{len(bad)} logged steps were skipped, the last one step {bad[-1]}"
        )


def _recipe(folder: Path) -> tuple[Recipe | None, list[Finding]]:
    try:
        recipe = load_recipe(folder / RECIPE_FILE)
    except NewerFormat:
        raise
    except (ValueError, OSError) as error:
        return None, [Finding("error", RECIPE_FILE, f"cannot be read: {error}")]
    try:
        before = read_json(folder / VERSIONS_FILE)
    except (ValueError, OSError) as error:
        return recipe, [Finding("warning", VERSIONS_FILE, f"cannot be read: {error}")]
    before.pop("threads", None)  # those of this look say nothing of the run's
    changed = compare_versions(before, versions())
    if not changed:
        return recipe, []
    message = f"other versions than at the start, so that numbers may differ in the last digits: {'; '.join(changed)}"
    return recipe, [Finding("note", VERSIONS_FILE, message)]


def _data(
    recipe: Recipe,
    folder: Path | None,
    root: Path | None,
    read_images: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Finding]:
    data = recipe.data if root is None else recipe.data.model_copy(update={"root": str(root)})
    subject = f"data {data.name}" + (f" at {data.root}" if data.root else "")
    recipe = recipe.model_copy(update={"data": data})
    try:
        splits = open_splits(recipe) if folder is None else splits_of_run(recipe, folder)
        if read_images:
            report = check_images(splits, workers=recipe.data.num_workers, progress=progress)
            info, sizes = report.info, {name: split.total for name, split in report.splits.items()}
            yield from _broken(report, recipe, subject)
        else:
            info, sizes = splits.info, {"train": len(splits.train), "validation": len(splits.validation)}
            if splits.test is not None:
                sizes["test"] = len(splits.test)
    except NewerFormat:
        raise
    except (ValueError, OSError) as error:
        yield Finding("error", subject, str(error))
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in sizes.items())
    yield Finding("good", subject, f"{len(info.class_names)} classes; images: {counts}")
    if folder is not None:
        yield from _classes(folder, info.class_names, subject)


def _broken(report: CheckReport, recipe: Recipe, subject: str) -> Iterator[Finding]:
    for name, split in report.splits.items():
        policy = recipe.data.on_broken_train if name == "train" else recipe.data.on_broken_eval
        fatal = bool(split.broken) and (policy == "fail" or len(split.broken) > recipe.data.max_broken)
        for path, reason in split.broken:
            yield Finding("error" if fatal else "warning", path, f"broken ({name}): {reason}")


def _classes(folder: Path, names: tuple[str, ...], subject: str) -> Iterator[Finding]:
    try:
        trained = read_info(folder).class_names
    except NewerFormat:
        raise
    except (ValueError, KeyError, OSError) as error:
        yield Finding("error", "classes.json", f"cannot be read: {error}")
        return
    if trained != names:
        missing, new = sorted(set(trained) - set(names)), sorted(set(names) - set(trained))
        message = f"other classes than the run was started with: missing {missing[:3]}, new {new[:3]}"
        yield Finding("error", subject, message)


def _advice(folder: Path, newest: Path | None, recipe: Recipe | None) -> str:
    if newest is None:
        return "resuming would start from the beginning: there is no whole checkpoint"
    progress = read_state(newest)["progress"]
    epochs = recipe.train.epochs if recipe is not None else None
    steps = recipe.train.steps if recipe is not None else None
    patience = recipe.train.patience if recipe is not None else None
    waited = patience is not None and progress["since_best"] >= patience
    through = epochs is not None and progress["epoch"] >= epochs
    if steps is not None:  # the length in place of epochs
        through = progress["step"] >= steps
    if through or waited:
        if result_of(CheckpointStore(folder), progress["step"]) is not None:
            return f"the run is finished; resuming would give the result in {folder / RESULT_FILE}"
        done = (
            f"all {progress['epoch']} epochs are done"
            if steps is None
            else f"{progress['step']} steps are done"
        )
        return f"{done}; resuming would test the best checkpoint and write {RESULT_FILE}"
    if steps is not None:
        place = f"step {progress['step']} of {steps}, epoch {progress['epoch'] + 1}"
    else:
        whole = "an unknown number" if epochs is None else epochs
        place = f"step {progress['step']}, epoch {progress['epoch'] + 1} of {whole}"
    return f"resuming would go on from {newest}: {place}, {progress['samples']} of its images seen"
