"""Masks as polygons, as run lengths and as pixels, equal to the bit to what COCO's own tools make of them.

Axes: H W pixel rows and columns, M masks, P points, R runs. Runs count pixels down the columns, one column after the
other, first those outside the mask, then those inside, and so on; the first run may be 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convnext.data.limits import MAX_OUTLINE_PX, require_pixels
from convnext.errors import DataError

Polygons = tuple[np.ndarray, ...]  # each (P, 2) float64: x, y in pixels; the mask is their union

_FINE = 5  # outlines are drawn on a grid this many times finer, then read off at pixel centres
_BITS = 5  # of a run length that one character carries
_FIRST = 48  # the character '0', for five zero bits


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask of (height, width) as run lengths, kept in COCO's compressed text: 'counts' of its JSON."""

    height: int
    width: int
    counts: bytes


Shape = Polygons | Rle


def rasterise(polygons: Polygons, height: int, width: int) -> np.ndarray:
    """The pixels of the union of `polygons`: (H, W) uint8, 0 or 1."""
    require_pixels(height, width)
    mask = np.zeros((height, width), np.uint8)
    for points in polygons:
        mask |= _fill(points, height, width)
    return mask


def _fill(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """One outline: every crossing of a column's centre line switches the pixels below it, in column order."""
    across, down = _outline(points)
    step = np.flatnonzero(across[1:] != across[:-1])
    column, odd = np.divmod(np.minimum(across[step], across[step + 1]) - _FINE // 2, _FINE)
    row = -((_FINE // 2 - np.minimum(down[step], down[step + 1])) // _FINE)  # rounded up to the next pixel centre
    kept = (odd == 0) & (column >= 0) & (column < width)
    place, times = np.unique(column[kept] * height + np.clip(row[kept], 0, height), return_counts=True)
    ends = place[(times % 2 == 1) & (place < height * width)]  # switched twice is not switched
    return mask_of(np.diff(ends, prepend=0, append=height * width), height, width)


def _outline(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every place (x, y) of the closed outline on the fine grid, edge after edge, both ends of each edge included."""
    grid = np.trunc(_FINE * points + 0.5).astype(np.int64)
    start, end = grid, np.roll(grid, -1, axis=0)
    reach = np.abs(end - start)
    flat = reach[:, 0] >= reach[:, 1]
    long = np.where(flat, reach[:, 0], reach[:, 1])
    main = np.where(flat, 0, 1)
    if int(long.sum()) > _FINE * MAX_OUTLINE_PX:
        raise DataError(f"an outline of {int(long.sum()) // _FINE:,} pixels is too long to be drawn")
    each = np.arange(len(grid))
    turned = start[each, main] > end[each, main]  # edges are always walked upwards, then read in their own direction
    low, high = np.where(turned[:, None], end, start), np.where(turned[:, None], start, end)
    slope = (high[each, 1 - main] - low[each, 1 - main]) / np.maximum(long, 1)

    edge = np.repeat(each, long + 1)
    place = np.arange(len(edge)) - np.repeat(np.cumsum(long + 1) - (long + 1), long + 1)
    place = np.where(turned[edge], long[edge] - place, place)
    along = low[edge, main[edge]] + place
    aside = np.trunc(low[edge, 1 - main[edge]] + slope[edge] * place + 0.5).astype(np.int64)
    return np.where(flat[edge], along, aside), np.where(flat[edge], aside, along)


def runs_of(mask: np.ndarray) -> np.ndarray:
    """(H, W) of 0 and not 0 -> (R,) int64 run lengths."""
    pixels = np.asarray(mask, bool).T.ravel()
    if not len(pixels):
        return np.zeros(1, np.int64)
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(pixels)]]))
    return np.concatenate([[0], runs]) if pixels[0] else runs


def mask_of(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """(R,) run lengths -> (H, W) uint8. Raises DataError when they do not fill the image exactly."""
    require_pixels(height, width)
    _check(runs, height, width)
    inside = (np.arange(len(runs)) & 1).astype(np.uint8)
    return np.repeat(inside, runs).reshape(width, height).T


def compress(runs: np.ndarray) -> bytes:
    """Run lengths as COCO's text: differences to the run two before, five bits a character, lowest first."""
    values = np.asarray(runs, np.int64).copy()
    values[3:] -= np.asarray(runs, np.int64)[1:-2]
    characters = np.zeros((len(values), 13), np.uint8)  # 13 * 5 bits hold any int64
    more = np.ones(len(values), bool)
    used = np.zeros(len(values), np.int64)
    for place in range(characters.shape[1]):
        low, active = values & 31, more
        values = values >> _BITS
        used += active
        more = active & np.where(low & 16, values != -1, values != 0)  # what is left is more than the sign
        characters[:, place] = np.where(active, low + 32 * more + _FIRST, 0)
        if not more.any():
            break
    return characters[np.arange(characters.shape[1]) < used[:, None]].tobytes()


def decompress(text: bytes) -> np.ndarray:
    """COCO's text -> (R,) int64 run lengths. Raises DataError when it is not such a text."""
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - _FIRST
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise DataError("its run lengths are not COCO's compressed text")
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    width = last - first + 1
    if width.max() > 12:
        raise DataError("its run lengths are not COCO's compressed text")
    place = np.arange(len(codes)) - np.repeat(first, width)
    runs = np.add.reduceat((codes & 31) << (_BITS * place), first)
    runs -= np.where(codes[last] & 16, np.int64(1) << (_BITS * width), 0)  # the highest bit is the sign
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def encode(mask: np.ndarray) -> Rle:
    """(H, W) of 0 and not 0 -> its run lengths."""
    return Rle(mask.shape[0], mask.shape[1], compress(runs_of(mask)))


def encode_inside(part: np.ndarray, top: int, left: int, height: int, width: int) -> Rle:
    """The run lengths of a mask of (height, width) that is `part` with its first pixel at (top, left), and 0 elsewhere."""
    rows, columns = part.shape
    inside = np.zeros((columns, rows + 2), np.int8)  # a 0 above and below, so that every run begins and ends
    inside[:, 1:-1] = np.asarray(part, bool).T
    column, row = np.nonzero(np.diff(inside, axis=1))  # where runs begin and end, by turns
    places = (column + left) * height + row + top
    meet = np.flatnonzero(places[1:-1:2] == places[2::2])  # a run that goes on at the head of the next column
    places = np.delete(places, np.concatenate([2 * meet + 1, 2 * meet + 2]))
    return Rle(height, width, compress(_shortest(np.diff(places, prepend=0, append=height * width))))


def decode_mask(rle: Rle) -> np.ndarray:
    """The pixels of a mask: (H, W) uint8, 0 or 1. Raises DataError when its runs do not fill it."""
    return mask_of(decompress(rle.counts), rle.height, rle.width)


def thinned(rle: Rle, rows: np.ndarray, columns: np.ndarray) -> Rle:
    """The mask at these rising rows and columns alone; only its own box is looked at. Raises DataError as `decode_mask`."""
    runs = decompress(rle.counts)
    _check(runs, rle.height, rle.width)
    x0, y0, x1, y1 = box(rle)
    top, bottom = np.searchsorted(rows, (y0, y1)).tolist()
    left, right = np.searchsorted(columns, (x0, x1)).tolist()
    places = columns[None, left:right] * rle.height + rows[top:bottom, None]
    inside = np.searchsorted(np.cumsum(runs), places, side="right") % 2 == 1  # every second run lies inside
    return encode_inside(inside, top, left, len(rows), len(columns))


def render(shape: Shape, height: int, width: int) -> np.ndarray:
    """The pixels of polygons or run lengths in an image of (height, width): (H, W) uint8, 0 or 1."""
    if not isinstance(shape, Rle):
        return rasterise(shape, height, width)
    if (shape.height, shape.width) != (height, width):
        raise DataError(f"its mask has {shape.width} x {shape.height} pixels and the image {width} x {height}")
    return decode_mask(shape)


def area(rle: Rle) -> int:
    """Pixels inside."""
    return int(decompress(rle.counts)[1::2].sum())


def box(rle: Rle) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) around the pixels inside; zeros where there are none."""
    first, last = _spans(decompress(rle.counts))
    if not len(first):
        return 0, 0, 0, 0
    left, right = first // rle.height, (last - 1) // rle.height
    if (left != right).any():  # a run goes on in the next column: it touches the lower and the upper edge
        top, bottom = 0, rle.height
    else:
        top, bottom = int((first % rle.height).min()), int(((last - 1) % rle.height).max()) + 1
    return int(left.min()), top, int(right.max()) + 1, bottom


def iou(masks: Sequence[Rle], others: Sequence[Rle], crowd: Sequence[bool] | None = None) -> np.ndarray:
    """Intersection over union of every pair: (len(masks), len(others)) float64, as COCO evaluates.

    Where an other is `crowd`, the mask's own area takes the place of the union: being inside a crowd is enough.
    """
    answer = np.zeros((len(masks), len(others)))
    if not len(masks) or not len(others):
        return answer
    sizes = {(rle.height, rle.width) for rle in (*masks, *others)}
    if len(sizes) > 1:
        raise DataError(f"masks of images of different sizes have no overlap: {sorted(sizes)}.")
    spans = [_spans(decompress(rle.counts)) for rle in others]
    owner = np.repeat(np.arange(len(others)), [len(first) for first, _ in spans])
    first, last = (np.concatenate([span[side] for span in spans]) for side in (0, 1))
    areas = np.bincount(owner, last - first, len(others))
    crowded = np.zeros(len(others), bool) if crowd is None else np.asarray(crowd, bool)
    for number, rle in enumerate(masks):
        runs = decompress(rle.counts)
        ends = np.concatenate([[0], np.cumsum(runs)])
        inside = np.concatenate([[0], np.cumsum(np.where(np.arange(len(runs)) & 1, runs, 0))])
        common = np.bincount(owner, np.interp(last, ends, inside) - np.interp(first, ends, inside), len(others))
        common = np.rint(common)  # pixels are whole; the interpolation is not quite
        union = np.where(crowded, inside[-1], inside[-1] + areas - common)
        answer[number] = np.divide(common, union, out=np.zeros_like(common), where=common > 0)
    return answer


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """(M, H, W) -> (M, 4) float32 x0 y0 x1 y1 around the pixels of each mask; zeros where there are none."""
    count, height, width = masks.shape
    boxes = np.zeros((count, 4), np.float32)
    if not masks.size:
        return boxes
    columns, rows = np.logical_or.reduce(masks, axis=1), np.logical_or.reduce(masks, axis=2)
    seen = np.logical_or.reduce(columns, axis=1)
    edges = (
        columns.argmax(axis=1),
        rows.argmax(axis=1),
        width - columns[:, ::-1].argmax(axis=1),
        height - rows[:, ::-1].argmax(axis=1),
    )
    boxes[seen] = np.stack(edges, axis=1)[seen]
    return boxes


def _spans(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs inside the mask begin, and where they end; empty runs left out."""
    ends = np.cumsum(runs)
    first, last = ends[:-1:2], ends[1::2]
    first = first[: len(last)]
    kept = last > first
    return first[kept], last[kept]


def _shortest(runs: np.ndarray) -> np.ndarray:
    """Without an empty last run, which COCO's tools do not write."""
    return runs[:-1] if len(runs) > 1 and not runs[-1] else runs


def _check(runs: np.ndarray, height: int, width: int) -> None:
    if len(runs) and int(runs.min()) < 0:
        raise DataError("its run lengths are damaged: one is negative")
    if int(runs.sum()) != height * width:
        raise DataError(
            f"its run lengths make {int(runs.sum()):,} pixels, and {width} x {height} are {height * width:,}"
        )
