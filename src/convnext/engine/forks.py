"""torch in a process that was forked from one that used it: the threads stay behind, and their OpenMP waits for them for ever.

So such a child computes with one thread, which needs none of them. Whoever wants more starts it by spawn or forkserver.
"""

import os
from functools import cache

import torch

from convnext.streams import tell


class _Fork:
    """Whether this process has been forked and is yet to say what that means."""

    silent = True

    def happened(self) -> None:
        """Called in the child."""
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            self.silent = False


_FORK = _Fork()


@cache
def survive() -> None:
    """From now on every fork of this process is safe to compute in. Where there is no fork, nothing is done."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_FORK.happened)


def tell_once() -> None:
    """In such a child, at its first answer: why it computes with one thread."""
    if not _FORK.silent:
        _FORK.silent = True
        tell(
            "This process was forked from one that had used torch, whose threads do not come along: it computes with one. "
            "Start it by spawn or forkserver for more."
        )
