"""Images in any of the forms in which people have them, one or many, and the one way in which predictors read them.

Axes: N images, H W pixel rows and columns, C channels.
"""

import glob
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.config import AnnotatedInput, Bands, Statistics
from convnext.cores import cores
from convnext.data.annotated_policy import eval_dense
from convnext.data.band_store import BandStore, with_bands
from convnext.data.bands import for_eyes, pixels_of_array, read_pixels, read_shape, shown_to_eyes
from convnext.data.decode import Opened, decode_pillow
from convnext.data.jpeg import is_jpeg
from convnext.data.labelled import Dataset
from convnext.data.sample import Sample
from convnext.data.store import FolderStore, Store, is_zip, printable, require
from convnext.errors import DataError, reason_of

OneImage = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]  # a path, encoded bytes, Pillow's, pixels
ManyImages = OneImage | Iterable[OneImage] | Dataset  # a path may be a file, a folder, a glob or a zip
ChannelOrder = Literal["rgb", "bgr"]
Pixels = NDArray[Any]  # uint8, float32 of wide bands
Size = tuple[int, int]  # height, width
Check = Callable[[Size], None]
Made = TypeVar("Made")
Transform = Callable[[Pixels], Any]  # (H, W, C) -> what a network is to see; it may run in a thread

FRAMES_NDIM = 4  # of an array of many images, (N, H, W, C)
_FORMS = "a path, encoded bytes, a PIL image or a uint8 array of (H, W, C) or (H, W)"
_DISK, _MOST_THREADS = FolderStore(""), 8  # threads that read images, unless one asks for more


@dataclass(frozen=True)
class Given:
    """One image as somebody gave it: its name, and where its pixels come from."""

    path: str  # of its file; '<bytes>' or '<image>', numbered where there are many, for one without a file
    content: Store | bytes | Pixels | DataError  # what holds the file, the file, its pixels, or why there are none

    def pixels(self, config: Statistics, check: Check | None = None) -> tuple[Pixels, Size, int]:
        """(H, W, C) by `config`, the original's size, which is more of a huge one, and its frames. Raises DataError, OSError.

        `check` is told height and width of a file's header, not yet turned, before it is decoded; what it raises is raised.
        """
        content, bands = self._read(), _bands_of(config)
        if bands is not None:
            if check and isinstance(content, bytes):
                check(read_shape(content, bands)[:2])
            pixels = read_pixels(content, bands) if isinstance(content, bytes) else pixels_of_array(content, bands)
        elif isinstance(content, bytes):
            opened = Opened(content)
            if check:
                check(opened.image.size[::-1])
            size = opened.header[:2] if is_jpeg(content) else None  # only of those some are not decoded whole
            frames, pixels = opened.frames, opened.pixels(channels=len(config.mean))
            return pixels, size or (pixels.shape[0], pixels.shape[1]), frames
        else:
            pixels = decode_pillow(Image.fromarray(content), channels=len(config.mean))
        return pixels, (pixels.shape[0], pixels.shape[1]), 1

    def to_eyes(self) -> Pixels:
        """(H, W, 3) uint8 to draw on: colours, or three of many bands, stretched. Raises as `pixels` does."""
        content = self._read()
        if isinstance(content, np.ndarray):
            if content.dtype == np.uint8 and (content.ndim == 2 or content.shape[2] in (1, 3, 4)):
                return decode_pillow(Image.fromarray(content.squeeze(2) if content.shape[2:] == (1,) else content))
            return for_eyes(content if content.ndim == 3 else content[:, :, None])
        return shown_to_eyes(content)

    def _read(self) -> bytes | Pixels:
        """The file, or the pixels where there is none."""
        if isinstance(self.content, DataError):
            raise self.content
        return self.content if isinstance(self.content, bytes | np.ndarray) else self.content.read(self.path)


@dataclass(frozen=True)
class Read:
    """One image that could be read."""

    given: Given
    image_id: int  # its number among the images that were asked about, from 1
    size: Size  # of the original
    shown: Any  # what the transform made of it
    frames: int = 1  # of the file, or its pages: the first was read


class Files(Sequence[Given]):
    """The images of listings, one after the other; each is made when it is asked for."""

    def __init__(self, *listings: Dataset):
        self.listings = listings
        self.ends = list(accumulate(len(listing.entries) for listing in listings))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, place: int) -> Given: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Given]: ...
    def __getitem__(self, place: int | slice) -> Given | Sequence[Given]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        number = bisect_right(self.ends, range(len(self))[place])
        listing = self.listings[number]
        return Given(listing.entries[place - self.ends[number]].path, listing.store)


def one_image(image: OneImage, config: Statistics, channel_order: ChannelOrder = "rgb") -> Given:
    """The one image that a call answers for. Raises DataError for many, and for what is none."""
    take = _Taking(config, channel_order)
    if not isinstance(image, str | os.PathLike):
        return take.in_memory(image)
    path = os.fspath(image)
    if os.path.isdir(path) or is_zip(Path(path)) or (not os.path.exists(path) and glob.glob(path, recursive=True)):
        raise DataError(f"'{printable(path)}' may hold many images, and a call is for one. Give it to .predict.")
    require(Path(path))
    return Given(path, BandStore(_DISK, take.named) if take.named else _DISK)


def many_images(
    images: ManyImages, batch: int, config: Statistics, channel_order: ChannelOrder = "rgb"
) -> Iterator[Sequence[Given]]:
    """All that is asked about, in order, duplicates kept: whole listings of files, and at most `batch` others at a time.

    Paths are listed at once, unless they come from a generator or among other forms: those are asked for when they are
    needed. Raises DataError for a path where nothing is, and for what is no image.
    """
    take = _Taking(config, channel_order)
    if isinstance(images, Dataset):
        return iter([Files(one_each(images, config))])
    if isinstance(images, str | os.PathLike):
        return iter([Files(take.listed(images))])
    if isinstance(images, bytes | Image.Image) or (isinstance(images, np.ndarray) and images.ndim != FRAMES_NDIM):
        return iter([[take.in_memory(images)]])
    if _is_tensor(images) or not isinstance(images, Iterable):
        raise _refusal(images)
    if isinstance(images, Sequence) and all(isinstance(image, str | os.PathLike) for image in images):
        paths: Sequence[Any] = images
        return iter([Files(*map(take.listed, paths))])
    return _chunks(images, batch, take)


def read_images(
    given: Sequence[Given], transform: Transform, config: Statistics, *, first: int, batch: int, workers: int
) -> Iterator[tuple[list[Read], dict[str, str]]]:
    """`transform` of every image of `given`, `batch` at a time, and path -> reason of those that could not be read.

    `first`: the number of the first. `workers`: threads that read ahead, which decoders let work side by side; 0: an
    image is read when it is asked for, -1: as many as there are cores.
    """
    return in_batches(lambda places: _read(given, places, transform, config, first), len(given), batch, workers)


def read_one(given: Given, transform: Transform, config: Statistics, number: int, check: Check | None = None) -> Read:
    """`transform` of image `number` of those that are asked about; `check` as in `Given.pixels`. Raises DataError, OSError."""
    pixels, size, frames = given.pixels(config, check)
    return Read(given, number, size, transform(pixels), frames)


def in_batches(read: Callable[[range], Made], count: int, batch: int, workers: int) -> Iterator[Made]:
    """`read` of `batch` places of `count` after the other, in order; `workers` are those of `read_images`."""
    parts = [range(start, min(start + batch, count)) for start in range(0, count, batch)]
    threads = workers if workers >= 0 else min(_MOST_THREADS, cores())
    if threads == 0 or len(parts) < 2:
        yield from map(read, parts)
        return
    pool, ahead = ThreadPoolExecutor(threads), deque[Future[Made]]()
    try:
        for places in parts:
            ahead.append(pool.submit(read, places))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(
    given: Sequence[Given], places: range, transform: Transform, config: Statistics, first: int
) -> tuple[list[Read], dict[str, str]]:
    """What could be read of those, and why the others could not."""
    found: list[Read] = []
    broken: dict[str, str] = {}
    for place in places:
        one = given[place]
        try:
            found.append(read_one(one, transform, config, first + place))
        except (DataError, OSError) as error:
            broken[one.path] = reason_of(error)
    return found, broken


def sample_of(config: AnnotatedInput, pixels: Pixels) -> Sample:
    """An image as evaluation shows it to a detector or a segmenter, still without its name and number."""
    return eval_dense(Sample(pixels, None, None, "", 0, (pixels.shape[0], pixels.shape[1])), config)


def _bands_of(config: Statistics) -> Bands | None:
    """How bands are read, where images are more than grey or colour."""
    return config if isinstance(config, Bands) and config.bands else None


def one_each(images: Dataset, config: Statistics) -> Dataset:
    """A listing in which each image is there once, also where each of its bands is a file."""
    bands = _bands_of(config)
    return with_bands(images, bands.bands) if bands else images


class _Taking:
    """How images in every form are taken, for a network that reads them by `config`."""

    def __init__(self, config: Statistics, channel_order: str):
        self.bands, self.channel_order = _bands_of(config), channel_order
        self.named = self.bands.bands if self.bands and not self.bands.numbers else ()
        if channel_order not in ("rgb", "bgr"):
            raise DataError(f"channel_order = '{channel_order}' is refused: it is 'rgb', or 'bgr' as OpenCV has it.")
        if self.bands and channel_order == "bgr":
            raise DataError("channel_order = 'bgr' is for colours, and this network reads bands. Leave it out.")

    def listed(self, path: str | os.PathLike[str]) -> Dataset:
        """The images at a path; of bands in files of their own each image once."""
        listing = import_module("convnext.data.unlabelled")  # all forms of data, which one image does not wait for
        return with_bands(listing.open_unlabelled([os.fspath(path)]), self.named)

    def in_memory(self, image: Any, number: str = "") -> Given:
        """An image without a file. Its pixels are kept as they are now: the caller may use its memory again."""
        if isinstance(image, bytes):
            return Given(f"<bytes{number}>", image)
        if isinstance(image, np.ndarray):
            return Given(f"<image{number}>", self._frame(image))
        if not isinstance(image, Image.Image):
            raise _refusal(image)
        try:
            return Given(f"<image{number}>", np.array(image) if self.bands else decode_pillow(image))
        except DataError as error:
            return Given(f"<image{number}>", error)

    def _frame(self, array: NDArray[Any]) -> Pixels:
        if self.bands is None:
            return _frame(array, self.channel_order)
        if array.ndim not in (2, 3) or not array.size:
            shape = " x ".join(map(str, array.shape))
            raise DataError(
                f"An array of {shape} is no image: it must be (H, W, C) with the bands of a file, or (H, W)."
            )
        return array.copy()


def _chunks(images: Iterable[Any], batch: int, take: _Taking) -> Iterator[Sequence[Given]]:
    """Images of every form, in order; a path may stand for many."""
    waiting: list[Given] = []
    for number, image in enumerate(images, 1):
        if isinstance(image, str | os.PathLike):
            waiting += Files(take.listed(image))
        else:
            waiting.append(take.in_memory(image, f" {number}"))
        while len(waiting) >= batch:
            yield waiting[:batch]
            waiting = waiting[batch:]
    if waiting:
        yield waiting


def _frame(array: NDArray[Any], channel_order: str) -> Pixels:
    """A copy of (H, W) or (H, W, C) pixels in the order red, green, blue. Raises DataError for any other array."""
    shape = " x ".join(map(str, array.shape))
    if array.dtype != np.uint8:
        how = (
            "(255 * x).round().astype('uint8') for values from 0 to 1" if array.dtype.kind == "f" else "astype('uint8')"
        )
        raise DataError(f"An array of {array.dtype} is refused: pixels are uint8, 0 to 255. Convert it, e.g. {how}.")
    if array.ndim == FRAMES_NDIM:
        raise DataError(f"An array of {shape} holds many images. Give it to .predict, and alone.")
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        raise DataError(f"An array of {shape} has its channels first. Give x.transpose(1, 2, 0).")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise DataError(f"An array of {shape} is no image: it must be (H, W), or (H, W, C) of 1, 3 or 4 channels.")
    if not array.size:
        raise DataError(f"An array of {shape} has no pixels.")
    if array.ndim == 3 and array.shape[2] == 1:
        return array[:, :, 0].copy()
    if array.ndim == 3 and channel_order == "bgr":
        return np.ascontiguousarray(array[:, :, [2, 1, 0, 3][: array.shape[2]]])
    return array.copy()


def _is_tensor(image: Any) -> bool:
    """Whether it is torch's, which need not be there."""
    return any(f"{kind.__module__}.{kind.__name__}" == "torch.Tensor" for kind in type(image).__mro__)


def _refusal(image: Any) -> DataError:
    """Why something that is not one image is none."""
    kind = type(image).__name__
    if _is_tensor(image):
        return DataError(
            "A tensor is refused, since it does not say what its values are. Give pixels from 0 to 255 as an array: "
            "x.permute(1, 2, 0).to(torch.uint8).cpu().numpy()."
        )
    if isinstance(image, Iterable):
        return DataError(f"One image is {_FORMS}, and a {kind} was given. Give many to .predict.")
    return DataError(f"One image is {_FORMS}, and a {kind} was given.")
