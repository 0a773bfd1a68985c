"""Faults by the hundred at random moments; ``make soak`` runs them and prints a table.

After every fault the run is resumed, and every run that came through ends bitwise as one that met no fault.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from launcher import Torchrun
from ledger import record
from runs import StopAfter, Watcher, assert_same_ending, ending, start, tiny_recipe, wait, wait_until
from test_disk import no_file_above
from test_numbers import poison_loader
from test_processes import FromCall, fail, hang

from crosshead.train import EXIT_HUNG, EXIT_STOPPED, train
from crosshead.train.checkpoint.store import CheckpointStore, step_of
from crosshead.train.logging.log_files import METRICS_FILE, read_lines

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]


def halved(**changes):
    """The tiny recipe for two processes."""
    changes["data"] = {**changes.get("data", {}), "batch_size": 6}
    changes["train"] = {"rank_timeout_s": 30, **changes.get("train", {})}
    return tiny_recipe(**changes)


@pytest.fixture(scope="module")
def whole_by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert wait(start(halved(), folder, resume=False, processes=2)) == [0, 0]
    return folder


def steps_to_repeat(folder):
    """How many logged steps are newer than the newest good checkpoint."""
    done = max((line["step"] for line in read_lines(folder / METRICS_FILE)), default=0)
    path, _ = CheckpointStore(folder).newest_good()
    return max(done - (step_of(path) if path else 0), 0)


def kill_many(kind, recipe, whole, base, *, kills, processes, moment, prepare=None):
    """Kill one process of a run at ``moment(folder, processes)``, again and again, over as many runs as it takes."""
    choice, killed, number = random.Random(kills), 0, 0
    while killed < kills:
        folder, pending = base / f"run-{number}", []
        number += 1
        while killed + len(pending) < kills:
            running = start(recipe, folder, resume=True, processes=processes, prepare=prepare)
            moment(folder, running)
            victim = choice.choice(running)
            if not victim.is_alive():
                assert wait(running) == [0] * processes
                break
            victim.kill()
            wait(running)
            if victim.exitcode == -signal.SIGKILL:
                pending.append(steps_to_repeat(folder))
        else:
            assert (
                wait(start(recipe, folder, resume=True, processes=processes, prepare=prepare))
                == [0] * processes
            )
        same = True
        try:
            assert_same_ending(folder, whole)
        except AssertionError as error:
            same = False
            print(f"{folder}: {error}")
        for lost in pending:
            record(kind, survived=same, lost=lost)
        killed += len(pending)
        assert same, folder
        shutil.rmtree(folder)


def after_a_while(longest):
    times = random.Random(7)
    return lambda folder, running: time.sleep(times.uniform(0.02, longest))


def while_writing(folder, running):
    """At a random checkpoint of the run, while it is being written; or when the run is over."""
    time.sleep(random.uniform(0.0, 0.8))
    wait_until(lambda: any(folder.glob("checkpoints/.writing-*")) or not running[0].is_alive(), seconds=120)


def test_kills_of_one_process(tmp_path, unstopped):
    kill_many(
        "kill -9, one process",
        tiny_recipe(),
        unstopped,
        tmp_path,
        kills=100,
        processes=1,
        moment=after_a_while(1.2),
    )


def test_kills_of_one_of_two_processes(tmp_path, whole_by_two):
    moment = after_a_while(2.5)
    kill_many(
        "kill -9, one of two processes",
        halved(),
        whole_by_two,
        tmp_path,
        kills=100,
        processes=2,
        moment=moment,
    )


def test_kills_while_a_checkpoint_is_written(tmp_path, unstopped):
    kind = "kill -9 while a checkpoint is being written"
    kill_many(kind, tiny_recipe(), unstopped, tmp_path, kills=30, processes=1, moment=while_writing)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_stop_signals_to_a_group_with_loader_workers(tmp_path, unstopped, number):
    times = random.Random(number)
    recipe = tiny_recipe(data={"num_workers": 2})
    for attempt in range(15):
        folder = tmp_path / f"run-{attempt}"
        (process,) = start(recipe, folder, resume=False, prepare=os.setpgrp)
        wait_until(lambda folder=folder: (folder / METRICS_FILE).exists())
        time.sleep(times.uniform(0, 1.0))
        if not process.is_alive():
            wait([process])
            continue
        os.killpg(process.pid, number)
        (code,) = wait([process])
        lost = steps_to_repeat(folder) if code == EXIT_STOPPED else None
        assert wait(start(recipe, folder, resume=True)) == [0]
        assert_same_ending(folder, unstopped)
        record(f"{number.name} to the group, 2 loader workers", survived=code in (0, EXIT_STOPPED), lost=lost)


@pytest.mark.parametrize("seed", range(20))
def test_a_killed_process_under_torchrun_is_started_again_by_itself(tmp_path, whole_by_two, seed):
    folder, choice = tmp_path / "run", random.Random(seed)
    launcher = Torchrun(halved(), folder, max_restarts=1)
    wait_until(lambda: len(CheckpointStore(folder).steps()) >= 1, seconds=120)
    time.sleep(choice.uniform(0, 1.0))
    workers = launcher.workers()
    os.kill(workers[choice.randrange(2)], signal.SIGKILL)
    lost = steps_to_repeat(folder)
    code = launcher.wait(180)
    record("kill -9 of a rank under torchrun --max-restarts", survived=code == 0, lost=lost)
    assert code == 0, launcher.output.read_text()
    assert_same_ending(folder, whole_by_two)


@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize("to_all", [False, True], ids=["launcher", "every process"])
def test_stop_signals_under_torchrun(tmp_path, whole_by_two, to_all, attempt):
    folder = tmp_path / "run"
    launcher = Torchrun(halved(data={"num_workers": 1}), folder)
    wait_until(lambda: len(CheckpointStore(folder).steps()) >= 1, seconds=120)
    if to_all:
        os.killpg(launcher.process.pid, signal.SIGTERM)
    else:
        launcher.process.send_signal(signal.SIGTERM)
    launcher.wait()
    lost = steps_to_repeat(folder)
    assert "stopping after this step" in launcher.output.read_text()
    assert wait(start(halved(), folder, resume=True, processes=2)) == [0, 0]
    assert_same_ending(folder, whole_by_two)
    kind = "SIGTERM to every process under torchrun" if to_all else "SIGTERM to torchrun"
    record(kind, survived=lost == 0, lost=lost)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of 10 steps and its checkpoints of steps 6, 8 and 10."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train(tiny_recipe(checkpoint={"every_steps": 2, "keep_last": 3}), folder=folder, callback=StopAfter(9))
    return folder


def damage(path, kind, choice):
    file = choice.choice(sorted(path.iterdir()))
    content = bytearray(file.read_bytes())
    if kind == "one bit flipped":
        content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
        file.write_bytes(content)
    elif kind == "cut short":
        file.write_bytes(content[: choice.randrange(len(content))])
    else:
        file.unlink()


@pytest.mark.parametrize("kind", ["one bit flipped", "cut short", "a file missing"])
def test_damage_to_the_newest_checkpoint_at_a_random_place(stopped, tmp_path, kind):
    choice = random.Random(kind)
    store = CheckpointStore(tmp_path)
    for _ in range(200):
        shutil.rmtree(store.folder, ignore_errors=True)
        shutil.copytree(CheckpointStore(stopped).folder, store.folder)
        damage(store.path(10), kind, choice)
        path, damages = store.newest_good()
        found = path == store.path(8) and [each.path for each in damages] == [store.path(10)]
        record(f"newest checkpoint: {kind}", survived=found, note="back to the checkpoint before")
        assert found


def test_damage_and_then_resuming(stopped, tmp_path, unstopped):
    choice = random.Random(11)
    for attempt in range(10):
        folder = shutil.copytree(stopped, tmp_path / f"run-{attempt}", symlinks=True)
        damage(CheckpointStore(folder).path(10), choice.choice(["one bit flipped", "cut short"]), choice)
        lost = steps_to_repeat(folder)
        train(tiny_recipe(), folder=folder, resume=True)
        assert_same_ending(folder, unstopped)
        record("newest checkpoint damaged, run resumed", survived=True, lost=lost)


def test_a_full_disk_at_a_random_fill(tmp_path, unstopped):
    choice = random.Random(5)
    for attempt in range(20):
        folder, limits = tmp_path / f"run-{attempt}", contextlib.ExitStack()
        size, first = choice.randrange(500, 60_000), choice.randrange(1, 8)

        def fill_and_free(record, limits=limits, size=size, first=first):
            if record.step == first:
                limits.enter_context(no_file_above(size))
            if record.step == first + 3:
                limits.close()

        watcher = Watcher(fill_and_free)
        result = train(tiny_recipe(), folder=folder, callback=watcher)
        newest, damages = CheckpointStore(folder).newest_good()
        good = result.status == "finished" and newest is not None and not damages
        failures = watcher.kinds().count("checkpoint_failed") + watcher.kinds().count("log_failed")
        record(
            "disk full for three steps",
            survived=good,
            note="only checkpoints and lines due then, lines later",
        )
        assert good and failures >= 0


def test_a_really_full_disk(tmp_path, unstopped):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        for attempt in range(5):
            folder, filler = disk / f"run-{attempt}", disk / "filler"

            def fill_and_free(record, filler=filler):
                if record.step == 5:
                    with contextlib.suppress(OSError):
                        filler.write_bytes(b"x" * 4_000_000)
                if record.step == 12:
                    filler.unlink()

            watcher = Watcher(fill_and_free)
            result = train(tiny_recipe(), folder=folder, callback=watcher)
            assert "checkpoint_failed" in watcher.kinds()
            assert result.status == "finished"
            assert ending(folder)["tensors"] == ending(unstopped)["tensors"]
            record("disk really full (tmpfs) for seven steps", survived=True, note="checkpoints due then")
            shutil.rmtree(folder)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_numbers_that_are_not_finite(tmp_path, monkeypatch):
    choice = random.Random(9)
    for attempt in range(20):
        folder = tmp_path / f"run-{attempt}"
        poison_loader(monkeypatch, epoch=choice.randrange(3), places={choice.randrange(12)})
        result = train(tiny_recipe(), folder=folder)
        record("NaN in an image", survived=result.bad_steps == 1, note="the step")
        assert result.bad_steps == 1


@pytest.mark.parametrize("deed", [hang, fail])
def test_a_rank_that_hangs_or_fails(tmp_path, whole_by_two, deed):
    choice = random.Random(2)
    for attempt in range(5):
        folder = tmp_path / f"run-{attempt}"
        group = start(
            halved(train={"rank_timeout_s": 3}),
            folder,
            resume=False,
            processes=2,
            prepare=FromCall(deed, choice.randrange(1, 30)),
        )
        codes = wait(group, seconds=60)
        named = "process 1" in (tmp_path / f"run-{attempt}.log.0").read_text()
        ended = codes == [EXIT_HUNG] * 2 if deed is hang else 0 not in codes
        lost = steps_to_repeat(folder)
        assert wait(start(halved(), folder, resume=True, processes=2)) == [0, 0]
        assert_same_ending(folder, whole_by_two)
        kind = "a rank hangs (3 s allowed)" if deed is hang else "a rank fails"
        record(kind, survived=named and ended, lost=lost)
        assert named and ended


def test_a_second_run_in_the_folder(tmp_path, unstopped):
    for attempt in range(10):
        folder = tmp_path / f"run-{attempt}"
        (first,) = start(tiny_recipe(), folder, resume=False)
        wait_until(lambda folder=folder: (folder / METRICS_FILE).exists())
        (second,) = start(tiny_recipe(), folder, resume=True)
        codes = wait([first, second])
        refused = (
            codes == [0, 1]
            and f"in use by process {first.pid}" in (tmp_path / f"run-{attempt}.log.0").read_text()
        )
        assert_same_ending(folder, unstopped)
        record("a second run in the folder", survived=refused, note="nothing")
        assert refused


def test_the_log_of_a_run_that_was_killed_often_reads(tmp_path):
    """Every line of the metrics is whole, and every step is there once."""
    folder = tmp_path / "run"
    times = random.Random(1)
    for _ in range(5):
        (process,) = start(tiny_recipe(), folder, resume=True)
        time.sleep(times.uniform(0.05, 0.8))
        process.kill()
        process.join()
    assert wait(start(tiny_recipe(), folder, resume=True)) == [0]
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == [*range(1, 19)]
