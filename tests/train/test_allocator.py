"""The C allocator: tuned where it can be, left alone where the user has chosen."""

import ctypes
import os
import sys

import pytest

from crosshead.train.loop import devices
from crosshead.train.loop.devices import tune_allocator

on_glibc = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in [n for n in os.environ if n.startswith("MALLOC_") or n == "LD_PRELOAD"]:
        monkeypatch.delenv(name)


def test_takes_effect_on_glibc():
    assert tune_allocator() == ("glibc" if on_glibc else "default")


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD"])
def test_the_users_choice_stands(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda _: pytest.fail("the allocator was touched"))
    assert tune_allocator() == "environment"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda _: pytest.fail("the allocator was touched"))
    assert tune_allocator() == "default"
