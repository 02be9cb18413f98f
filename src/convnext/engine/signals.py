"""How a run is asked to stop."""

import signal
from types import FrameType
from typing import Any


class Stop:
    """SIGINT, SIGTERM and SIGHUP ask the loop to end after its step; SIGINT after that, a second Ctrl-C, ends it at once.

    A second SIGTERM is the same wish again: a scheduler sends it to all processes of a job, and the launcher among them
    passes it on.

    What the process was told to ignore stays ignored: so `nohup` does with SIGHUP.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in filter(None, (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))):
            if signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: the caller keeps its signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
