"""The short way of a prediction, around the framework; and what every refusal looks like, on either way."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from convnext.deploy.serve.guard import App, Receive, Scope, Send, told
from convnext.deploy.serve.limits import Refused
from convnext.errors import ConvNeXtError

PREDICT = "/v1/predict"
Endpoint = Callable[[Request], Awaitable[Response]]
_HANG_UP = 499  # a status for the counters alone: nobody reads it


@dataclass(frozen=True)
class Direct:
    """The application, but for predictions, whose way through the framework would be a good part of a small network's time.

    The framework knows their address too: from it /docs tells of them.
    """

    app: App
    predict: Endpoint
    path: str = PREDICT  # where `Guard` looks for it, as of a route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] != PREDICT or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        scope["route"], request = self, Request(scope, receive, send)
        try:
            response = await self.predict(request)
        except (HTTPException, ConvNeXtError, ClientDisconnect) as error:
            response = await refusal(request, error)
        await response(scope, receive, send)


async def refusal(request: Request, error: Exception) -> Response:
    """Every error as one line of JSON."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=_HANG_UP)
    if isinstance(error, HTTPException):
        known = {
            404: f"Nothing is at '{request.url.path}'. /docs lists what is.",
            405: "Another method is needed here.",
        }
        error = Refused(error.status_code, known.get(error.status_code, str(error.detail)), error.headers)
    status, body, headers = told(error)
    return Response(body, status, headers, "application/json")
