"""Features of many images, as a file: what the head of a classifier sees, one vector an image."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from convnext.config import ClassificationRecipe
from convnext.data.labelled import Dataset
from convnext.data.store import printable
from convnext.data.unlabelled import open_unlabelled
from convnext.deploy.features import Rows, digest_of, ending_of, write_features
from convnext.deploy.images import one_each
from convnext.deploy.predictor import Predictor
from convnext.deploy.started import load_features
from convnext.engine.records import Meter
from convnext.errors import ConvNeXtError, DataError, number_of

POOLED = "the last stage, averaged over space, after the final norm"
_TOLD = 32  # images from one word about progress to the next
PLAIN = "the last stage of the backbone behind its norm, averaged over space"


@dataclass(frozen=True)
class Embedded:
    """A file of features that was written."""

    path: Path
    n: int  # images
    width: int  # features of each
    what: str  # which features they are
    skipped: dict[str, str]  # path -> reason of images that could not be read

    def to_dict(self) -> dict[str, Any]:
        """What `convnext embed --json` prints."""
        about = {"out": str(self.path), "n": self.n, "features": self.width}
        return {**about, "what": self.what, "skipped": self.skipped}


class Reading(TypedDict, total=False):
    """How images are read and features made, for whoever asks for them."""

    weights: str  # of a run: 'best', 'raw', 'ema' or 'last'
    device: str
    batch: int  # images of one forward pass; 0: as many as are usual
    workers: int  # threads that read, -1: some
    progress: bool  # is shown


def embed(
    source: str | os.PathLike[str],
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    weights: str = "best",
    device: str = "auto",
    batch: int = 0,
    workers: int = -1,
    progress: bool = False,
) -> Embedded:
    """Write the features by `source`, a run or weights, of every image that `images` name into `out`.

    Raises what `load_features` and `embed_into` raise, and DataError for a path where no images are.
    """
    refuse_place(out)
    predictor = load_features(os.fspath(source), weights=weights, device=device)
    how: dict[str, Any] = {"batch": batch, "workers": workers, "progress": progress}
    return embed_into(predictor, open_unlabelled(several(images)), out, **how)


def several(images: str | Path | Sequence[str | Path]) -> list[str]:
    """One path, or many."""
    return [str(path) for path in ([images] if isinstance(images, str | Path) else images)]


def refuse_place(out: str | Path) -> None:
    """Raise ConvNeXtError, before anything is computed, where features cannot be a new file of this name."""
    ending_of(out)
    if os.path.lexists(out):
        raise ConvNeXtError(f"'{out}' is there already, and nothing is overwritten. Name a new file.")


def embed_into(
    predictor: Predictor[Any],
    images: Dataset,
    out: str | Path,
    *,
    batch: int = 0,
    workers: int = -1,
    progress: bool = False,
) -> Embedded:
    """Write the features of every image of a listing into `out`, a new .npz or .parquet.

    Raises ConvNeXtError for a file that is there already or cannot be written, and where no image can be read.
    """
    file, skipped = Path(out), dict[str, str]()
    refuse_place(file)
    about = about_of(predictor)
    rows = named_features(predictor, images, skipped, batch=batch, workers=workers, progress=progress)
    n, width = write_features(file, rows, about)
    return Embedded(file, n, width, about["what"], skipped)


def named_features(
    predictor: Predictor[Any],
    images: Dataset,
    skipped: dict[str, str],
    *,
    batch: int = 0,
    workers: int = -1,
    progress: bool = False,
) -> Iterator[tuple[str, Rows]]:
    """(path, (C,) features) of each image of a listing that can be read; the others are noted in `skipped`.

    Raises DataError where that is all of them.
    """
    images = one_each(images, predictor.recipe.input)
    total = len(images.entries)
    with closing(Meter(total, 0, label="embedding", shown=progress)) as meter:
        named = predictor.embed_named(images, batch=batch, workers=workers, skipped=skipped)
        for done, row in enumerate(named, 1):
            yield row
            if done % _TOLD == 0:
                meter.advance("", done + len(skipped))
    if len(skipped) == total:
        path, reason = next(iter(skipped.items()))
        raise DataError(
            f"None of {number_of(total, 'image')} could be read; the first is '{printable(path)}': {reason}."
        )


def about_of(predictor: Predictor[Any]) -> dict[str, Any]:
    """Where features come from; `weights` tells whether two files of features can be compared."""
    recipe = predictor.recipe
    classifier = isinstance(recipe, ClassificationRecipe)
    size_px = recipe.input.eval_size_px if isinstance(recipe, ClassificationRecipe) else recipe.input.eval_short_px
    return {
        "source": str(predictor.source),
        "weights": digest_of(predictor.source),
        "network": recipe.model.name,
        "size_px": size_px,
        "what": POOLED if classifier else PLAIN,
    }
