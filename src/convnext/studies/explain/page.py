"""Activation maps of many images in a folder: a drawing of each, and one page of them all."""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnext import __version__
from convnext.data.store import printable
from convnext.data.unlabelled import open_unlabelled
from convnext.deploy.classifier import BATCH
from convnext.deploy.embed import several
from convnext.deploy.explanation import Explanation, Method
from convnext.deploy.output import Folder
from convnext.deploy.started import load_features
from convnext.drawing.markup import Html, clean, tag
from convnext.drawing.numbers import count, percent
from convnext.drawing.thumbnails import SIDE_PX, jpeg
from convnext.engine.records import Meter
from convnext.errors import ConvNeXtError, DataError, number_of
from convnext.reports.page import page

PAGE = "index.html"
SHOWN = 500  # images on the page; each takes some ten kilobytes and every class as much again
WORDS = {
    "cam": "what each position of the network's last maps adds to the class, exactly: orange for it, blue against it",
    "gradcam": "where the network's maps speak for the class, by their mean gradients (Grad-CAM)",
    "layercam": "where the network's maps speak for the class, by the gradient of each position (LayerCAM)",
}


@dataclass(frozen=True)
class Explained:
    """A folder of explanations."""

    out: Path
    page: Path
    rows: tuple[dict[str, Any], ...] = field(repr=False)  # `Explanation.to_dict` without the maps, and the 'file'
    skipped: dict[str, str]  # path -> reason of images that could not be read

    def to_dict(self) -> dict[str, Any]:
        """What `convnext explain --json` prints."""
        skipped = {printable(path): reason for path, reason in self.skipped.items()}
        return {"out": str(self.out), "page": str(self.page), "images": list(self.rows), "skipped": skipped}


def explain(
    run: str | os.PathLike[str],
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    classes: str | Sequence[str] | None = None,
    method: Method = "auto",
    stage: int | None = None,
    weights: str = "best",
    device: str = "auto",
    batch: int = BATCH,
    workers: int = 0,
    progress: bool = False,
) -> Explained:
    """Draw where the reasons of a classifier are, on every image, as a PNG each and index.html in the new folder `out`.

    `run`: a run, a checkpoint or weights with a head; `images`: files, folders, globs or zips; `classes`, `method` and
    `stage` are those of `ClassificationPredictor.explain`. Raises ConvNeXtError for another task, an exported file, an
    unknown class, a network without maps, and where `out` cannot be written or no image be read.
    """
    predictor = load_features(os.fspath(run), weights=weights, device=device)
    if predictor.recipe.task != "classification":
        raise ConvNeXtError(f"'{os.fspath(run)}' is for {predictor.recipe.task}, and only classifiers are explained.")
    places = several(images)
    listing = open_unlabelled(places)
    how: dict[str, Any] = {"classes": classes, "method": method, "stage": stage, "batch": batch, "workers": workers}
    skipped: dict[str, str] = {}
    found = predictor.explain_many(listing, skipped=skipped, **how)
    first = next(found, None)  # before the folder is made: it may be refused
    total = len(listing.entries)
    if first is None:
        path, reason = next(iter(skipped.items()))
        raise DataError(
            f"None of {number_of(total, 'image')} could be read; the first is '{printable(path)}': {reason}."
        )
    folder = Folder.planned(str(out), places, [entry.path for entry in listing.entries], [".png"], PAGE)
    rows: list[dict[str, Any]] = []
    cards: list[Html] = []
    with closing(Meter(total, 0, label="explaining", shown=progress)) as meter:
        one: Explanation | None = first
        while one is not None:
            file = folder.draw(one.image_id - 1, ".png", one.draw())
            rows.append(_row(one, file))
            if len(cards) < SHOWN:
                cards.append(_card(one))
            meter.advance("", len(rows) + len(skipped))
            one = next(found, None)
    folder.write_once(PAGE, str(_page(predictor.source, rows, cards, skipped)).encode())
    folder.end()
    return Explained(folder.path, folder.path / PAGE, tuple(rows), skipped)


def _row(one: Explanation, file: str) -> dict[str, Any]:
    """An image for programs, without its maps: there may be very many images."""
    said = one.to_dict()
    said["explained"] = [{name: value for name, value in each.items() if name != "grid"} for each in said["explained"]]
    return said | {"file": file}


def _page(source: Path, rows: Sequence[dict[str, Any]], cards: Sequence[Html], skipped: dict[str, str]) -> Html:
    method, stage = rows[0]["method"], rows[0]["stage"]
    header = tag(
        "header",
        tag("p", "What the answers rest on", class_="over"),
        tag("h1", number_of(len(rows), "image"), tag("span", " by ", class_="on"), _name(str(source.parent))),
    )
    lead = f"The maps show {WORDS[method]}; stage {stage}. Darkened is what the network does not see of an image."
    if len(cards) < len(rows):
        lead += f" Here are the first {count(len(cards))}; the folder has a drawing of each."
    if skipped:
        were = "was" if len(skipped) == 1 else "were"
        lead += f" {number_of(len(skipped), 'image')} could not be read and {were} left out."
    body = tag("section", tag("p", lead, class_="lead"), tag("div", list(cards), class_="cards wide"), id="images")
    footer = tag("footer", f"Written by convnext {__version__}.")
    return page(f"What {_name(str(source.parent))} looks at", header, tag("main", body), footer)


def _card(one: Explanation) -> Html:
    """The image and the map of each class, each with its probability; the whole path where the mouse rests."""
    panels = one.overlays(0, SIDE_PX)
    pixels = "pixels" if max(panels[0].size) < SIDE_PX // 2 else None
    says = [_name(one.path), *([tag("b", label), " ", percent(score)] for label, score in one.predictions)]
    alts = ["as it is", *(f"what speaks for {label}" for label in one.classes)]
    figures = [
        tag(
            "div",
            tag("div", tag("img", src=jpeg(panel), alt=alt, class_=pixels), class_="frame"),
            tag("p", word, class_="below"),
        )
        for panel, alt, word in zip(panels, alts, says, strict=True)
    ]
    empty = [name for name, grid in zip(one.classes, one.grids, strict=True) if not grid.any()]
    note = tag("p", f"Nothing here speaks for {', '.join(empty)}.", class_="note") if empty else None
    return tag("figure", tag("div", figures, class_="panels"), note, title=clean(one.path), class_="card")


def _name(path: str) -> str:
    return clean(path).rsplit("/", 1)[-1]
