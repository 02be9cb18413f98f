"""The memory on which a thread's signal handlers run: OpenVINO replaces it and can leave freed memory in its place.

A plugin for the CPU takes over the stack of the thread that loads it and gives back, when it is destroyed, the one that
it found. Two plugins that are not destroyed in reverse order so put back a stack that no longer exists, and the next
signal ends the process: the end of a child is enough, where a data loader listens for it. Python's own handlers all run
on that stack.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2), as Linux orders its fields."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept() -> Iterator[None]:
    """Afterwards this thread's signals run where they ran before, whatever was loaded within."""
    if sys.platform != "linux":  # elsewhere the plugin leaves it alone
        yield
        return
    system, before = ctypes.CDLL(None), Stack()
    known = system.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            system.sigaltstack(ctypes.byref(before), None)
