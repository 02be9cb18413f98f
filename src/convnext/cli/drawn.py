"""The images that `convnext predict --out` writes: where they go is settled before the first is read."""

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext.cli.options import refuse_among
from convnext.errors import ConvNeXtError, number_of

_SAVED: dict[str, dict[str, Any]] = {  # ending -> how Pillow writes it
    ".jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},  # thin lines keep their colour
    ".png": {"format": "PNG"},
}


@dataclass(frozen=True)
class Folder:
    """A folder for results, and the name in it, without ending, of what each image becomes."""

    path: Path
    names: tuple[str, ...]

    @classmethod
    def planned(
        cls, out: str | None, given: Sequence[str], images: Sequence[str], endings: Sequence[str], *more: str
    ) -> "Folder | None":
        """The folder `out`, made; None where none is asked for.

        `given`: what the person named; `images`: every image found there; `endings`: of the files that each becomes;
        `more`: other files. Raises ConvNeXtError for a folder among the images, one that cannot be written to, and
        one where a file of these names is already.
        """
        if out is None:
            return None
        refuse_among(out, [path for path in given if os.path.isdir(path)])
        if Path(out).resolve() in {Path(image).resolve().parent for image in images}:
            refuse_among(out, [out])
        folder = cls(Path(out), tuple(_names(images)))
        files = [folder.path / f"{name}{ending}" for name in folder.names for ending in endings]
        there = [file for file in (*files, *(folder.path / name for name in more)) if os.path.lexists(file)]
        if there:
            raise ConvNeXtError(
                f"--out {out} already has {_listed(there, folder.path)}, and nothing is overwritten. Name a new folder."
            )
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConvNeXtError(f"--out {out} cannot be made: {error.strerror}. Name a folder of yours.") from None
        return folder

    def draw(self, place: int, ending: str, image: Any) -> str:
        """Write the Pillow `image` of input number `place`; returns the file. Raises ConvNeXtError if it cannot."""
        stream = io.BytesIO()
        try:
            image.save(stream, **_SAVED[Path(f"x{ending}").suffix])
        except (OSError, ValueError) as error:  # such as a side that is too long for the format
            raise ConvNeXtError(f"'{self.names[place]}{ending}' cannot be drawn: {error}.") from None
        return self.write(f"{self.names[place]}{ending}", stream.getvalue())

    def write_once(self, name: str, data: bytes) -> None:
        """Write one new file that belongs to all images, beside the first of them."""
        if not (self.path / name).exists():
            self.write(name, data)

    def write(self, name: str, data: bytes) -> str:
        """Write one new file below the folder. Raises ConvNeXtError where that is not possible, or it is there."""
        file = self.path / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "xb") as opened:
                opened.write(data)
        except OSError as error:
            raise ConvNeXtError(f"'{file}' cannot be written: {error.strerror}. Name another --out.") from None
        return str(file)


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
