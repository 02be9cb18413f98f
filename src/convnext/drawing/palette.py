"""The colours of everything that is drawn: of charts and pages, in light and dark, and of objects on an image.

Charts name a colour by a class ('blue', 'orange', 'grey', ...), which `chart.css` turns into `var(--blue)`; the values
are here. Two hues that colour-blind readers tell apart, the rest in greys.
"""

import colorsys
from importlib.resources import files as resources

Colour = tuple[int, int, int]  # red, green, blue, 0..255

LIGHT = {
    **{"page": "#ffffff", "ink": "#1a2127", "soft": "#5a6570", "line": "#d9dee3", "grid": "#e9edf0", "wash": "#f5f7f8"},
    **{"blue": "#0b64a8", "orange": "#bd5206", "grey": "#7b8792", "silver": "#a9b3bc", "faint": "#8db4d3"},
    "deep": "0.62",  # how much of a cell of a heat map its colour covers at most
}
DARK = {
    **{"page": "#12161a", "ink": "#e6eaed", "soft": "#9aa6b0", "line": "#323a42", "grid": "#252c33", "wash": "#1a2026"},
    **{"blue": "#62aef0", "orange": "#f29a4a", "grey": "#8d99a4", "silver": "#56616b", "faint": "#46688a"},
    "deep": "0.5",
}
ON_IMAGES: dict[str, Colour] = {  # what a detection is; the same in light and dark, for the image is
    "right": (64, 156, 255),
    "wrong": (255, 128, 24),
    "neither": (170, 178, 186),
}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

_GOLDEN = 0.618033988749895  # of a turn from one hue to the next: neighbours differ, however many there are


def colour_of(number: int) -> Colour:
    """The colour of a class or an object, the same everywhere."""
    turn, rest = number * _GOLDEN, number % 3
    red, green, blue = colorsys.hsv_to_rgb((0.58 + turn) % 1, (0.85, 0.65, 0.95)[rest], (0.95, 1.0, 0.8)[rest])
    return round(255 * red), round(255 * green), round(255 * blue)


def style() -> str:
    """CSS for a page or for an SVG file: the palette as variables of the root, and the marks of charts."""
    on_images = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in ON_IMAGES.items()}
    light, dark = _variables(LIGHT | on_images | {"font": FONT}), _variables(DARK)
    marks = resources("convnext.drawing").joinpath("chart.css").read_text("utf-8")
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{marks}"


def _variables(values: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in values.items())
