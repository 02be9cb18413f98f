"""Servers that tests ask: in their own process, without a socket, or as a process of their own."""

import asyncio
import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from PIL import Image

from children import PATIENCE_S, environment
from convnext.deploy.serve.app import Service, application
from convnext.deploy.serve.limits import Limits
from convnext.deploy.serve.models import Model, Models

Found = TypeVar("Found")
Work = Callable[[httpx.AsyncClient, Service], Awaitable[Found]]


def asked(models: Models, work: Work[Found], *, limits: Limits | None = None, **doors: Any) -> Found:
    """What `work` finds when it asks a server of `models`; `doors` are those of `application`."""

    async def served() -> Found:
        app, service = application(models, limits, **doors)
        answering = asyncio.create_task(service.queue.run())
        try:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
                return await work(client, service)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    return asyncio.run(served())


def one(models: Models, method: str, path: str, *, limits: Limits | None = None, doors: Any = None, **more: Any) -> Any:
    """The answer to one request."""

    async def ask(client: httpx.AsyncClient, service: Service) -> httpx.Response:
        return await client.request(method, path, **more)

    return asked(models, ask, limits=limits, **(doors or {}))


def pixels_of(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """(H, W, 3), another image for each number."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def write_images(folder: Path, count: int) -> list[Path]:
    """Files of `pixels_of`, of different sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        Image.fromarray(pixels_of(number, 40 + number, 64)).save(file)
    return files


class Held:
    """A predictor that answers when `go` is set, and counts the images that it was asked about."""

    def __init__(self, predictor: Any):
        self.predictor, self.go, self.begun = predictor, threading.Event(), threading.Event()
        self.batches: list[int] = []

    def answers(self, read: Any, **how: Any) -> list[Any]:
        self.begun.set()
        assert self.go.wait(PATIENCE_S)
        self.batches.append(len(read))
        return list(self.predictor.answers(read, **how))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.predictor, name)


def held_back(model: Model) -> tuple[Models, Held]:
    """A server's network that waits until it is let go."""
    held = Held(model.predictor)
    return Models([Model("slow", model.source, "best", "cpu", held, ())]), held  # type: ignore[arg-type]


@contextlib.contextmanager
def process(*arguments: object, **options: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`convnext serve ARGUMENTS --port 0` and its address; it is killed at the end where it still runs."""
    command = [sys.executable, "-m", "convnext", "serve", *map(str, arguments), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}
    with subprocess.Popen(command, **{**pipes, **options}) as server:
        try:
            assert server.stderr
            said = []
            for line in server.stderr:
                said.append(line)
                if found := re.match(r"Serving at (http://\S+) until", line):
                    break
            else:
                raise AssertionError("".join(said))
            yield server, found[1]
        finally:
            server.kill()
