"""Files of predictions: each is new, and where many go is settled before the first image is read."""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from convnext.errors import ConvNeXtError, nearest, number_of
from convnext.files import elsewhere, put_new, refuse_unusable, remove_abandoned, to_json, way_out
from convnext.streams import tell

_BEGUN = ".unfinished"  # in a folder until its command has written all: the files there are this one's, and no others'
_JPEG = {"format": "JPEG", "quality": 92, "subsampling": 0}  # thin lines keep their colour
_SAVED: dict[str, dict[str, Any]] = {  # ending -> how Pillow writes it
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": {"format": "PNG"},
}


@dataclass(frozen=True)
class Folder:
    """A folder for results, and the name in it, without ending, of what each image becomes."""

    path: Path
    names: tuple[str, ...]
    before: frozenset[Path] = frozenset()  # files of a command that did not end, which are written anew

    @classmethod
    def planned(
        cls, out: str, given: Sequence[str], images: Sequence[str], endings: Sequence[str], *more: str
    ) -> "Folder":
        """The folder `out`, made.

        `given`: what the person named; `images`: every image found there; `endings`: of the files that each becomes;
        `more`: other files. Raises ConvNeXtError for a folder among the images, one that cannot be written to, and one where a
        file of these names is already, unless a command that did not come to its `end` has left it.
        """
        refuse_among(out, [path for path in given if os.path.isdir(path)])
        if Path(out).resolve() in {Path(image).resolve().parent for image in images}:
            refuse_among(out, [out])
        folder = cls(Path(out), tuple(_names(images)))
        wanted = [folder.path / f"{name}{ending}" for name in folder.names for ending in endings]
        for place in {file.parent for file in wanted}:
            remove_abandoned(place)
        there = [file for file in (*wanted, *(folder.path / name for name in more)) if os.path.lexists(file)]
        begun = (folder.path / _BEGUN).exists()
        if there and not begun:
            raise ConvNeXtError(
                f"--out {out} already has {_listed(there, folder.path)}, and nothing is overwritten. Name a new folder."
            )
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            (folder.path / _BEGUN).touch()
        except OSError as error:
            raise ConvNeXtError(f"--out {out} cannot be made: {error.strerror}. Name a folder of yours.") from None
        if there:
            tell(
                f"Going on in {out}: {number_of(len(there), 'file')} of a command that did not end will be written anew."
            )
        return replace(folder, before=frozenset(there))

    def end(self) -> None:
        """All is written: from now on nothing here is overwritten."""
        (self.path / _BEGUN).unlink(missing_ok=True)

    def draw(self, place: int, ending: str, image: Image.Image) -> str:
        """Write the image of input number `place`; returns the file. Raises ConvNeXtError if it cannot."""
        file = self.path / f"{self.names[place]}{ending}"
        return str(self._write(file, lambda: encoded(image, file)))

    def write_once(self, name: str, data: bytes) -> None:
        """Write one new file that belongs to all images, beside the first of them."""
        if not (self.path / name).exists():
            self._write(self.path / name, data)

    def _write(self, file: Path, data: bytes | Callable[[], bytes]) -> Path:
        if file in self.before:
            file.unlink(missing_ok=True)
        return write_new(file, data, way_out)


def encoded(image: Image.Image, path: Path) -> bytes:
    """The file of an image in the format that the ending of `path` names. Raises ConvNeXtError where there is none."""
    ending = path.suffix.lower()
    if ending not in _SAVED:
        known = ", ".join(_SAVED)
        raise ConvNeXtError(f"'{path}' ends in none of {known}.{nearest(ending, _SAVED)}")
    stream = io.BytesIO()
    try:
        image.save(stream, **_SAVED[ending])
    except (OSError, ValueError) as error:  # such as a side that is too long for the format
        raise ConvNeXtError(f"'{path.name}' cannot be drawn: {error}.") from None
    return stream.getvalue()


class Drawable(Protocol):
    """What can be drawn, and told to programs."""

    def draw(self) -> Image.Image:
        """For eyes."""

    def to_dict(self) -> dict[str, Any]:
        """For programs."""


def save_new(shown: Drawable, path: str | Path) -> Path:
    """Write the drawing, .jpg or .png, or what `to_dict` says, .json. Raises ConvNeXtError as `write_new` and `encoded` do."""
    path = Path(path)
    if path.suffix.lower() == ".json":
        return write_new(path, f"{to_json(shown.to_dict())}\n".encode())
    return write_new(path, lambda: encoded(shown.draw(), path))


def write_new(file: Path, data: bytes | Callable[[], bytes], way: Callable[[OSError], str] = elsewhere) -> Path:
    """Write a file that must not be there yet, and its folder. Raises ConvNeXtError, with the `way` out, where it cannot."""
    if os.path.lexists(file):
        raise ConvNeXtError(f"'{file}' is there already, and nothing is overwritten. Name a new file.")
    content = data if isinstance(data, bytes) else data()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        put_new(file, content)
    except OSError as error:
        raise ConvNeXtError(f"'{file}' cannot be written: {error.strerror}. {way(error)}.") from None
    return file


def refuse_among(out: str, folders: Iterable[str | Path]) -> None:
    """Refuse a folder for results that cannot be made, or is inside one of images: they would be taken for images."""
    refuse_unusable(out, folder=True)
    place = Path(out).resolve()
    if any(Path(folder).resolve() in (place, *place.parents) for folder in folders):
        raise ConvNeXtError(f"--out {out} is among the images. Name a folder for the results alone, e.g. runs/first.")


def _names(images: Sequence[str]) -> list[str]:
    """Paths below the folder that all images share, without ending; with it where two would have one name."""
    paths = [os.path.abspath(image) for image in images]
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    whole = [os.path.relpath(path, shared) for path in paths]
    bare = [os.path.splitext(name)[0] for name in whole]
    often = Counter(name.casefold() for name in bare)  # there are disks to which a.jpg and A.jpg are one
    names: dict[str, str] = {}
    for stem, name in zip(bare, whole, strict=True):
        wanted = stem if often[stem.casefold()] == 1 else name
        free, number = wanted, 1
        while free.casefold() in names:
            number += 1
            free = f"{wanted}_{number}"
        names[free.casefold()] = free
    return list(names.values())


def _listed(files: Sequence[Path], folder: Path) -> str:
    """The first by its name, and how many others there are."""
    first, others = files[0].relative_to(folder), len(files) - 1
    return f"'{first}'" + (f" and {number_of(others, 'other file')} to write" if others else "")
