"""Large buffers that are used again instead of given back: on the CPU a step frees and takes the same gigabyte each time.

glibc maps every buffer above 32 MiB anew and the kernel zeroes it page by page, up to a quarter of a training step's
time. benchmarks/loop.py measures it.
"""

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # M_* of malloc.h


def want_large_pages() -> None:
    """Ask torch for 2 MiB pages on the CPU. Has an effect only before torch takes its first memory."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> bool:
    """From now on this process keeps what it frees for its next step; False where the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20))
    return all([mallopt(name, value) == 1 for name, value in settings])
