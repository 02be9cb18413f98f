"""Whether the other processes of a run still live. Each holds a connection to the first, and the system closes it when a
process ends, however that one ends: nobody has to answer, so a busy process is not taken for a lost one.

A collective of torch may wait long for a peer that is gone, and what no collective ends may take minutes. So a thread hears
of the loss, leaves the main thread a moment to end in its own words, and then ends the process.
"""

import contextlib
import hmac
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Literal

Word = Literal["done", "left", "failed", "lost"]

ENDED_S = 2.0  # for the main thread to end by itself after another process has failed, or went without a word
LEFT_S = 10.0  # after one has said that it leaves with a refusal, which the others may be about to raise too
_WORDS: dict[Word, bytes] = {"done": b"d", "left": b"l", "failed": b"f", "lost": b"x"}
_CONNECT_S = 5
_KEEP = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}  # a machine that vanishes closes nothing


class Peers:
    """The watch of one process over the others, from now until `close`.

    `lost` is called in a thread, and is to end the process. Made by `listening` or `connected`.
    """

    def __init__(self, lost: Callable[[], None], *, door: socket.socket | None, other: socket.socket | None, key: str):
        self._lost, self._door, self._key = lost, door, key.encode()
        self._others = {other} if other else set()
        self._wakes, self._waker = socket.socketpair()
        self._closed = threading.Event()
        self.gone = threading.Event()  # another process has ended, or is about to, otherwise than done
        self._chosen = selectors.DefaultSelector()
        for each in filter(None, (door, other, self._wakes)):
            self._chosen.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._watch, name="peers watch", daemon=True)
        self._thread.start()

    @classmethod
    def listening(cls, lost: Callable[[], None], processes: int, address: str) -> tuple["Peers", str]:
        """Of the first process, and what the others need to come to it: 'PORT KEY'. `address`: where they look for it."""
        with contextlib.suppress(OSError):
            address = socket.gethostbyname(address)
        here = address if address.startswith("127.") else ""  # on one machine nobody outside is heard
        door = socket.create_server((here, 0), backlog=processes)
        key = secrets.token_hex(16)  # who does not know it is none of us
        return cls(lost, door=door, other=None, key=key), f"{door.getsockname()[1]} {key}"

    @classmethod
    def connected(cls, lost: Callable[[], None], host: str, place: str) -> "Peers | None":
        """Of another process; None where a firewall stands between, and torch alone notices a loss."""
        port, key = place.split()
        try:
            other = socket.create_connection((host, int(port)), timeout=_CONNECT_S)
            other.sendall(key.encode())
        except OSError:
            return None
        other.settimeout(None)
        return cls(lost, door=None, other=_kept_alive(other), key=key)

    def say(self, word: Word) -> None:
        """The last word of this process: it is done, leaves with a refusal, has failed alone, or has lost another one."""
        for each in tuple(self._others):
            with contextlib.suppress(OSError):
                each.sendall(_WORDS[word])

    def close(self, word: Word) -> None:
        """End the watch, with a last word to those that have had none."""
        self._closed.set()
        self._waker.send(b".")
        self._thread.join(2 * _CONNECT_S)
        if self._door:
            self._door.setblocking(False)
            while self._welcome():  # who came and was not yet let in
                pass
        self.say(word)
        for each in (*self._others, *filter(None, [self._door]), self._wakes, self._waker):
            each.close()
        self._chosen.close()

    def _watch(self) -> None:
        while True:
            for key, _ in self._chosen.select():
                if key.fileobj is self._wakes:
                    return
                if key.fileobj is self._door:
                    self._welcome()
                    continue
                other = key.fileobj
                assert isinstance(other, socket.socket)
                word = _heard(other)
                self._chosen.unregister(other)
                self._others.discard(other)
                other.close()
                if word != _WORDS["done"]:
                    self.gone.set()
                    self._end(LEFT_S if word == _WORDS["left"] else ENDED_S)
                    return

    def _end(self, patience_s: float) -> None:
        self.say("lost" if patience_s == ENDED_S else "left")
        if not self._closed.wait(patience_s):
            self._lost()

    def _welcome(self) -> bool:
        """Let one process in that stands before the door; whether there was any."""
        assert self._door
        try:
            other, _ = self._door.accept()
        except OSError:
            return False
        other.settimeout(_CONNECT_S)
        with contextlib.suppress(OSError):
            if hmac.compare_digest(_exactly(other, len(self._key)), self._key):
                other.settimeout(None)
                self._others.add(_kept_alive(other))
                if not self._closed.is_set():
                    self._chosen.register(other, selectors.EVENT_READ)
                return True
        other.close()
        return True


def _heard(other: socket.socket) -> bytes:
    """Its last word; b'' where it ended without one."""
    try:
        return other.recv(1)
    except OSError:
        return b""


def _exactly(other: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (more := other.recv(count - len(got))):
        got += more
    return got


def _kept_alive(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
