"""The page at `/` and the list of addresses at `/docs`: files of this package, as they are, with nothing from elsewhere."""

from importlib.resources import files as resources

from fastapi import FastAPI, Response

from convnext.drawing.palette import style

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = ("page.css", "page.js", "drawn.js", "docs.js", "icon.svg")


def add_pages(app: FastAPI) -> None:
    """Give an application the page, the list of its addresses, and the files of both."""
    pages = {"/": "page.html", "/docs": "docs.html", **{f"/page/{name}": name for name in _FILES}}
    for address, name in pages.items():
        _add(app, address, _content(name), _KINDS[name.rpartition(".")[2]])
    _add(app, "/page/palette.css", style(), _KINDS["css"])


def _add(app: FastAPI, address: str, text: str, kind: str) -> None:
    @app.get(address, include_in_schema=False)
    async def file() -> Response:
        return Response(text, media_type=kind)


def _content(name: str) -> str:
    return resources(__name__).joinpath(name).read_text("utf-8")
