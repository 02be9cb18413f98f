"""One process at a time in the folder of a run, from the first look at the data to the last file."""

import contextlib
import errno
import os
from pathlib import Path

from filelock import FileLock, Timeout

from convnext.errors import ConvNeXtError, TrainingError
from convnext.files import refuse_unusable, remove_abandoned

LOCK = ".lock"
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # what file systems say that have none
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class Claim:
    """One process at a time in a folder; the claim ends with the process, however it ends.

    The processes that it starts to read images do not hold the lock: where they outlive it, the folder is free.
    A claim under which nothing was written leaves nothing behind.
    """

    def __init__(self, path: Path):
        self._path, self._file = path, path / LOCK
        self._new = [place for place in (path, *path.parents) if not os.path.exists(place)]  # the innermost first
        self._lock = FileLock(self._file, timeout=0, fallback_to_soft=False)
        self._mark = (0, 0)

    def __enter__(self) -> "Claim":
        refuse_unusable(self._path, folder=True)
        try:
            self._take()
        except Timeout:
            raise ConvNeXtError(
                f"Another process is working in '{self._path}'. Choose another --out, or wait for it."
            ) from None
        except OSError as error:
            raise ConvNeXtError(
                f"Cannot write into '{self._path}': {error.strerror}. Choose a folder of yours with --out."
            ) from None
        remove_abandoned(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # another system may keep a file that is open
            if [file.name for file in self._path.iterdir()] == [LOCK] and _mark_of(self._file) == self._mark:
                self._file.unlink()  # while it is held: nobody else has it
        self._lock.release()
        with contextlib.suppress(OSError):  # a folder that is not empty stays
            for place in self._new:
                place.rmdir()

    def _take(self) -> None:
        """Make the folder and lock it. Raises Timeout, OSError."""
        while True:
            self._path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except OSError as error:
                if error.errno not in _WITHOUT_LOCKS:
                    raise
                self._file.touch()
            with contextlib.suppress(FileNotFoundError):  # whoever held it has just removed it: it locks nobody out
                self._mark = _mark_of(self._file)
                return
            self._lock.release()

    def check(self) -> None:
        """Raise TrainingError where the folder, or the lock in it, is no longer the one that was claimed.

        It was removed, replaced or unmounted: another process may be in what has its name now.
        """
        try:
            held = _mark_of(self._file) == self._mark
        except OSError as error:
            if error.errno not in _GONE:
                return  # a passing trouble of the disk, which whoever writes meets
            held = False
        if not held:
            what = "replaced, or its .lock removed," if self._path.is_dir() else "removed"
            raise TrainingError(
                f"'{self._path}' was {what} while this process worked there, so it ends and writes nothing more. "
                "Put the folder back where you can; the same command goes on from what it holds."
            )


def _mark_of(file: Path) -> tuple[int, int]:
    """What tells a file from another that takes its name: while it is open its number is given to no other."""
    found = os.stat(file)
    return found.st_dev, found.st_ino
