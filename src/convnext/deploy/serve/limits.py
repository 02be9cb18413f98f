"""What one request may ask of the server, and how it is told that it asked for more."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from convnext.errors import ConvNeXtError, nearest

MB = 1_000_000  # bytes
MEGAPIXEL = 1_000_000
HEADERS_BYTES = 16_384  # of all headers of a request
HEADERS_S = 10  # for a request line and its headers to come
CONNECTIONS = 1_000  # at a time
IDLE_S = 15  # that a connection may stay open between two requests


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How the server shares its machine among those who ask."""

    batch: int = 8  # images that pass a network together
    window_ms: float = 0  # that an idle network waits for more images; 0: it answers at once
    queue: int = 256  # images that wait or are worked on; more are refused
    files: int = 64  # images of one request
    body_mb: float = 32  # of one request
    held_mb: float = 256  # of all requests that are not answered yet
    megapixels: float = 64  # of one image
    timeout_s: float = 30  # of one request, from its headers to its answer

    def __post_init__(self) -> None:
        for name in ("batch", "queue", "files", "body_mb", "held_mb", "megapixels", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ConvNeXtError(f"{name} = {getattr(self, name):g} is refused: it must be more than 0.")
        if not 0 <= self.window_ms < 1000 * self.timeout_s:
            raise ConvNeXtError(
                f"window_ms = {self.window_ms:g} is refused: it is 0, or less than the {self.timeout_s:g} s of a request."
            )
        if self.files > self.queue:
            raise ConvNeXtError(f"files = {self.files} do not fit into queue = {self.queue}. Raise the second.")


def limits_of(values: Mapping[str, float]) -> Limits:
    """`Limits` of these fields. Raises ConvNeXtError for one that there is not, and for a value that it cannot have."""
    known = [each.name for each in fields(Limits)]
    for name in values:
        if name not in known:
            raise ConvNeXtError(f"'{name}' is no limit of a server, only {', '.join(known)}.{nearest(name, known)}")
    return Limits(**values)  # type: ignore[arg-type]


class Refused(ConvNeXtError):
    """A request that is not answered, with the status of HTTP that says why."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None):
        super().__init__(text)
        self.status, self.headers = status, dict(headers or {})


@dataclass(eq=False)
class Held:
    """The bytes of all requests that are in memory."""

    most: int
    now: int = field(default=0)

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """The bytes of one request; what it holds is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.now -= share.size


@dataclass(eq=False)
class Share:
    """What one request holds of `held`."""

    held: Held
    size: int = 0

    def grow(self, more: int) -> None:
        """Take `more` bytes. Raises Refused where the server has no room for them now."""
        if self.held.now + more > self.held.most:
            raise Refused(503, "The server has no room for more bytes now. Ask again.", {"Retry-After": "1"})
        self.held.now += more
        self.size += more
