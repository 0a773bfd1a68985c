"""Files of a run that are pipes or devices, lead out of it, or are nested without end: refused, and nothing hangs."""

import hashlib
import json
import os

import pytest

from crosshead.files import parse_json, read_bytes
from crosshead.train.files import MANIFEST, Damaged, verify, write_manifest
from crosshead.train.logging.services import _kept
from crosshead.train.run_folder.lock import LOCK_FILE, FolderLock, is_held
from crosshead.train.tools.doctor import examine


def test_a_pipe_and_a_device_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            read_bytes(path)
    (tmp_path / "large").write_bytes(b"x" * 100)
    with pytest.raises(OSError, match="100 bytes, above the limit of 99"):
        read_bytes(tmp_path / "large", most=99)


def test_json_without_end_is_one_line():
    with pytest.raises(ValueError, match=r"^nested too deeply$"):
        parse_json("[" * 200_000 + "]" * 200_000)


@pytest.mark.parametrize("name", [MANIFEST, "weights"])
def test_a_pipe_in_a_checkpoint_is_damage(tmp_path, name):
    (tmp_path / "weights").write_bytes(b"1")
    write_manifest(tmp_path, {"weights": "0"})
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(Damaged, match=f"{name} cannot be read: not a regular file"):
        verify(tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/b", "..", ""])
def test_a_manifest_names_files_of_its_folder_alone(tmp_path, name):
    files = {"weights": {"sha256": "0", "bytes": 1}}
    (tmp_path / "weights").write_bytes(b"1")
    write_manifest(tmp_path, {"weights": "0"})
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["files"] = {name: files["weights"]}
    del manifest["sha256"]
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match="which is not in the folder"):
        verify(tmp_path)


def test_doctor_does_not_wait_for_a_pipe(tmp_path):
    for name in ("recipe.yaml", "versions.json", "classes.json", "metrics.jsonl", "result.json"):
        os.mkfifo(tmp_path / name)
    found = examine(tmp_path, None, read_images=False)
    assert not found.healthy
    assert {finding.subject for finding in found.findings} >= {"recipe.yaml", "metrics.jsonl"}


def test_a_lock_that_is_a_pipe_is_refused_and_a_service_waits_for_none(tmp_path):
    os.mkfifo(tmp_path / LOCK_FILE)
    for ask in (lambda: FolderLock(tmp_path).acquire(), lambda: is_held(tmp_path)):
        with pytest.raises(OSError, match="not a regular file"):
            ask()
    os.mkfifo(tmp_path / "wandb-id.txt")
    with pytest.raises(OSError, match="not a regular file"):
        _kept(tmp_path / "wandb-id.txt")
