"""Files of a slow place that are fetched before they are read, by threads of this process."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future

_AT_ONCE = 8  # files that are fetched at the same time
_MOST = 32 << 20  # bytes of files that are fetched and not read yet: a process that reads may be one of 64


class Ahead:
    """What is fetched before it is read. Of one process: threads do not survive a fork.

    `fetch` gives the bytes of a file, or raises whatever it likes: who reads a file that could not be fetched ahead
    fetches it again, and sees the error then.
    """

    def __init__(self, fetch: Callable[[str], bytes]):
        self.fetch = fetch
        self._lock = threading.Lock()
        self._wanted: deque[tuple[str, int]] = deque()  # not begun: name, bytes
        self._coming: dict[str, tuple[Future[bytes | None], int]] = {}  # begun, and not taken
        self._running = 0

    def expect(self, sizes: Mapping[str, int]) -> None:
        """`sizes`: file -> bytes of all that will be read next, in that order. What was expected before is let go of."""
        with self._lock:
            self._coming = {name: held for name, held in self._coming.items() if name in sizes}
            wanted = ((name, size) for name, size in sizes.items() if size <= _MOST and name not in self._coming)
            self._wanted = deque(wanted)
            self._begin()

    def take(self, name: str) -> bytes | None:
        """The file, once it is there; None where it was not expected, not begun yet or could not be fetched."""
        with self._lock:
            held = self._coming.get(name)
            if held is None:
                self._wanted = deque(each for each in self._wanted if each[0] != name)
                return None
        data = held[0].result()
        with self._lock:
            self._coming.pop(name, None)
            self._begin()
        return data

    def _begin(self) -> None:
        """Start threads for what is wanted and has room. The lock is held."""
        while self._running < _AT_ONCE and (found := self._next()) is not None:
            self._running += 1
            threading.Thread(target=self._work, args=found, daemon=True).start()

    def _next(self) -> tuple[str, "Future[bytes | None]"] | None:
        """What is fetched next, if there is room for it. The lock is held."""
        held = sum(size for _, size in self._coming.values())
        if not self._wanted or held + self._wanted[0][1] > _MOST:
            return None
        name, size = self._wanted.popleft()
        made: Future[bytes | None] = Future()
        self._coming[name] = (made, size)
        return name, made

    def _work(self, name: str, made: "Future[bytes | None]") -> None:
        """Fetch a file, and others as long as there are any."""
        while True:
            try:
                made.set_result(self.fetch(name))
            except Exception:  # noqa: BLE001 # who reads it sees it
                made.set_result(None)
            with self._lock:
                found = self._next()
                if found is None:
                    self._running -= 1
                    return
            name, made = found
