"""The C allocator, set for training on a CPU.

glibc takes every buffer of more than 32 MB from the kernel and gives it back when it is freed, so that each step of a
training run touches, and has zeroed, the same gigabytes of fresh pages. Kept on the heap instead, the buffers are
used again: a training step of the authors' ViT-Tiny takes 2.5 times timm's with the default and 1.4 times with this.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_HUGE = 2**31 - 1  # the largest number that mallopt takes


def tune_allocator() -> str:
    """Keeps large buffers on the heap from now on; says in a word what is in force.

    Safe at any time: both settings only change when memory goes back to the system, which on the heap is when the
    process ends or more than 2 GB at its top are free. ``glibc`` where it took effect, ``environment`` where the user
    has set ``MALLOC_*`` or loaded another allocator (nothing is changed then), ``default`` elsewhere.
    """
    chosen = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "LD_PRELOAD")
    if any(name in os.environ for name in chosen):
        return "environment"
    if not sys.platform.startswith("linux"):
        return "default"
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return "default"
    took = libc.mallopt(_M_MMAP_THRESHOLD, _HUGE) and libc.mallopt(_M_TRIM_THRESHOLD, _HUGE)
    return "glibc" if took else "default"
