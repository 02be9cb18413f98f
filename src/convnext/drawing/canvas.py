"""The canvas of a drawing that stands alone: an SVG file, or a part of a page, that brings its own style.

Positions are in units of the drawing, which scales as a whole; (0, 0) is the upper left corner inside the edge. A
`look` is a class of `chart.css`: 'fill blue', 'curve grey dashed', 'whisker'. `charts` has those that bend to a page.
"""

from collections.abc import Iterable
from typing import Literal

from convnext.drawing.markup import Html, tag
from convnext.drawing.palette import style

EDGE = 16  # empty, all round
LETTER = 6.4  # how wide a letter is, about

Anchor = Literal["start", "middle", "end"]


def canvas(width: float, height: float, says: str, *inside: object, edge: float = EDGE) -> Html:
    """A drawing of `width` x `height` inside `edge`, one SVG element; `says` is read to those who do not see it."""
    place = {"x": -edge, "y": -edge, "width": width + 2 * edge, "height": round(height + 2 * edge, 1)}
    return tag(
        "svg",
        tag("style", Html(style())),
        tag("rect", class_="sheet", **place),
        *inside,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=" ".join(f"{value:g}" for value in place.values()),
        class_="chart",
        role="img",
        aria_label=says,
    )


def write(x: float, y: float, content: object, look: str = "", anchor: Anchor = "start") -> Html:
    """A line of text whose letters stand on `y`."""
    return tag("text", content, x=round(x, 1), y=round(y, 1), class_=look or None, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> Html:
    """A straight line."""
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return tag("line", **{name: round(value, 1) for name, value in ends.items()}, class_=look)


def bar(x: float, y: float, width: float, height: float, look: str) -> Html:
    """A bar from `x` to the right; one of no width is not seen."""
    return tag("rect", x=x, y=round(y, 1), width=max(0.0, round(width, 1)), height=height, rx=1.5, class_=look)


def curve(points: Iterable[tuple[float, float]], look: str) -> Html:
    """Points joined in their order."""
    return tag("polyline", points=" ".join(f"{x:g},{y:g}" for x, y in points), class_=look)


def dot(x: float, y: float, radius: float, look: str) -> Html:
    """A circle."""
    return tag("circle", cx=round(x, 1), cy=round(y, 1), r=radius, class_=look)


def whisker(low: float, high: float, y: float, look: str = "whisker") -> list[Html]:
    """From `low` to `high` at `y`, with an end on each side."""
    return [line(low, y, high, y, look), *(line(x, y - 4, x, y + 4, look) for x in (low, high))]


def titled(says: str, *parts: object) -> Html:
    """Parts that say something when a pointer rests on them."""
    return tag("g", tag("title", says), *parts)
