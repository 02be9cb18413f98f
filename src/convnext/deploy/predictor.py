"""What every trained network is to its users, whatever its task: one image or many in, a value for each out.

Axes: C features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from convnext.config import Recipe, override
from convnext.data.store import printable
from convnext.deploy.images import (
    ChannelOrder,
    Check,
    Given,
    ManyImages,
    OneImage,
    Read,
    Transform,
    many_images,
    one_image,
    read_images,
    read_one,
)
from convnext.deploy.prediction import Prediction
from convnext.errors import ConvNeXtError, DataError, number_of, reason_of
from convnext.tasks.finite import NotFinite
from convnext.tasks.result import Evaluation

Answer = TypeVar("Answer", bound=Prediction, covariant=True)
Made = TypeVar("Made")
Features = NDArray[np.float32]


@dataclass(repr=False)
class Predictor(ABC, Generic[Answer]):
    """A trained network with everything it needs to answer: class names, preprocessing, precision, device."""

    model: Any  # a torch.nn.Module
    recipe: Recipe
    classes: tuple[str, ...]
    device: Any  # a torch.device
    source: Path  # the file of its weights
    metadata: dict[str, Any]

    def __repr__(self) -> str:
        many = number_of(len(self.classes), "class", "classes")
        return f"{type(self).__name__}('{self.source}', {many}, on {self.device})"

    def __call__(self, image: OneImage, *, top: int | None = None, channel_order: ChannelOrder = "rgb") -> Answer:
        """What one image shows: a path, encoded bytes, a PIL image, or a uint8 array of (H, W, C) or (H, W).

        `top`: at most so many classes or objects. `channel_order`: of arrays; 'bgr' is OpenCV's. Raises DataError when
        the image cannot be read, and for anything that is not one image: `predict` takes many.
        """
        return self._one(image, channel_order, lambda read: self.answers(read, top=top))

    def with_bands(self, bands: Sequence[str | int]) -> Self:
        """The same network for images that hold its channels in other bands: `bands` names them, in its order.

        Numbers count the bands of a file from 1; texts are what the names of files end in. Raises ConvNeXtError unless there
        is one for each channel.
        """
        names = tuple(map(str, bands))
        channels = len(self.recipe.input.mean)
        if len(names) != channels:
            raise ConvNeXtError(
                f"--bands {','.join(names)} names {number_of(len(names), 'band')}, and '{self.source}' reads "
                f"{number_of(channels, 'channel')}. Name one for each, in its order."
            )
        recipes = import_module("convnext.recipes")  # all of them, which no answer waits for
        changes = {"input.bands": names, "input.file_bands": 0, **recipes.without_colours(self.recipe)}
        return replace(self, recipe=override(self.recipe, changes))

    def predict(
        self,
        images: ManyImages,
        *,
        top: int | None = None,
        channel_order: ChannelOrder = "rgb",
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[Answer]:
        """What many images show, one after the other, in order: a path, folder, glob or zip, or an iterable of images.

        A generator is asked for images as they are needed. Images that cannot be read are left out and noted in
        `skipped`, path -> reason. `workers`: threads that read files, -1: some. The rest as in a call.
        """
        return self._many(images, channel_order, workers, skipped, lambda read: self.answers(read, top=top))

    def embed(
        self,
        images: ManyImages,
        *,
        channel_order: ChannelOrder = "rgb",
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[Features]:
        """(C,) float32 of each image that can be read, in order, after the run's evaluation transform.

        Of a classifier what its head sees: the last stage, averaged over space, after the final norm. Of the others the
        last stage of the backbone behind its norm, averaged over space. The rest as in `predict`.
        """
        named = self.embed_named(images, channel_order=channel_order, workers=workers, skipped=skipped)
        return (features for _, features in named)

    def embed_named(
        self,
        images: ManyImages,
        *,
        channel_order: ChannelOrder = "rgb",
        batch: int = 0,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[tuple[str, Features]]:
        """(path, features) of each image that can be read, as `embed` gives them; `batch` 0: as many as are usual."""

        def made(read: Sequence[Read]) -> Iterable[tuple[str, Features]]:
            for one, features in zip(read, self._features(read), strict=True):
                require_numbers(features, one.given.path, self.source)
                yield one.given.path, features

        return self._many(images, channel_order, workers, skipped, made, batch)

    @abstractmethod
    def evaluate(
        self, data: str | Path, part: str | None = None, *, workers: int = 0, progress: bool = False
    ) -> Evaluation:
        """The scores on labelled images, `part` of them: 'train', 'val' or 'test'; None: those that are held out, where
        the run parted these data itself, else val, else test, else all.

        Raises DataError when the data cannot be used or are not labelled for the task.
        """

    @property
    @abstractmethod
    def _transform(self) -> Transform:
        """From decoded pixels to what `answers` takes; it can be sent to another process."""

    def read(self, given: Given, image_id: int = 1, check: Check | None = None) -> Read:
        """One image as `answers` takes it; threads may do this side by side, while another computes.

        `check` is told its height and width before it is decoded. Raises DataError, with the bare reason, or
        OSError where it cannot be read.
        """
        return read_one(given, self._transform, self.recipe.input, image_id, check)

    @abstractmethod
    def answers(self, read: Sequence[Read], *, top: int | None = None) -> Iterable[Answer]:
        """One value for each image, in order: what `predict` gives for them where they pass the network together."""

    @abstractmethod
    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        """(C,) for each image."""

    @property
    def _batch(self) -> int:
        """Images that are answered together."""
        return 1

    def _one(
        self, image: OneImage, channel_order: ChannelOrder, make: Callable[[Sequence[Read]], Iterable[Made]]
    ) -> Made:
        given = one_image(image, self.recipe.input, channel_order)
        try:
            read = self.read(given)
        except (DataError, OSError) as error:
            raise DataError(f"'{printable(given.path)}' cannot be read: {reason_of(error)}.") from None
        (made,) = make([read])
        return made

    def _many(
        self,
        images: ManyImages,
        channel_order: ChannelOrder,
        workers: int,
        skipped: dict[str, str] | None,
        make: Callable[[Sequence[Read]], Iterable[Made]],
        batch: int = 0,
    ) -> Iterator[Made]:
        """`make` of all images; what is refused is refused now, what is read is read later."""
        batch = batch or self._batch
        return self._made(many_images(images, batch, self.recipe.input, channel_order), batch, workers, skipped, make)

    def _made(
        self,
        chunks: Iterator[Sequence[Given]],
        batch: int,
        workers: int,
        skipped: dict[str, str] | None,
        make: Callable[[Sequence[Read]], Iterable[Made]],
    ) -> Iterator[Made]:
        first = 1
        for given in chunks:
            how: dict[str, int] = {"first": first, "batch": batch, "workers": workers}
            for read, broken in read_images(given, self._transform, self.recipe.input, **how):
                if skipped is not None:
                    skipped.update(broken)
                if read:
                    yield from make(read)
            first += len(given)


def require_numbers(scores: NDArray[np.floating[Any]], path: str, source: Path) -> None:
    """Refuse scores of an image that are inf or nan: the best of them is nobody's answer."""
    if not np.isfinite(scores).all():
        raise NotFinite(path, f"'{source}'")


def require_top(top: int | None) -> None:
    """Refuse anything but a whole number of 1 or more, or None."""
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise ConvNeXtError(f"top = {top!r} is refused: it must be a whole number, 1 or more.")
