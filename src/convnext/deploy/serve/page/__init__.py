"""The page at `/` and the list of addresses at `/docs`: files of packages, as they are, with nothing from elsewhere."""

from fastapi import FastAPI, Response

from convnext.deploy.page import SHARED, content, page, shared

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_OWN = ("page.js", "docs.js")
_FIELDS = {
    "root": "/page/",
    "script": "page.js",
    "head": "",
    "where": "They go to this server alone, and it keeps nothing.",
    "without": " Without one: <code>curl --data-binary @image.jpg ADDRESS/v1/predict</code>",
    "unopened": "",
    "foot": 'Every address of this server: <a href="/docs">for people</a>, <a href="/openapi.json">for programs</a>',
}


def add_pages(app: FastAPI) -> None:
    """Give an application the page, the list of its addresses, and the files of both."""
    _add(app, "/", page(_FIELDS), "html")
    _add(app, "/docs", content(__name__, "docs.html"), "html")
    files = {name: content(__name__, name) for name in _OWN} | {name: shared(name) for name in SHARED}
    for name, text in files.items():
        _add(app, f"/page/{name}", text, name.rpartition(".")[2])


def _add(app: FastAPI, address: str, text: str, kind: str) -> None:
    @app.get(address, include_in_schema=False)
    async def file() -> Response:
        return Response(text, media_type=_KINDS[kind])
