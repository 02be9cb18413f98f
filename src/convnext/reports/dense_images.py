"""The images that a detector or a segmenter was most wrong about, with the ground truth beside the prediction.

An image is a small JPEG inside the page, with masks and maps painted into it; boxes and names are drawn over it as SVG,
which stays sharp. Axes: H W rows and columns of the original image, h w of its preview.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.annotated import Objects
from convnext.data.bands import shown_to_eyes
from convnext.data.dataset import DenseDataset, read_semantic, upright
from convnext.data.decode import decode
from convnext.data.masks import Rle, Shape, decode_mask, render
from convnext.data.sample import IGNORE
from convnext.data.store import printable
from convnext.drawing.markup import Html, clean, join, table, tag
from convnext.drawing.numbers import count, finite, percent
from convnext.drawing.palette import ON_IMAGES, Colour, colour_of
from convnext.drawing.thumbnails import jpeg
from convnext.errors import DataError
from convnext.reports.layout import STRANGE
from convnext.reports.run_files import RunFiles
from convnext.reports.sections import note
from convnext.tasks.detection.metrics import CROWD
from convnext.tasks.preview import labels_of, preview, preview_of, preview_size

Pixels = NDArray[np.uint8]

_RIGHT, _WRONG, _NEITHER = "right", "wrong", "neither"  # how an object or a detection is drawn: names of ON_IMAGES
_COVER = 0.4  # of a mask over the image
_COVER_MAP = 0.68  # of a class over the grey image
_MOST_BOXES = 60  # of an image whose masks are painted: beyond, boxes only hide them
_MOST_NAMES = 8
_PANEL_PX, _TALLEST_PX = 230, 260  # how wide an image is about, and how tall it may be, where names are placed
_LETTER_PX, _LINE_PX = 6.4, 13
_MOST_IN_ONE_LEGEND = 24  # classes; with more, each image has its own
_MOST_IN_A_LEGEND = 8


class _Drawn(NamedTuple):
    """One box of an image: where, what it is called, and whether that is right."""

    box: Sequence[float]  # x0 y0 x1 y1 in original pixels
    name: str  # written at it; '' for nothing
    says: str  # for who points at it
    kind: str
    inside: NDArray[np.bool_] | None  # (h, w)


def worst_detections(files: RunFiles, data: DenseDataset | None) -> Html:
    """The images with the lowest F1, objects left and detections right, blue where they agree and orange where not."""
    found = files.evaluation or {}

    def card(row: dict[str, Any], drawing: dict[str, Any]) -> Html:
        sentence = [f"{count(row[key])} {key}" for key in ("right", "missed", "false")]
        pair = _both(data, row, lambda index, image: _objects_drawn(data, index, image, drawing, found["classes"]))
        return _card(row, [f"F1 {percent(row['f1'], 0)}: ", ", ".join(sentence)], pair)

    head: list[object] = ["Image", "F1", "Right", "Missed", "False"]

    def line(row: dict[str, Any]) -> list[object]:
        return [percent(row["f1"]), *(count(row[key]) for key in ("right", "missed", "false"))]

    legend = _legend([("found, or right", _RIGHT), ("missed, or false", _WRONG), ("crowd, not counted", _NEITHER)])
    lead = "The lowest F1 first, boxes at IoU 0.50. Left what is there, right what is shown."
    return _section(found, [tag("p", lead, class_="lead"), legend], card, head, line)


def worst_maps(files: RunFiles, data: DenseDataset | None) -> Html:
    """The images with the lowest mIoU of their own, the true classes left and those given right."""
    found = files.evaluation or {}
    classes = found["classes"]
    many = len(classes) > _MOST_IN_ONE_LEGEND

    def card(row: dict[str, Any], drawing: dict[str, Any]) -> Html:
        pair = _both(data, row, lambda index, image: _maps_drawn(data, index, image, drawing, classes, many))
        words = [tag("div", f"Mean IoU {percent(row['miou'])}, pixels right {percent(row['pixel_accuracy'])}")]
        if row["pixels"]:
            share = f", {percent(row['share'])} of all" if finite(row.get("share")) else ""
            words.append(tag("div", "Mostly ", row["label"], " → ", tag("b", row["predicted"]), share))
        return _card(row, words, pair)

    def line(row: dict[str, Any]) -> list[object]:
        return [percent(row["miou"]), percent(row["pixel_accuracy"]), [row["label"], " → ", row["predicted"]]]

    there = np.asarray(found["confusion"], np.int64)
    seen = [label for label in range(len(classes)) if there[label].any() or there[:, label].any()]
    sentence = (
        "Each image's own mean IoU, the lowest first. Left the true classes, right those given; black does not count."
    )
    over = [tag("p", sentence, class_="lead"), None if many else _classes_legend(seen, classes)]
    return _section(found, over, card, ["Image", "Mean IoU", "Pixels right", "Most often"], line)


def _section(
    found: dict[str, Any],
    over: list[Html | None],
    card: Callable[[dict[str, Any], dict[str, Any]], Html],
    head: list[object],
    line: Callable[[dict[str, Any]], list[object]],
) -> Html:
    """Cards of the images that evaluation.json has predictions of, a table of the others."""
    rows = found["worst"]
    if not rows:
        return note("Not one image has a mistake." if found.get("n") else "No image was evaluated.")
    drawings = {row["path"]: row for row in (found.get("details") or {}).get("images") or ()}
    shown = [row for row in rows if row["path"] in drawings]
    others = [row for row in rows if row["path"] not in drawings]
    rest = table(head, [[tag("span", clean(str(row["path"])), class_="path"), *line(row)] for row in others])
    title = f"The next {count(len(others))}" if shown else f"The {count(len(others))} worst"
    cards = tag("div", [card(row, drawings[row["path"]]) for row in shown], class_="cards wide") if shown else None
    folded = tag("details", tag("summary", title), rest, open=None if shown else "") if others else None
    return join([over if shown else None, cards, folded])


def _both(
    data: DenseDataset | None, row: dict[str, Any], draw: Callable[[int, Pixels], list[Html]]
) -> list[Html] | None:
    """The two panels of a card; None where the image cannot be shown."""
    index = _place(data, row)
    if data is None or index is None:
        return None
    try:
        held = data.store.read(data.entries[index].path)
        return draw(index, decode(held) if data.bands is None else shown_to_eyes(held, data.bands))
    except (DataError, OSError, *STRANGE):  # a report is not the place to fail
        return None


def _place(data: DenseDataset | None, row: dict[str, Any]) -> int | None:
    """Where the image of a row is in the dataset, though it was opened in another way than for evaluation."""
    if data is None:
        return None
    paths, index = data.entries, row.get("index")
    if isinstance(index, int) and 0 <= index < len(paths) and printable(paths[index].path) == row["path"]:
        return index
    return next((place for place, entry in enumerate(paths) if printable(entry.path) == row["path"]), None)


def _objects_drawn(
    data: DenseDataset | None, index: int, image: Pixels, drawing: dict[str, Any], classes: Sequence[str]
) -> list[Html]:
    """Ground truth and detections of one image."""
    assert data is not None
    full = image.shape[0], image.shape[1]
    size = preview_size(*full)
    small = _shrunk(image, size)
    objects = upright(data, index, full)
    taken = {each["object"] for each in drawing["found"]}
    ground_truth = [] if objects is None else _ground_truth(objects, taken, data.classes, (full, size))
    shown = [_detection(each, classes, size) for each in drawing["found"]]
    return [_panel(name, small, drawn, full) for name, drawn in (("Ground truth", ground_truth), ("Prediction", shown))]


def _ground_truth(
    objects: Objects, taken: set[int], classes: Sequence[str], sizes: tuple[tuple[int, int], tuple[int, int]]
) -> list[_Drawn]:
    drawn = []
    for place in range(len(objects)):
        crowd = bool(objects.crowd[place])
        kind = _NEITHER if crowd else _RIGHT if place in taken else _WRONG
        name = clean(str(classes[int(objects.labels[place])]))
        says = f"{name}: {'a crowd' if crowd else 'found' if kind == _RIGHT else 'missed'}"
        shape = objects.shapes[place]
        inside = None if shape is None else _inside(shape, *sizes)
        drawn.append(_Drawn(objects.boxes[place].tolist(), name if len(classes) > 1 else "", says, kind, inside))
    return drawn


def _detection(each: dict[str, Any], classes: Sequence[str], size: tuple[int, int]) -> _Drawn:
    kind = _RIGHT if each["object"] >= 0 else _NEITHER if each["object"] == CROWD else _WRONG
    name, score = clean(str(classes[each["label"]])), f"{each['score']:.2f}"
    says = f"{name} {score}: {({_RIGHT: 'right', _NEITHER: 'in a crowd', _WRONG: 'false'})[kind]}"
    mask = each.get("mask")
    inside = None if mask is None else render(Rle(*size, mask.encode("ascii")), *size).astype(bool)
    return _Drawn(each["box"], f"{name} {score}" if len(classes) > 1 else score, says, kind, inside)


def _inside(shape: Shape, full: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    if isinstance(shape, Rle) and (shape.height, shape.width) == full:
        return decode_mask(preview_of(shape, size)).astype(bool)
    if isinstance(shape, Rle):
        return preview(render(shape, *full), size).astype(bool)  # which refuses it
    scale = np.array([size[1] / full[1], size[0] / full[0]])
    return render(tuple(points * scale for points in shape), *size).astype(bool)


def _panel(title: str, small: Pixels, drawn: list[_Drawn], full: tuple[int, int]) -> Html:
    """An image with its masks painted in, its boxes and names over it; mistakes come last and lie on top."""
    drawn = sorted(drawn, key=lambda each: (_NEITHER, _RIGHT, _WRONG).index(each.kind))
    painted = small.copy()
    for each in drawn:
        if each.inside is not None:
            _paint(painted, each.inside, ON_IMAGES[each.kind])
    masks = any(each.inside is not None for each in drawn)
    boxes = [] if masks and len(drawn) > _MOST_BOXES else [_box(each, full) for each in drawn]
    named = [each for each in reversed(drawn) if each.name][:_MOST_NAMES] if boxes else []
    return _framed(title, painted, tag("svg", boxes, _names(named, full), class_="over", aria_hidden="true"))


def _framed(title: str, painted: Pixels, over: Html | None = None) -> Html:
    height, width = painted.shape[:2]
    style = f"aspect-ratio:{width}/{height};width:min(100%,{_TALLEST_PX * width / height:.0f}px)"
    pixels = "pixels" if max(width, height) < 80 else None
    image = tag("img", src=jpeg(Image.fromarray(painted)), alt=title, class_=pixels)
    return tag("div", tag("p", title, class_="below"), tag("div", image, over, class_="shown", style=style))


def _paint(image: Pixels, inside: NDArray[np.bool_], colour: Colour) -> None:
    """Tint the inside of a mask, and draw its edge in full."""
    image[inside] = ((1 - _COVER) * image[inside] + _COVER * np.array(colour)).astype(np.uint8)
    around = np.pad(inside, 1)
    core = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    image[inside & ~core] = colour


def _box(each: _Drawn, full: tuple[int, int]) -> Html:
    (height, width), (x0, y0, x1, y1) = full, each.box
    edges = {"x": _at(x0 / width), "y": _at(y0 / height)}
    sides = {"width": _at(max(0.0, x1 - x0) / width), "height": _at(max(0.0, y1 - y0) / height)}
    return tag("rect", tag("title", each.says), **edges, **sides, class_=each.kind)


def _names(named: Sequence[_Drawn], full: tuple[int, int]) -> list[Html]:
    """Each over its box, or inside where there is no room; one that would lie on another is left to the pointer."""
    scale = min(_PANEL_PX / full[1], _TALLEST_PX / full[0])
    height, width = scale * full[0], scale * full[1]
    written: list[Html] = []
    taken: list[tuple[float, float, float]] = []  # left, right, top
    for each in named:
        x, y = scale * each.box[0], scale * each.box[1]
        long = _LETTER_PX * len(each.name)
        left = max(2.0, min(x + 2, width - long - 2))
        top = y - _LINE_PX if y > _LINE_PX + 2 else y
        if any(left < end and start < left + long and abs(top - line) < _LINE_PX for start, end, line in taken):
            continue
        taken.append((left, left + long, top))
        moved = left < x + 2  # away from the right edge, which a smaller screen has elsewhere
        place = {"x": _at((left + long if moved else left) / width), "y": _at((top + _LINE_PX - 4) / height)}
        written.append(tag("text", each.name, **place, text_anchor="end" if moved else None, class_=each.kind))
    return written


def _maps_drawn(
    data: DenseDataset | None, index: int, image: Pixels, drawing: dict[str, Any], classes: Sequence[str], many: bool
) -> list[Html]:
    """True and given classes of one image."""
    assert data is not None
    given = labels_of(drawing["map"])
    size = (given.shape[0], given.shape[1])
    ground_truth = preview(read_semantic(data, index, image.shape[:2]), size)
    small = _shrunk(image, size)
    panels = [
        _framed(name, _mapped(small, labels))
        for name, labels in (("Ground truth", ground_truth), ("Prediction", given))
    ]
    if not many:
        return panels
    counts = np.bincount(np.concatenate([ground_truth.ravel(), given.ravel()]), minlength=IGNORE + 1)[: len(classes)]
    largest = [int(label) for label in np.argsort(-counts, kind="stable")[:_MOST_IN_A_LEGEND] if counts[label]]
    return [*panels, _classes_legend(largest, classes)]


def _mapped(image: Pixels, labels: NDArray[np.uint8]) -> Pixels:
    """The image in grey under the colours of its classes, black where it does not count."""
    grey = (image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))[:, :, None]
    colours = np.array([*(colour_of(label) for label in range(IGNORE)), (0, 0, 0)], np.float64)[labels]
    return ((1 - _COVER_MAP) * grey + _COVER_MAP * colours).astype(np.uint8)


def _shrunk(image: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS, reducing_gap=3.0))


def _card(row: dict[str, Any], sentence: Sequence[object], panels: list[Html] | None) -> Html:
    name = clean(str(row["path"])).rsplit("/", 1)[-1]
    shown: list[Html] = [tag("div", panels[:2], class_="panels"), *panels[2:]] if panels else []
    unseen = tag("div", tag("div", name, class_="unseen"), class_="frame flat") if not panels else None
    caption = tag("figcaption", tag("div", sentence), tag("div", name, class_="file"))
    return tag("figure", shown, unseen, caption, title=clean(str(row["path"])), class_="card")


def _legend(entries: Sequence[tuple[str, str]]) -> Html:
    return tag(
        "ul", [tag("li", tag("i", class_=f"swatch {kind}"), name) for name, kind in entries], class_="legend over-cards"
    )


def _classes_legend(labels: Sequence[int], classes: Sequence[str]) -> Html:
    entries = [
        tag("li", tag("i", class_="swatch", style="background:rgb({},{},{})".format(*colour_of(label))), classes[label])
        for label in labels
    ]
    return tag("ul", entries, class_="legend over-cards")


def _at(share: float) -> str:
    return f"{100 * share:.2f}%"
