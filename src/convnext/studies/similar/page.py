"""The nearest images as a page: one file with thumbnails of them, the query first."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext import __version__
from convnext.data.store import MixedStore, ZipStore, is_zip
from convnext.deploy.embed import several
from convnext.deploy.images import OneImage
from convnext.deploy.output import write_new
from convnext.deploy.started import load_features
from convnext.drawing.markup import Html, clean, tag
from convnext.drawing.numbers import count
from convnext.drawing.thumbnails import thumbnail
from convnext.errors import ConvNeXtError, DataError, number_of
from convnext.reports.page import page
from convnext.studies.similar.search import Neighbour, Similar, search


def similar(
    source: str | os.PathLike[str],
    query: OneImage,
    images: str | Path | Sequence[str | Path],
    *,
    top: int = 10,
    out: str | Path | None = None,
    weights: str = "best",
    device: str = "auto",
    batch: int = 0,
    workers: int = -1,
    progress: bool = False,
) -> Similar:
    """What `search` finds by the features of `source`, a run or weights; with `out` also as a page.

    Raises what `load_features`, `search` and `write_similar` raise.
    """
    if out is not None:
        refuse_place(out)
    predictor = load_features(os.fspath(source), weights=weights, device=device)
    how: dict[str, Any] = {"batch": batch, "workers": workers, "progress": progress}
    found = search(predictor, query, several(images), top=top, **how)
    if out is not None:
        write_similar(found, out)
    return found


def refuse_place(out: str | Path) -> None:
    """Raise ConvNeXtError, before anything is computed, where the page cannot be a new file of this name."""
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise ConvNeXtError(f"'{out}' does not end in .html. Name a page, e.g. similar.html.")
    if os.path.lexists(out):
        raise ConvNeXtError(f"'{out}' is there already, and nothing is overwritten. Name a new file.")


def write_similar(found: Similar, out: str | Path) -> Path:
    """Write the page as a new file and return its path. Raises ConvNeXtError where that is not possible."""
    return write_new(Path(out), str(_page(found)).encode())


def _page(found: Similar) -> Html:
    store = _store([found.query, *(each.path for each in found.found)])
    name = _name(found.query)
    header = tag(
        "header",
        tag("p", "Nearest images by the cosine of their features", class_="over"),
        tag("h1", "Similar to ", name),
    )
    lead = f"The {count(len(found.found))} nearest of {number_of(found.n, 'image')}. "
    lead += "1 means the same features, 0 nothing in common."
    if found.skipped:
        were = "was" if len(found.skipped) == 1 else "were"
        lead += f" {number_of(len(found.skipped), 'image')} could not be read and {were} left out."
    query = tag("div", _card(store, found.query, tag("b", "query")), class_="cards over-cards")
    cards = tag("div", [_neighbour(store, each) for each in found.found], class_="cards")
    return page(
        f"Similar to {name}",
        header,
        tag("main", tag("section", query, tag("p", lead, class_="lead"), cards, id="similar")),
        tag("footer", f"Written by convnext {__version__}."),
    )


def _neighbour(store: MixedStore, each: Neighbour) -> Html:
    return _card(store, each.path, f"{each.cosine:.3f}")


def _card(store: MixedStore, path: str, says: object) -> Html:
    """An image, what is said of it, and its name; the whole path where the mouse rests."""
    small, name = thumbnail(store.read, path), _name(path)
    if small:
        image = tag("img", src=small[0], alt=name, class_="pixels" if small[1] < 80 else None)
    else:
        image = tag("div", name, class_="unseen")
    place = "/".join(clean(path).split("/")[-2:])  # the folder often says what it is
    caption = tag("figcaption", tag("div", says), tag("div", place, class_="file") if small else None)
    return tag("figure", tag("div", image, class_="frame"), caption, title=clean(path), class_="card")


def _name(path: str) -> str:
    return clean(path).rsplit("/", 1)[-1]


def _store(paths: list[str]) -> MixedStore:
    """What reads these images, also out of zips. One that is not there any more is shown by its name."""
    zips: dict[str, ZipStore] = {}
    for path in paths:
        for parent in map(str, Path(path).parents):
            if parent not in zips and is_zip(Path(parent)):
                try:
                    zips[parent] = ZipStore(parent)
                except DataError:
                    continue
    return MixedStore(zips)
