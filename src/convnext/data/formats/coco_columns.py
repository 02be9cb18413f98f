"""The annotations of a COCO file in columns, thousands at once; `clean` are those that are plainly right.

Axes: A annotations of the file, P polygons. The checks are those of `problems`, in whole arrays.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from convnext.data.annotated import Row
from convnext.data.formats.coco_json import CocoFile, is_key
from convnext.data.problems import FARTHEST, SLACK_PX, whole, whole_of_text

MOST_AREA = 1e12  # in pixels; more, and NaN, is as good as none
STRAY, ELSEWHERE = -1, -2  # owners: no image of the file, and an image that is not there

_CHUNK = 4096  # annotations at once
_REACH = 4096  # bytes between two annotations, at most, where the place of an outline is guessed
_NOTHING = (b"null", b"[]", b"{}")
_LEAST = 6  # numbers of a polygon
LARGEST = 2**63 - 2**32  # of a number that is kept: there is room for new ones above it
_Whole = Annotated[int, msgspec.Meta(gt=-LARGEST, lt=LARGEST)]


class _Annotation(msgspec.Struct, gc=False):
    """An annotation without anything strange; msgspec refuses what does not fit."""

    image_id: int | float | str
    category_id: _Whole
    bbox: tuple[float, float, float, float]
    id: _Whole | None = None
    area: float | None = None
    iscrowd: bool | int | float | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


_READ = msgspec.json.Decoder(_Annotation)
_READ_ALL = msgspec.json.Decoder(list[_Annotation])
_OUTLINE = msgspec.json.Decoder(list[list[float]])
_OUTLINES = msgspec.json.Decoder(list[list[list[float]]])


class Columns:
    """All annotations of a file. Rows that are not `clean` hold nothing but their owner, until `put` fills them."""

    def __init__(self, count: int):
        self.owner = np.full(count, STRAY, np.int32)  # place of its image, or STRAY or ELSEWHERE
        self.clean = np.zeros(count, bool)
        self.read = np.zeros(count, bool)  # whether its box is in `boxes`, right or not
        self.boxes = np.zeros((count, 4))
        self.labels = np.zeros(count, np.int32)
        self.crowd = np.zeros(count, bool)
        self.area = np.full(count, np.nan)
        self.ids = np.zeros(count, np.int64)  # 0: none
        self.first = np.zeros(count, np.int64)  # where the outline begins and ends in the text; both 0: none
        self.last = np.zeros(count, np.int64)
        self.highest = 0  # of all ids
        self.spelled = False  # whether an image's key is text here and a number there
        self._found, self._passed = 0, 0  # end of the last outline, and bytes of annotations since then

    @classmethod
    def of(
        cls, file: CocoFile, owner: Mapping[Any, int], known: set[Any], sizes: np.ndarray, labels: Mapping[int, int]
    ) -> "Columns":
        """`owner`: place of each image that is there by its key in the file, which are `known`; `sizes`: (N, 2) H W, 0:
        not known; `labels`: label of each category's number."""
        made = cls(len(file))
        owners = dict.fromkeys(known, ELSEWHERE) | dict(owner)
        twins = {twin: owners[key] for key in owners if (twin := _twin(key)) is not None and twin not in owners}
        owners |= twins
        for start in range(0, len(file.raws), _CHUNK):
            raws = file.raws[start : start + _CHUNK]
            items = _read(raws)
            made.spelled |= not twins.keys().isdisjoint(item.image_id for item in items if item is not None)
            places = np.array([start + place for place, item in enumerate(items) if item is not None], np.int64)
            made._fill(places, [item for item in items if item is not None], owners, sizes, labels)
            made._outlines(file, raws, start, items)
        for place in np.flatnonzero(made.owner == STRAY).tolist():  # also those that could not be read above
            item = file.annotation(place)
            if isinstance(item, dict):
                key, number = item.get("image_id"), whole(item.get("id"))
                made.owner[place] = owners.get(key, STRAY) if is_key(key) else STRAY
                made.spelled |= is_key(key) and key in twins
                made.highest = max(made.highest, number if number is not None and number < LARGEST else 0)
        made.clean &= made.owner >= 0
        return made

    @property
    def stray(self) -> np.ndarray:
        """Places of annotations of no known image."""
        return np.flatnonzero(self.owner == STRAY)

    def put(self, place: int, row: Row, text: tuple[int, int]) -> None:
        """An annotation that was examined by itself, and where its outline begins and ends."""
        self.clean[place] = True
        self.boxes[place], self.labels[place], self.crowd[place] = row.box, row.label, row.crowd
        self.area[place], self.ids[place], (self.first[place], self.last[place]) = row.area, row.id, text

    def _fill(
        self, places: np.ndarray, items: Sequence[_Annotation], owners: Mapping[Any, int], sizes: np.ndarray,
        labels: Mapping[int, int],
    ) -> None:  # fmt: skip
        if not items:
            return
        self.owner[places] = owner = np.array([owners.get(item.image_id, STRAY) for item in items], np.int32)
        self.labels[places] = label = np.array([labels.get(item.category_id, -1) for item in items], np.int32)
        self.crowd[places] = [item.iscrowd == 1 for item in items]
        self.ids[places] = ids = np.array([item.id or 0 for item in items], np.int64)
        self.highest = max(self.highest, int(ids.max()))
        area = np.array([np.nan if item.area is None else item.area for item in items])
        self.area[places] = np.where((area >= 0) & (area <= MOST_AREA), area, np.nan)
        given = np.array([item.bbox for item in items])
        boxes = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
        self.boxes[places], self.read[places] = boxes, True
        size = sizes[np.maximum(owner, 0)] if len(sizes) else np.zeros((len(items), 2), np.int64)
        near = (np.abs(given) <= FARTHEST).all(axis=1)
        self.clean[places] = near & _inside(boxes, size) & (label >= 0)

    def _outlines(self, file: CocoFile, raws: list[msgspec.Raw], start: int, items: list[_Annotation | None]) -> None:
        """Which outlines are sound, and where their text is."""
        texts = [b"" if item is None else bytes(item.segmentation) for item in items]
        drawn = [place for place, text in enumerate(texts) if text[:1] == b"[" and text not in _NOTHING]
        sound = dict(zip(drawn, _sound([texts[place] for place in drawn]).tolist(), strict=True))
        for place, text in enumerate(texts):
            self._passed += len(raws[place]) + _REACH
            if sound.get(place):
                reach = self._found + self._passed + _REACH
                first = file.text.find(text, self._found, reach)  # these bytes, though perhaps of a twin before it
                first = file.text.find(text, self._found) if first < 0 else first
                self.first[start + place], self.last[start + place] = first, first + len(text)
                self._found, self._passed = first + len(text), len(raws[place])
            elif text not in _NOTHING:
                self.clean[start + place] = False


def _twin(key: Any) -> int | str | None:
    """The same key as text where it is a whole number, as a number where it is such a text."""
    if isinstance(key, str):
        return whole_of_text(key)
    number = whole(key)
    return None if number is None or abs(number) >= LARGEST else str(number)


def _read(raws: list[msgspec.Raw]) -> list[_Annotation | None]:
    """None for those that are not plain."""
    try:
        return list(_READ_ALL.decode(b"[" + b",".join(raws) + b"]"))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return [_or_none(_READ, raw) for raw in raws]


def _or_none(decoder: "msgspec.json.Decoder[Any]", text: "bytes | msgspec.Raw") -> Any:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _inside(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(A,) bool: a box of some area that lies in its image, or reaches out of it no farther than is let pass."""
    x0, y0, x1, y1 = boxes.T
    height, width = sizes.T
    met = (x0 < width) & (y0 < height) & (x1 > 0) & (y1 > 0)
    within = (np.minimum(x0, y0) >= -SLACK_PX) & (x1 <= width + SLACK_PX) & (y1 <= height + SLACK_PX)
    return (x1 > x0) & (y1 > y0) & ((met & within) | (height == 0))


def _sound(texts: list[bytes]) -> np.ndarray:
    """(A,) bool: polygons of three points or more, all of them places in an image, and not all flat."""
    try:
        outlines = _OUTLINES.decode(b"[" + b",".join(texts) + b"]")
        read = np.ones(len(texts), bool)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        found = [_or_none(_OUTLINE, text) for text in texts]
        outlines, read = (
            [outline or [] for outline in found],
            np.array([outline is not None for outline in found], bool),
        )
    sizes = np.array([len(polygon) for polygon in chain.from_iterable(outlines)], np.int64)
    of_outline = np.repeat(np.arange(len(outlines)), [len(outline) for outline in outlines])
    values = np.fromiter(chain.from_iterable(chain.from_iterable(outlines)), np.float64, int(sizes.sum()))
    of_polygon = np.repeat(np.arange(len(sizes)), sizes)
    good = (sizes >= _LEAST) & (sizes % 2 == 0)
    good[of_polygon[~(np.abs(values) <= FARTHEST)]] = False
    thick = np.zeros(len(sizes), bool)
    thick[good] = ~_flat(values[good[of_polygon]].reshape(-1, 2), sizes[good] // 2)
    count, bad, round_ = (
        np.bincount(of_outline[each], minlength=len(outlines)) for each in (slice(None), ~good, thick)
    )
    return read & (count > 0) & (bad == 0) & (round_ > 0)


def _flat(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(P,) bool: whether all points of a polygon lie on one line. `sizes`: (P,) points of each."""
    if not len(sizes):
        return np.zeros(0, bool)
    first = np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(len(sizes)), sizes)
    away = points - points[first[owner]]
    far = np.abs(away).sum(axis=1)
    places = np.flatnonzero(far == np.maximum.reduceat(far, first)[owner])
    places = places[np.unique(owner[places], return_index=True)[1]]  # the first of the farthest of each
    end = away[places][owner]
    return np.logical_and.reduceat(away[:, 0] * end[:, 1] == away[:, 1] * end[:, 0], first)
