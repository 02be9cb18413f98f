"""Who may ask: the names of the server, the pages that may call it, the key. And what goes with every answer.

A page of somebody else's can make a browser ask a server on the same machine, by a name that it points there (DNS
rebinding) or from its own origin: the Host header and the Origin header tell.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

from convnext.deploy.serve.limits import HEADERS_BYTES, Refused
from convnext.deploy.serve.metrics import Metrics
from convnext.errors import ConvNeXtError, on_one_line, reason_of
from convnext.files import to_json
from convnext.streams import tell

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/healthz",)  # what needs no key
_SHORTEST = 16  # characters of a key
_SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_ASKED_BY_PAGES = "content-type, authorization, x-api-key, inference-header-content-length"  # headers


def read_key(file: str | os.PathLike[str]) -> str:
    """The key in a file: its one line. Raises ConvNeXtError where there is none that could be one."""
    try:
        key = Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConvNeXtError(f"--api-key-file {file} cannot be read: {reason_of(error)}.") from None
    if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise ConvNeXtError(
            f"--api-key-file {file} holds no key: one line of at least {_SHORTEST} letters and digits. "
            "`openssl rand -hex 32` makes one."
        )
    return key


class Guard:
    """Around the application: refuses who may not ask, turns every error into a line of JSON, counts and times."""

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        *,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        key: str | None = None,
    ):
        """`hosts`: names of the server beside localhost and any address in numbers; `origins`: of pages of other servers
        that may ask; `key`: what every request but those for OPEN must bring."""
        self.app, self.metrics = app, metrics
        self.hosts = {"localhost", *(host.lower() for host in hosts)}
        self.origins = {origin.lower().rstrip("/") for origin in origins}
        self.key = None if key is None else _digest(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        more = self._more(headers)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            self._check(scope, headers)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _answer(sending, 204, b"", {})
            else:
                await self.app(scope, receive, sending)
        except Exception as error:  # noqa: BLE001 # the last place before the client, which gets no traceback
            if not status:  # else the application has said what it had to say, and told the owner
                found, body, named = told(error)
                await _answer(sending, found, body, named)
        path = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(time.monotonic() - began)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raises Refused."""
        if (size := sum(len(name) + len(value) for name, value in scope["headers"])) > HEADERS_BYTES:
            raise Refused(431, f"The headers have {size} bytes, and {HEADERS_BYTES} are the most.")
        host = headers.get("host", "")
        if not self._ours(host):
            raise Refused(
                403, f"'{on_one_line(host)}' is no name of this server. `convnext serve --allow-host` makes it one."
            )
        origin = headers.get("origin", "").lower()
        if origin and origin.partition("://")[2] != host.lower() and origin not in self.origins:
            raise Refused(
                403, f"Pages of '{on_one_line(origin)}' may not ask here. `convnext serve --allow-origin` allows it."
            )
        asks = scope["method"] == "OPTIONS" and origin in self.origins  # a browser asks without the key whether it may
        if self.key and scope["path"] not in OPEN and not asks and not self._knows(headers):
            text = "The key is missing or wrong. Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
            raise Refused(401, text, {"WWW-Authenticate": 'Basic realm="convnext: any name, and the key"'})

    def _ours(self, host: str) -> bool:
        """Whether a Host header names this server. An address in numbers cannot be pointed elsewhere."""
        name = (
            host.lower().rpartition(":")[0]
            if host.rpartition(":")[2].isdecimal() and host[-1:] != "]"
            else host.lower()
        )
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return name in self.hosts
        return True

    def _knows(self, headers: dict[str, str]) -> bool:
        """Whether a request brings the key, in one of the forms of HTTP; a browser sends it as a password."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                value = ""
        elif kind.lower() != "bearer":
            value = headers.get("x-api-key", "")
        return self.key is not None and hmac.compare_digest(_digest(value.strip()), self.key)

    def _more(self, headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
        """What goes with every answer."""
        more = dict(_SECURITY)
        origin = headers.get("origin", "")
        if origin.lower() in self.origins:
            more |= {"access-control-allow-origin": origin, "access-control-allow-headers": _ASKED_BY_PAGES}
            more |= {
                "access-control-allow-methods": "GET, POST",
                "access-control-expose-headers": "*",
                "vary": "Origin",
            }
        else:
            more["cross-origin-resource-policy"] = "same-origin"
        return [(name.encode(), value.encode("latin-1", "replace")) for name, value in more.items()]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def told(error: Exception) -> tuple[int, bytes, dict[str, str]]:
    """What a client is told of any error, in one line of JSON: status, body, headers. The owner is told of ours."""
    if isinstance(error, Refused):
        status, text, headers = error.status, str(error), error.headers
    elif isinstance(error, ConvNeXtError):
        status, text, headers = 422, str(error), {}
    else:
        status, text, headers = 500, "The server made a mistake; it has told its owner.", {}
        tell(f"convnext: a mistake of ours, please report it: {_place_of(error)}.")
    return status, to_json({"error": on_one_line(text)}).encode(), headers


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    named = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


def _place_of(error: BaseException) -> str:
    """What happened and where, on one line."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f", {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}: {error}{place}"
