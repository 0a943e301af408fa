"""How the C library keeps memory, for a process that moves many buffers of a few hundred kilobytes."""

from __future__ import annotations

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h of glibc


_YOUNG = 10_000
"""Objects between two looks for garbage in cycles. Events and units leave none, so 700 were looks at nothing:
4 % of the CPU of a drain."""


def settle_collector() -> None:
    """Look for garbage in cycles less often."""
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])


def settle_allocator() -> None:
    """Reuse such buffers instead of faulting in fresh pages for each, from few arenas.

    Measured on a drain of the audit log: 8 % less CPU, and half the memory over an idle process.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(_ARENA_MAX, 2)
    mallopt(_MMAP_THRESHOLD, 4 * 1024 * 1024)
    mallopt(_TRIM_THRESHOLD, 16 * 1024 * 1024)
