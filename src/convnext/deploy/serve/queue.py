"""Images of all requests on their way through the networks: read side by side, answered together, never more than fit.

Threads decode and transform, which decoders do without Python's lock; one thread computes for all networks, each batch on
all cores. A process for the network would copy every image once more, and there is little for it to win: measured roughly, on
two busy cores, an image of atto at 224 px cost 1.04 to 1.08 times the processor seconds of `predict` (`benchmarks/serve.py`).
Images are decoded at most a batch ahead of the network, so that what waits are the bytes of files and no pixels.
"""

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from convnext.cores import cores
from convnext.deploy.images import Given, Read, Size
from convnext.deploy.prediction import Prediction
from convnext.deploy.predictor import Predictor
from convnext.deploy.serve.limits import MEGAPIXEL, Limits, Refused
from convnext.deploy.serve.metrics import Metrics
from convnext.deploy.serve.models import Model
from convnext.errors import DataError

_SLOWEST_S = 30  # that a client is asked to wait before it asks again
Options = tuple[tuple[str, Any], ...]  # of `Predictor.answers`: images with the same ones are answered together


@dataclass(eq=False)
class Item:
    """One image that is asked about."""

    model: Model
    given: Given
    number: int  # among the images of its request, from 1
    options: Options
    answer: asyncio.Future[Prediction]
    since: float = field(default_factory=time.monotonic)
    predictor: Predictor[Prediction] | None = None  # that read it: the same must answer it
    read: Read | None = None


class Queue:
    """What waits, what is read, what is being answered."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.count = 0  # images that are not answered yet
        self.metrics: Metrics | None = None
        self._waiting: deque[Item] = deque()
        self._ready: deque[Item] = deque()  # read, for the network
        self._ahead = 0  # being read, read or being answered
        self._threads = ThreadPoolExecutor(max(2, cores()), "read")
        self._network = ThreadPoolExecutor(1, "network")
        self._wake = asyncio.Event()
        self._image_s = 0.05  # of an image in the network, a running mean

    async def run(self) -> None:
        """Answer for ever, in the order in which images came; cancelled at the end of the server."""
        try:
            while True:
                await self._until_ready()
                batch = self._taken()
                if batch:
                    await self._answer(batch)
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._network.shutdown(wait=False, cancel_futures=True)

    def submit(self, model: Model, images: Sequence[Given], options: Options) -> list[asyncio.Future[Prediction]]:
        """The answers to come for the images of one request; cancelling one frees its place.

        Raises Refused, with the time after which to ask again, where not all of them have a place.
        """
        if self.count + len(images) > self.limits.queue:
            wait_s = min(_SLOWEST_S, max(1, round(self.count * self._image_s)))
            raise Refused(503, f"{self.count} images wait already. Ask again.", {"Retry-After": str(wait_s)})
        loop = asyncio.get_running_loop()
        items = [Item(model, given, number, options, loop.create_future()) for number, given in enumerate(images, 1)]
        for item in items:
            self.count += 1
            item.answer.add_done_callback(partial(self._leave, item))
        self._waiting += items
        self._feed()
        return [item.answer for item in items]

    def _leave(self, item: Item, answer: "asyncio.Future[Prediction]") -> None:
        """An image was answered, or nobody waits for its answer any more."""
        self.count -= 1
        if answer.cancelled():
            with contextlib.suppress(ValueError):
                self._waiting.remove(item)
        if self.metrics:
            outcome = "cancelled" if answer.cancelled() else "refused" if answer.exception() else "answered"
            self.metrics.images.labels(item.model.name, outcome).inc()

    def _feed(self) -> None:
        """Have images read, as many as the network may need next."""
        while self._waiting and self._ahead < self._most_ahead(self._waiting[0]):
            item = self._waiting.popleft()
            self._ahead += 1
            item.predictor = item.model.predictor
            reading = asyncio.get_running_loop().run_in_executor(self._threads, self._read, item)
            reading.add_done_callback(partial(self._was_read, item))

    def _most_ahead(self, item: Item) -> int:
        """Two batches: one in the network and the next."""
        return 2 * self._together(item)

    def _together(self, item: Item) -> int:
        """Images of that network that pass it together: a detector or a segmenter takes one after the other."""
        return self.limits.batch if item.model.task == "classification" else 1

    def _read(self, item: Item) -> Read:
        """In a thread. Raises DataError, with the bare reason."""
        assert item.predictor
        return item.predictor.read(item.given, item.number, self._check)

    def _check(self, size: Size) -> None:
        height, width = size
        if height * width > self.limits.megapixels * MEGAPIXEL:
            raise DataError(
                f"its {width} x {height} pixels are more than the {self.limits.megapixels:g} megapixels that this server "
                "takes; make it smaller"
            )

    def _was_read(self, item: Item, done: "asyncio.Future[Read]") -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error or item.answer.done():
            self._ahead -= 1
            if error and not item.answer.done():
                item.answer.set_exception(error)
            self._feed()
            return
        item.read = done.result()
        self._ready.append(item)
        self._wake.set()

    async def _until_ready(self) -> None:
        """Until there is something to answer and, within the window, enough of it."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        end = self._ready[0].since + self.limits.window_ms / 1000
        while len(self._ready) < self._together(self._ready[0]) and (left := end - time.monotonic()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)

    def _taken(self) -> list[Item]:
        """The next batch: images of the network whose turn it is, with equal options; whoever has left is passed over."""
        batch: list[Item] = []
        others: deque[Item] = deque()
        for item in self._ready:
            first = batch[0] if batch else item
            alike = item.predictor is first.predictor and item.options == first.options
            if item.answer.done():
                self._ahead -= 1
            elif alike and len(batch) < self._together(first):
                batch.append(item)
            else:
                others.append(item)
        self._ready = others
        return batch

    async def _answer(self, batch: Sequence[Item]) -> None:
        began = time.monotonic()
        found = await asyncio.get_running_loop().run_in_executor(self._network, _answers, batch)
        took = time.monotonic() - began
        self._image_s += 0.1 * (took / len(batch) - self._image_s)
        if self.metrics:
            self.metrics.batches.labels(batch[0].model.name).observe(len(batch))
            self.metrics.network.labels(batch[0].model.name).observe(took)
        self._ahead -= len(batch)
        for item, answer in zip(batch, found, strict=True):
            if item.answer.done():  # nobody waits for it
                continue
            if isinstance(answer, Exception):
                item.answer.set_exception(answer)
            else:
                item.answer.set_result(answer)
        self._feed()

    async def aside(self, work: Callable[[], Any]) -> Any:
        """Something that would hold up the loop, such as drawing, in a thread that reads images."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _answers(batch: Sequence[Item]) -> Sequence[Prediction | Exception]:
    """In the thread of the networks. Where images fail together, each is asked about alone: one may spoil the others."""
    predictor, how = batch[0].predictor, dict(batch[0].options)
    assert predictor
    reads = [item.read for item in batch if item.read is not None]
    try:
        return list(predictor.answers(reads, **how))
    except Exception as error:  # noqa: BLE001 # whatever it is, it belongs to a request, not to the server
        return [error] if len(batch) == 1 else list(itertools.chain.from_iterable(_answers([item]) for item in batch))
