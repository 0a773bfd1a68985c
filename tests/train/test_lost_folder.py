"""A run's folder that vanishes in mid-run, and a lock file that is deleted."""

import os
import shutil

import pytest
from runs import PROCESSES, Watcher, assert_same_ending, ending, start, tiny_recipe, wait

from crosshead.train import EXIT_UNSAVED, train
from crosshead.train.run_folder.lock import LOCK_FILE, FolderBusy, FolderLock, is_held


def at(step, deed):
    return Watcher(lambda record: record.step == step and deed())


def remove(folder):
    """In one go: a checkpoint may be on its way into it."""
    shutil.rmtree(folder.rename(folder.with_name("gone")))


def replace(folder):
    remove(folder)
    folder.mkdir()


def rename(folder):
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("deed", [remove, replace, rename])
def test_a_folder_that_vanishes_ends_the_run_which_goes_on_elsewhere(tmp_path, unstopped, deed):
    folder = tmp_path / "run"
    watcher = at(9, lambda: deed(folder))
    result = train(tiny_recipe(), folder=folder, callback=watcher)
    assert result.status == "unsaved" and result.exit_code == EXIT_UNSAVED
    assert not folder.exists() or not list(folder.glob("checkpoints")), "it is not made again"
    became = f"renamed to {tmp_path / 'elsewhere'}" if deed is rename else "removed"
    assert f"the run's folder {folder} was {became} while it ran" in watcher.end.message
    (kept,) = tmp_path.glob("run-kept-*")
    assert f"it is kept whole in {kept}" in watcher.end.message
    assert result.weights is None or result.weights.is_file()
    assert train(tiny_recipe(), folder=kept, resume=True).status == "finished"
    first, second = ending(kept), ending(unstopped)
    assert first["tensors"] == second["tensors"]
    if deed is rename:  # the best is found where the folder is now
        assert first["progress"] == second["progress"] and first["test"] == second["test"]


def test_a_folder_that_vanishes_after_the_last_step_is_noticed_too(tmp_path):
    folder = tmp_path / "run"
    watcher = at(18, lambda: remove(folder))
    assert train(tiny_recipe(), folder=folder, callback=watcher).status == "unsaved"
    assert not folder.exists() and len(list(tmp_path.glob("run-kept-*"))) == 1


def test_a_lock_file_that_is_deleted_lets_no_second_run_in(tmp_path, unstopped):
    folder, codes = tmp_path / "run", []

    def delete_and_start(record):
        if record.step == 3:
            (folder / LOCK_FILE).unlink()
            codes.extend(wait(start(tiny_recipe(), folder, resume=True)))
        if record.step == 5:
            assert f"process {os.getpid()} on" in (folder / LOCK_FILE).read_text() or is_held(folder)
            codes.extend(wait(start(tiny_recipe(), folder, resume=True)))

    train(tiny_recipe(), folder=folder, callback=Watcher(delete_and_start))
    assert codes == [1, 1]
    log = (tmp_path / "run.log.0").read_text()
    assert "is in use by an unnamed process" in log and f"is in use by process {os.getpid()} on" in log
    assert_same_ending(folder, unstopped)


def _take(folder):
    FolderLock(folder).acquire()
    os._exit(7)


def test_a_lock_file_that_is_deleted_is_made_again(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    (tmp_path / LOCK_FILE).unlink()
    process = PROCESSES.Process(target=_take, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 1, "the folder itself is locked"
    assert lock.lost() is None and (tmp_path / LOCK_FILE).exists()
    with pytest.raises(FolderBusy):
        FolderLock(tmp_path).acquire()
    lock.release()
    FolderLock(tmp_path).acquire()
