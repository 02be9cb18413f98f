"""An object store: shards are read by ranges of bytes, and again where a connection is lost."""

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

from convnext.data.store import printable
from convnext.data.stores.place import mapped, slices
from convnext.errors import ConvNeXtError, DataError, Unreachable, on_one_line
from convnext.extras import needs
from convnext.files import told_temporary
from convnext.streams import tell

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0)  # before each further try: four minutes altogether
_S3 = ("s3", "s3a")
_REFUSED = ("NoCredentialsError", "PartialCredentialsError", "ClientAuthenticationError", "ProfileNotFound")
_LONGEST = 200  # characters of a reason


class RemotePlace:
    """A folder of an object store, as 's3://bucket/pets', by fsspec. Each process has connections of its own."""

    far = None  # nothing of it is kept here

    def __init__(self, url: str):
        self.url, self.name = url.rstrip("/"), url.rstrip("/")
        self._open: tuple[int, Any, str] | None = None  # process, file system of fsspec, path there

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def read(self, file: str, first: int, size: int, *, fresh: bool = False, once: bool = False) -> bytes:
        """As `Place` has it. Raises Unreachable where the store has not answered after all `WAITS_S`."""
        if not size:
            return b""
        try:
            end = first + size
            return bytes(self.tried(file, lambda store, path: store.cat_file(path, start=first, end=end), once=once))
        except OSError as error:
            if error.errno == errno.EINVAL:  # the file ends before that range
                return b""
            raise

    def whole(self, file: str) -> bytes:
        """As `Place` has it. Raises Unreachable as `read` does."""
        return bytes(self.tried(file, lambda store, path: store.cat_file(path)))

    def mapped(self, file: str, size: int, *, fresh: bool = False) -> memoryview:
        """As `Place` has it, in a file that is gone with the last who looks at it."""
        with told_temporary():
            held = tempfile.TemporaryFile()  # noqa: SIM115 # closed below
        try:
            for data in slices(self, file, size):
                with told_temporary():
                    held.write(data)
                    held.flush()
            return mapped(held)
        finally:
            with contextlib.suppress(OSError):  # what a full disk did not take is written once more
                held.close()

    def tried(self, file: str, work: Callable[[Any, str], Any], *, writing: bool = False, once: bool = False) -> Any:
        """What `work` makes of the file system of fsspec and the path of `file` there, tried again where that is lost.

        Raises FileNotFoundError, OSError with EINVAL for a range that is not there, Unreachable as `read` does.
        """
        shown = f"{printable(self.name)}/{file}".rstrip("/")
        verb = "written" if writing else "read"
        for wait in (None,) if once else (*WAITS_S, None):
            try:
                store, root = self._store()
                return work(store, f"{root}/{file}".rstrip("/"))
            except (FileNotFoundError, ConvNeXtError):
                raise
            except Exception as error:  # each protocol has errors of its own for a lost connection
                if isinstance(error, OSError) and error.errno == errno.EINVAL:
                    raise
                if wait is None or _is_refusal(error):
                    raise _given_up(shown, error, verb) from None
                tell(f"'{shown}' cannot be {verb} ({_reason(error)}): trying again in {wait:g} s.")
                self._open = None
                time.sleep(wait)
        raise AssertionError

    def _store(self) -> tuple[Any, str]:
        """The file system and the path in it; a connection does not survive a fork."""
        if self._open is None or self._open[0] != os.getpid():
            protocol = self.url.partition("://")[0]
            files = needs("fsspec", f"'{self.url}'")
            how: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
            if protocol in _S3:
                needs("s3fs", f"'{self.url}'")
                how |= {"config_kwargs": {"retries": {"total_max_attempts": 1}}}  # those here are told
            try:
                store, root = files.core.url_to_fs(self.url, **how)
                if protocol in _S3:
                    store.retries = 1
            except (ImportError, ValueError) as error:
                raise DataError(f"'{printable(self.url)}' cannot be opened: {_reason(error)}.") from None
            self._open = (os.getpid(), store, root)
        return self._open[1], self._open[2]


def _is_refusal(error: Exception) -> bool:
    """Whether another try would end in the same way."""
    return isinstance(error, PermissionError) or type(error).__name__ in _REFUSED


def _given_up(shown: str, error: Exception, verb: str) -> Unreachable:
    if _is_refusal(error):
        return Unreachable(
            f"'{shown}' is refused: {_reason(error)}. Give credentials with which it can be {verb}, as its own "
            "tools take."
        )
    tried = f"tried {len(WAITS_S) + 1} times with {sum(WAITS_S):g} s between"
    return Unreachable(
        f"'{shown}' cannot be {verb}, {tried}: {_reason(error)}. Give the same command again when the store answers."
    )


def _reason(error: Exception) -> str:
    return on_one_line(str(error) or type(error).__name__)[:_LONGEST].rstrip(".")
