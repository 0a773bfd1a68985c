"""A disk that is full or cannot be written costs what could not be written, and nothing else."""

import builtins
import contextlib
import errno
import os
import re
import resource

import pytest
from runs import Watcher, assert_same_ending, tiny_recipe, wait_until

from crosshead.train import train
from crosshead.train.checkpoint import store as checkpoint
from crosshead.train.checkpoint.store import CheckpointStore, read_state
from crosshead.train.logging.log_files import LinesFile, read_lines
from crosshead.train.tools.doctor import examine


@contextlib.contextmanager
def no_file_above(size):
    """Writing beyond ``size`` bytes fails in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def is_through_with(folder, step):
    """The writer has saved ``step``, the end of the first epoch, after its evaluation, and tidied up."""
    path = CheckpointStore(folder).path(step)
    with contextlib.suppress(FileNotFoundError):
        kept = [f"step-{step - 2:08d}", path.name]
        return sorted(os.listdir(path.parent)) == kept and read_state(path)["progress"]["epoch"] == 1
    return False


def test_a_full_disk_fails_the_checkpoint_and_not_the_run(tmp_path, unstopped):
    folder, limits = tmp_path / "run", contextlib.ExitStack()
    whole = {}

    def fill_and_free(record):
        if record.step == 7:
            wait_until(lambda: is_through_with(folder, 6))
            whole["before"] = CheckpointStore(folder).newest_good()[0]
            limits.enter_context(no_file_above(20_000))
        if record.step == 11:
            whole["during"] = CheckpointStore(folder).newest_good()
            limits.close()

    watcher = Watcher(fill_and_free)
    result = train(tiny_recipe(), folder=folder, callback=watcher)
    failed = [event for event in watcher.events if event.kind == "checkpoint_failed"]
    assert {event.step for event in failed} <= {8, 10} and failed
    assert "could not be written: File too large" in failed[0].message
    assert whole["before"] is not None and whole["during"] == (whole["before"], [])
    assert result.status == "finished"
    assert not list((folder / "checkpoints").glob(".writing-*"))
    assert_same_ending(folder, unstopped)


def test_older_checkpoints_that_cannot_be_deleted_are_reported_as_that_and_deleted_later(
    tmp_path, unstopped, monkeypatch
):
    folder, delete = tmp_path / "run", checkpoint._delete

    def refuse(path):
        if path.name.startswith(".deleting"):
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        delete(path)

    def allow_again(record):
        if record.step == 17:
            monkeypatch.setattr(checkpoint, "_delete", delete)

    monkeypatch.setattr(checkpoint, "_delete", refuse)
    watcher = Watcher(allow_again)
    result = train(tiny_recipe(), folder=folder, callback=watcher)
    failed = [event for event in watcher.events if event.kind == "tidying_failed"]
    said = (
        r"checkpoint of step \d+ written in .*, but older ones could not be deleted: Device or resource busy"
    )
    assert failed and all(re.match(said, event.message) for event in failed)
    assert "checkpoint_failed" not in watcher.kinds(), "every one was written"
    kept = {"step-00000016", "step-00000018", f"step-{result.selected_step:08d}"}
    assert set(os.listdir(folder / "checkpoints")) == kept
    assert_same_ending(folder, unstopped)


def test_lines_that_could_not_be_written_are_written_later_and_none_is_cut(tmp_path):
    lines = LinesFile(tmp_path / "log.jsonl")
    lines.append({"number": 0})
    with no_file_above(20):
        for number in (1, 2):
            with pytest.raises(OSError, match=r"File too large|No space left"):
                lines.append({"number": number})
        assert read_lines(lines.path) == [{"number": 0}]
    lines.append({"number": 3})
    assert read_lines(lines.path) == [{"number": number} for number in range(4)]


def test_a_line_that_a_kill_cut_short_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"number": 0}\n{"num')
    LinesFile(path).append({"number": 2})
    assert read_lines(path) == [{"number": 0}, {"number": 2}]


def test_a_log_that_fails_is_reported_once_and_training_goes_on(tmp_path, unstopped, capfd):
    class Failing(Watcher):
        def on_step(self, record):
            raise OSError(28, "No space left on device")

        on_eval = on_event = on_end = on_step

    folder = tmp_path / "run"
    train(tiny_recipe(), folder=folder, callback=Failing())
    assert capfd.readouterr().err.count("the log Failing could not be written") == 1
    assert_same_ending(folder, unstopped)


@pytest.mark.parametrize("place", ["under a file", "over-long name"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_else(tmp_path, place):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run" if place == "under a file" else tmp_path / ("x" * 300)
    with pytest.raises(ValueError, match=r"run folder .* cannot be written: .*; choose another one"):
        train(tiny_recipe(), folder=folder)


@contextlib.contextmanager
def no_permission(folder):
    """``folder`` cannot be written: its owner's write permission is gone, or, as root, root's privileges are."""
    if os.getuid() == 0:
        os.seteuid(65534)
    else:
        folder.chmod(0o500)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        else:
            folder.chmod(0o700)


def test_a_folder_that_becomes_read_only_is_reported_and_training_goes_on(tmp_path, unstopped):
    folder, taken = tmp_path / "run", contextlib.ExitStack()

    def take_and_give_back(record):
        if record.step == 7:
            wait_until(lambda: is_through_with(folder, 6))
            taken.enter_context(no_permission(folder / "checkpoints"))
        if record.step == 11:
            taken.close()

    watcher = Watcher(take_and_give_back)
    train(tiny_recipe(), folder=folder, callback=watcher)
    failed = [event.message for event in watcher.events if event.kind == "checkpoint_failed"]
    assert failed and "step 8 could not be written: Permission denied" in failed[0]
    assert_same_ending(folder, unstopped)


def test_a_read_only_folder_is_refused_before_anything_else(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with (
        no_permission(folder),
        pytest.raises(ValueError, match=r"run folder .* cannot be written: Permission denied"),
    ):
        train(tiny_recipe(), folder=folder)


def test_a_folder_for_tensorboard_that_cannot_be_made_costs_tensorboard(tmp_path, unstopped, capfd):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "tensorboard").write_text("a file, where a folder is to go")
    assert train(tiny_recipe(log={"tensorboard": True}), folder=folder).exit_code == 0
    assert capfd.readouterr().err.count("the log TensorBoard could not be written") == 1
    assert_same_ending(folder, unstopped)


def test_a_run_on_a_disk_that_cannot_be_written_can_be_examined(unstopped, monkeypatch):
    original = builtins.open

    def read_only(path, mode="r", *rest, **options):
        if set(mode) & set("wa+x"):
            raise OSError(30, "Read-only file system", str(path))
        return original(path, mode, *rest, **options)

    monkeypatch.setattr(builtins, "open", read_only)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    report = examine(unstopped)
    assert report.newest_good is not None and "the run is finished" in report.advice
    assert ["cannot be written" in finding.message for finding in report.findings].count(True) == 1
