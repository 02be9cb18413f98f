"""Exact search for the nearest images: products of matrices, a block of features at a time.

Axes: N images that are searched, B of a block, C features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.data.formats.records import columns_at
from convnext.data.store import is_zip, printable, tree_of_file
from convnext.data.unlabelled import open_unlabelled
from convnext.deploy.embed import about_of, named_features
from convnext.deploy.features import BLOCK, ENDINGS, FeatureFile, Rows, blocks, open_features
from convnext.deploy.images import OneImage
from convnext.deploy.predictor import Predictor
from convnext.errors import ConvNeXtError, DataError


@dataclass(frozen=True)
class Neighbour:
    """An image near to another."""

    path: str
    cosine: float  # of the angle between the features: 1 the same direction, 0 nothing in common


@dataclass(frozen=True)
class Similar:
    """The images nearest to `query`, the nearest first."""

    query: str  # its path
    found: tuple[Neighbour, ...]
    n: int  # images that were searched
    skipped: dict[str, str] = field(default_factory=dict)  # path -> reason of those that could not be read

    def to_dict(self) -> dict[str, Any]:
        """What `convnext similar --json` prints."""
        rows = [{"path": printable(each.path), "cosine": each.cosine} for each in self.found]
        skipped = {printable(path): reason for path, reason in self.skipped.items()}
        return {"query": printable(self.query), "similar": rows, "n": self.n, "skipped": skipped}


class Nearest:
    """The `top` rows with the largest cosine to `query` (C,), of blocks that are shown one after the other."""

    def __init__(self, query: Rows, top: int):
        self._query = unit(query[None])[0]
        self._top = top
        self.rows: NDArray[np.int64] = np.empty(0, np.int64)
        self.cosines: Rows = np.empty(0, np.float32)
        self.n = 0

    def show(self, block: Rows) -> None:
        """Look at (B, C) more rows. Of equal cosines the earlier row comes first."""
        cosines = np.concatenate([self.cosines, np.clip(unit(block) @ self._query, -1, 1)])
        rows = np.concatenate([self.rows, np.arange(self.n, self.n + len(block))])
        best = np.lexsort((rows, -cosines))[: self._top]
        self.rows, self.cosines = rows[best], cosines[best]
        self.n += len(block)


def unit(rows: Rows) -> Rows:
    """(B, C) rows of length 1; a row of zeros, which points nowhere, stays as it is."""
    found = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), BLOCK):  # not all of many in float64
        some = rows[start : start + BLOCK]
        length = np.sqrt(np.einsum("bc,bc->b", some, some, dtype=np.float64))[:, None]
        found[start : start + BLOCK] = some / np.where(length > 0, length, 1)
    return found


def search(
    predictor: Predictor[Any],
    query: OneImage,
    places: Sequence[str],
    *,
    top: int = 10,
    batch: int = 0,
    workers: int = -1,
    progress: bool = False,
) -> Similar:
    """The `top` images nearest to `query`, of the files, folders, globs, zips and files of features at `places`.

    Raises DataError where the query cannot be read, ConvNeXtError where a file holds features of other weights, or
    nothing can be searched.
    """
    if top < 1:
        raise ConvNeXtError(f"top = {top} is refused: it must be a whole number, 1 or more.")
    files = [checked(open_features(path), predictor) for path in places if _of_features(path)]
    others = [path for path in places if not _of_features(path)]
    listing = open_unlabelled(others) if others else None
    skipped: dict[str, str] = {}
    ((name, vector),) = _embedded(predictor, query)
    nearest = Nearest(vector, top)
    ends = []
    for file in files:
        if file.width != len(vector):
            raise ConvNeXtError(
                f"'{file.path}' has {file.width} features an image, and this network has {len(vector)}."
            )
        for block in file.blocks():
            nearest.show(block)
        ends.append(nearest.n)
    paths: list[str] = []
    if listing:
        named = named_features(predictor, listing, skipped, batch=batch, workers=workers, progress=progress)
        for block in blocks(named, paths):
            nearest.show(block)
    if not nearest.n:
        raise ConvNeXtError("There is nothing to search: the files of features hold no row.")
    names = _names(nearest.rows.tolist(), files, ends, paths)
    found = zip(names, nearest.cosines.tolist(), strict=True)
    return Similar(name, tuple(Neighbour(*each) for each in found), nearest.n, skipped)


def checked(file: FeatureFile, predictor: Predictor[Any]) -> FeatureFile:
    """`file`, whose features must be those of `predictor`. Raises ConvNeXtError where it says that they are not."""
    ours = about_of(predictor)
    for field_, what in (("weights", "weights"), ("size_px", "image sizes")):
        if file.about.get(field_, ours[field_]) != ours[field_]:
            theirs = f"'{file.about.get('source')}', {file.about.get('size_px')} px"
            raise ConvNeXtError(
                f"'{file.path}' holds features by other {what} ({theirs}) than '{predictor.source}' "
                f"({ours['size_px']} px). Write it again with `convnext embed`, or name that run."
            )
    return file


def _of_features(path: str) -> bool:
    """Whether a file is one of features; Parquet may be a table of images as well."""
    ending, file = Path(path).suffix.lower(), Path(path)
    if ending != ".parquet" or not file.is_file():
        return ending in ENDINGS
    columns = columns_at(tree_of_file(file), file.name)
    return not columns or "features" in columns


def _embedded(predictor: Predictor[Any], query: OneImage) -> list[tuple[str, Rows]]:
    """The name and the features of the one image. Raises DataError where it cannot be read or is not one."""
    if isinstance(query, str | Path) and (Path(query).is_dir() or is_zip(Path(query))):
        raise DataError(f"'{printable(str(query))}' may hold many images, and the query is one. Name a file.")
    skipped: dict[str, str] = {}
    found = list(predictor.embed_named([query], skipped=skipped))
    for path, reason in skipped.items():
        raise DataError(f"'{printable(path)}' cannot be read: {reason}.")
    return found


def _names(rows: Sequence[int], files: Sequence[FeatureFile], ends: Sequence[int], paths: Sequence[str]) -> list[str]:
    """The paths of rows, which count through the files and then the listed images."""
    names: dict[int, str] = {}
    start = 0
    for file, end in zip(files, ends, strict=True):
        inside = [row for row in rows if start <= row < end]
        names |= dict(zip(inside, file.paths([row - start for row in inside]), strict=True))
        start = end
    return [names[row] if row in names else paths[row - start] for row in rows]
