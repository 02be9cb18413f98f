"""The shell of every page: one file that loads nothing and runs nothing, whatever a class name tries."""

from importlib.resources import files as resources

from convnext.drawing.markup import Html, join, tag
from convnext.drawing.palette import style

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, *body: object) -> Html:
    """A whole HTML document with its style inside it: the palette, the marks of charts, report.css."""
    layout = resources("convnext.reports").joinpath("report.css").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(style() + layout)),
    )
    return join([Html("<!doctype html>\n"), tag("html", head, tag("body", *body), lang="en")])
