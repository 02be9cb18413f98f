"""What stands between the networks of a detector, in ONNX's own operators: resize, proposals, RoIAlign, suppression.

Each function does what `tasks.detection` does in the same place, for one image. Ties are broken alike: what comes first stays
first. Axes: C channels, H W rows and columns of the image, A anchors of a level, P proposals, K classes, M candidates,
D detections, S side of a pooled map.
"""

from collections.abc import Sequence

import numpy as np

from convnext.config import DetectionRecipe, DetectorHeadConfig
from convnext.data.bands import kind_of_pixels
from convnext.data.evaluation import white_of
from convnext.deploy.export.nodes import Nodes, floats, wholes
from convnext.tasks.detection.roi import FINEST

_BOOL, _INT64, _FLOAT, _DOUBLE = 9, 7, 1, 11  # of onnx.TensorProto
_LOST = np.array(-np.inf, np.float32)  # the score of what does not count
_LEAST = np.array([np.finfo(np.float32).min], np.float32)  # above it is every other
_FIRST, _LAST = wholes(0), wholes(2)  # where the corners of a box begin


def shown(graph: Nodes, images: str, recipe: DetectionRecipe, least_px: int, *, products: bool) -> tuple[str, str, str]:
    """(1, C, H', W') as the network takes it from (1, H, W, C) pixels; (4,) the width and height that it is resized to, twice;
    (4,) those of the image, twice.

    As `eval_dense` and `images_of`: the shorter and the longer side by the recipe, normalised, zeros up to whole multiples;
    at least `least_px` a side. `products`: the resize is two products, see `_by_products`.
    """
    config = recipe.input
    size = graph("Slice", graph("Shape", images), wholes(1), wholes(3))  # (2,) H W
    exact = graph("Cast", size, to=_DOUBLE)
    height, width = (graph("Slice", exact, wholes(place), wholes(place + 1)) for place in (0, 1))
    # not ReduceMin and ReduceMax: OpenVINO 2026.4 gets these wrong where the size of the image is open
    short, long = (graph(which, height, width) for which in ("Min", "Max"))
    ratios = (
        graph("Div", np.array([float(px)]), side)
        for px, side in ((config.eval_short_px, short), (config.eval_long_px, long))
    )
    scaled = graph("Add", graph("Mul", exact, graph("Min", *ratios)), np.array([0.5]))
    new = graph("Max", graph("Cast", scaled, to=_INT64), wholes(1))  # the cast cuts
    if products:
        resized = _by_products(graph, images, size, new, rounds=not config.wide)
    else:
        target = graph("Concat", wholes(1), new, wholes(len(config.mean)), axis=0)
        same = graph("Resize", images, None, None, target, mode="linear", antialias=1, exclude_outside=1)  # as Pillow's
        resized = _planes(graph, same)
    mean, std = (np.array(values)[:, None, None] for values in (config.mean, config.std))
    white = white_of(kind_of_pixels(config))
    x = graph("Mul", resized, (1 / (white * std)).astype(np.float32))
    x = graph("Add", x, (-mean / std).astype(np.float32))
    multiple = wholes(config.multiple)
    whole = graph("Mul", graph("Div", graph("Add", new, multiple - 1), multiple), multiple)
    whole = graph("Max", whole, wholes(least_px))
    pads = graph("Concat", wholes(*[0] * 6), graph("Sub", whole, new), axis=0)
    return graph("Pad", x, pads, np.array(0, np.float32)), _borders(graph, new), _borders(graph, size)


def _planes(graph: Nodes, images: str) -> str:
    """(1, C, H, W) float32 of (1, H, W, C)."""
    return graph("Transpose", graph("Cast", images, to=_FLOAT), perm=[0, 3, 1, 2])


def _by_products(graph: Nodes, images: str, size: str, new: str, *, rounds: bool) -> str:
    """(1, C, H', W') float32 of (1, H, W, C) `images` of `size`, resized to `new`, both (2,): rows, then columns.

    By Pillow's formula; its own weights are rounded, which moves a pixel in ten thousand by a grey level. `rounds`: to whole
    grey levels after each, as of 8 bits. For runtimes that pass over Resize's antialias without a word: OpenVINO 2026.4
    answers as if it were 0, which is another image where one is made smaller.
    """
    across, down = (_triangles(graph, size, new, place) for place in (1, 0))
    x = graph("MatMul", _planes(graph, images), graph("Transpose", across, perm=[1, 0]))
    x = graph("MatMul", down, _rounded(graph, x) if rounds else x)
    return _rounded(graph, x) if rounds else x


def _triangles(graph: Nodes, size: str, new: str, place: int) -> str:
    """(L', L) weights of a side's L old pixels for each of its L' new ones: a triangle as wide as the larger of the two."""
    old, wanted = (graph("Squeeze", graph("Slice", each, wholes(place), wholes(place + 1))) for each in (size, new))
    centres = [
        graph("Add", graph("Mul", graph("Range", np.array(0), length, np.array(1)), np.array(2)), np.array(1))
        for length in (old, wanted)
    ]  # in half pixels
    there = graph("Unsqueeze", graph("Mul", centres[1], old), wholes(1))
    apart = graph("Cast", graph("Abs", graph("Sub", graph("Mul", centres[0], wanted), there)), to=_FLOAT)
    wide = graph("Cast", graph("Mul", graph("Max", old, wanted), np.array(2)), to=_FLOAT)
    weights = graph("Max", graph("Sub", np.array(1, np.float32), graph("Div", apart, wide)), np.array(0, np.float32))
    return graph("Div", weights, graph("ReduceSum", weights, wholes(1), keepdims=1))


def _rounded(graph: Nodes, values: str) -> str:
    return graph("Floor", graph("Add", values, np.array(0.5, np.float32)))


def _borders(graph: Nodes, size: str) -> str:
    return graph("Gather", graph("Cast", size, to=_FLOAT), wholes(1, 0, 1, 0))


def clipped(graph: Nodes, boxes: str, borders: str) -> str:
    """(..., 4) boxes cut at (4,) `borders`, width, height, width, height."""
    return graph("Min", graph("Max", boxes, floats(0)), borders)


def proposals(graph: Nodes, scores: Sequence[str], boxes: Sequence[str], borders: str, head: DetectorHeadConfig) -> str:
    """(P, 4) boxes from (A,) logits and (A, 4) boxes of each level, as `RPN.proposals`; at least one."""
    kept_scores, kept_boxes = [], []
    for score, box in zip(scores, boxes, strict=True):
        count = graph("Min", graph("Shape", score), wholes(head.candidates_test))
        best, places = graph.several("TopK", 2, score, count)
        chosen = clipped(graph, graph("Gather", box, places), borders)
        low, high = _corners(graph, chosen)
        wide = graph("ReduceMin", graph("Cast", graph("Greater", high, low), to=_INT64), wholes(1), keepdims=0)
        counted = graph("Where", graph("Cast", wide, to=_BOOL), best, _LOST)
        keep = _unsuppressed(
            graph, chosen, graph("Unsqueeze", counted, _FIRST), head.proposal_nms_iou, head.proposals_test
        )
        kept_scores.append(graph("Gather", best, keep))
        kept_boxes.append(graph("Gather", chosen, keep))
    every = graph("Concat", *kept_scores, axis=0)
    count = graph("Min", graph("Shape", every), wholes(head.proposals_test))
    _, order = graph.several("TopK", 2, every, count)
    found = graph("Gather", graph("Concat", *kept_boxes, axis=0), order)
    lacking = graph("Sub", wholes(1), graph("Min", count, wholes(1)))  # 1 where there is none
    return graph("Concat", found, graph("Slice", floats(0, 0, 1, 1)[None], _FIRST, lacking, _FIRST), axis=0)


def pooled(graph: Nodes, maps: Sequence[str], strides: Sequence[int], boxes: str, side: int) -> str:
    """(P, C, side, side) of (P, 4) boxes, each from the level that fits its size, as `roi.pool`."""
    low, high = _corners(graph, boxes)
    area = graph("ReduceProd", graph("Sub", high, low), wholes(1), keepdims=0)
    fits = graph(
        "Add", graph("Div", graph("Sqrt", graph("Max", area, floats(0))), floats(FINEST * strides[0])), floats(1e-6)
    )
    steps = floats(
        *(2.0**level for level in range(1, len(strides)))
    )  # reached ones are counted: the floor of a logarithm
    reached = graph("Cast", graph("GreaterOrEqual", graph("Unsqueeze", fits, wholes(1)), steps), to=_INT64)
    levels = graph("ReduceSum", reached, wholes(1), keepdims=0)
    parts, places = [], []
    for level, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        here = graph("Squeeze", graph("NonZero", graph("Equal", levels, wholes(level))), _FIRST)
        size = {"output_height": side, "output_width": side, "sampling_ratio": 0, "spatial_scale": 1 / stride}
        taken = (features, graph("Gather", boxes, here), graph("Mul", here, _FIRST))
        parts.append(graph("RoiAlign", *taken, coordinate_transformation_mode="half_pixel", **size))
        places.append(here)
    return graph("Gather", graph("Concat", *parts, axis=0), _rising(graph, graph("Concat", *places, axis=0))[1])


def selected(graph: Nodes, logits: str, boxes: str, borders: str, head: DetectorHeadConfig) -> tuple[str, str, str]:
    """(D, 4) boxes, (D,) scores and labels from (P, K + 1) logits and (P, K, 4) boxes, as `box_head.select`."""
    likely = graph("Slice", graph("Softmax", logits, axis=-1), _FIRST, wholes(-1), wholes(1))
    flat = graph("Reshape", likely, wholes(-1))
    places = graph("Squeeze", graph("NonZero", graph("Greater", flat, floats(head.score))), _FIRST)  # (M,)
    candidates = clipped(graph, graph("Gather", graph("Reshape", boxes, wholes(-1, 4)), places), borders)
    scores, labels = graph("Gather", flat, places), graph("Mod", places, wholes(head.classes))
    own = graph("Equal", np.arange(head.classes)[:, None], graph("Unsqueeze", labels, _FIRST))  # (K, M)
    keep = _unsuppressed(graph, candidates, graph("Where", own, scores, _LOST), head.nms_iou, head.most)
    left = graph("Gather", scores, keep)
    best, order = graph.several("TopK", 2, left, graph("Min", graph("Shape", left), wholes(head.most)))
    keep = graph("Gather", keep, order)
    return graph("Gather", candidates, keep), best, graph("Gather", labels, keep)


def finite(graph: Nodes, values: Sequence[str]) -> str:
    """() whether none of the values is inf or nan: a network of such numbers would find nothing, in silence."""
    nothing = [graph("ReduceSum", graph("Mul", value, floats(0)), keepdims=0) for value in values]
    return graph("Not", graph("IsNaN", graph("Sum", *nothing)))


def _unsuppressed(graph: Nodes, boxes: str, scores: str, iou: float, most: int) -> str:
    """(n,) places, rising, of (M, 4) boxes that overlap no better one of their class; `scores` (K, M), _LOST: not of it."""
    given = (graph("Unsqueeze", boxes, _FIRST), graph("Unsqueeze", scores, _FIRST))
    found = graph("NonMaxSuppression", *given, wholes(most), floats(iou), _LEAST)  # (n, 3) image, class, place
    return _rising(graph, graph("Gather", found, np.array(2), axis=1))[0]


def _rising(graph: Nodes, places: str) -> tuple[str, str]:
    """(n,) sorted, and where each was."""
    found, order = graph.several("TopK", 2, places, graph("Shape", places), largest=0)
    return found, order


def _corners(graph: Nodes, boxes: str) -> tuple[str, str]:
    """(n, 2) left top and right bottom of (n, 4)."""
    low, high = (graph("Slice", boxes, first, first + 2, wholes(1)) for first in (_FIRST, _LAST))
    return low, high
