"""No warnings of Pillow's, in any number of threads."""

import threading
import warnings
from typing import Any


class Quiet:
    """Silences Pillow's warnings about odd files while any thread is inside; their images are decoded or refused.

    `warnings.catch_warnings` alone is not safe in threads: the last to leave would restore another one's silence.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.catch: Any = None

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.catch = warnings.catch_warnings()
                self.catch.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.catch.__exit__(None, None, None)
