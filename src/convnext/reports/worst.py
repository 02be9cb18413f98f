"""The images that a classifier was most sure about and wrong, and what spoke for either class."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from PIL import Image

from convnext.config import Bands, parse
from convnext.data.bands import shown_to_eyes
from convnext.drawing.markup import Html, clean, join, tag
from convnext.drawing.numbers import percent
from convnext.drawing.thumbnails import jpeg, thumbnail
from convnext.errors import ConvNeXtError, number_of
from convnext.reports.run_files import RunFiles
from convnext.reports.sections import note

Read = Callable[[str], bytes]  # path of an image -> its file
Why = Callable[[bytes, Sequence[str]], Sequence[Image.Image]]  # an image's file, classes -> what speaks for each, drawn
_WHY = (
    "Below each image: orange is what speaks for the true class, on the left, and for the class it was taken for, on the "
    "right (Grad-CAM)."
)


def worst(files: RunFiles, read: Read | None, why: Why | None = None) -> Html:
    """The images that the network was most sure about and wrong; below each, by `why`, what speaks for either class."""
    rows = (files.evaluation or {})["worst"]
    if not rows:
        return note("Not one image was wrong.")
    bands, maps = _bands_of(files), [_maps(row, read, why) for row in rows]
    cards = [_card(row, read, bands, each) for row, each in zip(rows, maps, strict=True)]
    leads = [_WHY] if any(maps) else []
    if bands is not None:
        names = ", ".join(bands.bands[:3] if len(bands.bands) > 2 else bands.bands[:1])
        many = number_of(len(bands.bands), "band")
        leads.append(f"Drawn: {names} of {many}, each stretched from its 2nd to its 98th percentile.")
    return join([*(tag("p", lead, class_="lead") for lead in leads), tag("div", cards, class_="cards")])


def _bands_of(files: RunFiles) -> Bands | None:
    """How a run reads images that are more than grey or colour."""
    given = (files.recipe or {}).get("input")
    if not isinstance(given, dict) or not given.get("bands"):
        return None
    try:
        return parse(Bands, {name: given[name] for name in Bands.model_fields if name in given}, where="recipe.json")
    except ConvNeXtError:
        return None


def _maps(row: dict[str, Any], read: Read | None, why: Why | None) -> Html | None:
    """The maps of the true class and of the one it was taken for, side by side; None where there are none."""
    if read is None or why is None:
        return None
    names = [row["label"], row["predicted"]]
    try:
        drawn = [jpeg(each) for each in why(read(str(row["path"])), names)]
    except Exception:  # noqa: BLE001 # a network without maps, a file that is gone: a report is not the place to fail
        return None
    panels = [tag("img", src=uri, alt=f"what speaks for {name}") for uri, name in zip(drawn, names, strict=True)]
    return tag("div", [tag("div", panel, class_="frame") for panel in panels], class_="panels")


def _card(row: dict[str, Any], read: Read | None, bands: Bands | None, maps: Html | None) -> Html:
    path = str(row["path"])
    name = clean(path).rsplit("/", 1)[-1]
    small = thumbnail(read, path, partial(shown_to_eyes, config=bands)) if read else None
    if small:
        pixels = "pixels" if small[1] < 80 else None  # a magnified scan shall show its pixels, not a blur
        image = tag("img", src=small[0], alt=f"{row['label']}, taken for {row['predicted']}", class_=pixels)
    else:
        image = tag("div", name, class_="unseen")
    caption = tag(
        "figcaption",
        tag("div", row["label"], class_="ground-truth"),
        tag("div", "→ ", tag("b", row["predicted"]), " ", tag("span", percent(row["score"]), class_="sure")),
        tag("div", name, class_="file") if small else None,
    )
    says = f"{clean(path)}: the true class has {percent(row['label_score'], 2)}"
    return tag("figure", tag("div", image, class_="frame"), maps, caption, title=says, class_="card")
