"""The process: its socket, its connections, and its end.

SIGTERM ends it with status 0, SIGINT and SIGHUP with 130, each once everything that it took is answered; a second one at
once.
"""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from convnext.deploy.serve.app import Service
from convnext.deploy.serve.guard import App
from convnext.deploy.serve.limits import CONNECTIONS, HEADERS_BYTES, HEADERS_S, IDLE_S
from convnext.errors import ConvNeXtError
from convnext.files import to_json

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_GRACE_S = 5  # beyond the time of one request, until the end is no longer waited for


class Connection(H11Protocol):
    """A connection that must ask within HEADERS_S, and hears of a broken request in JSON."""

    def __init__(self, *arguments: Any, **more: Any):
        super().__init__(*arguments, **more)
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Too many are sent away."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.write(_raw(503, "Service Unavailable", "Too many connections. Ask again."))
            transport.close()
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        """As always; what trickles in and is no request yet has its time."""
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._forget()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """One line of JSON, as for every refusal."""
        text = f"{msg} Headers have at most {HEADERS_BYTES} bytes in all."
        self.transport.write(_raw(400, "Bad Request", text))
        self.transport.close()

    def _expect(self) -> None:
        """Between two requests a timer runs; while one is worked on, the application has its own."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._late is None:
            self._late = self.loop.call_later(HEADERS_S, self._too_late)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's, which remembers what ended it and leaves the signals of the process as they were."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self.service = service
        self.ended_by: int | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While it serves; what the process was told to ignore stays ignored."""
        main = threading.current_thread() is threading.main_thread()
        numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        before = {n: signal.getsignal(n) for n in numbers if main and signal.getsignal(n) != signal.SIG_IGN}
        try:
            for number in before:
                signal.signal(number, self.handle_exit)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first asks it to end, the second does not wait."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = self.service.stopping = True
        self.ended_by = self.ended_by or sig


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections; `port` 0 is any free one. Raises ConvNeXtError where the system refuses."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConvNeXtError(f"--host {host} is no address of this machine: {error}.") from None
    opened = socket.socket(family, kind, number)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(2048)
        opened.setblocking(False)
    except (OSError, OverflowError) as error:
        opened.close()
        reason = getattr(error, "strerror", None) or error
        raise ConvNeXtError(f"Port {port} of {host} cannot be had: {reason}. Choose another with --port.") from None
    return opened


def address_of(opened: socket.socket) -> str:
    """'http://127.0.0.1:8000'."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(opened: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(opened.getsockname()[0]).is_loopback


def answer_until_told(app: App, service: Service, opened: socket.socket) -> None:
    """Answer until a signal asks for the end. Raises KeyboardInterrupt where that was another one than SIGTERM."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADERS_BYTES,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=int(service.limits.timeout_s) + _GRACE_S,
    )
    server = Server(config, service)
    server.run([opened])
    if server.ended_by not in (None, signal.SIGTERM):
        raise KeyboardInterrupt


def _raw(status: int, phrase: str, text: str) -> bytes:
    """A whole answer, where there is no request to answer."""
    body = to_json({"error": text})
    head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    more = "retry-after: 1\r\n" if status == 503 else ""
    return f"{head}{more}connection: close\r\n\r\n{body}".encode()
