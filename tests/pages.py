"""Pages as a strict reader sees them, and files of runs as a careless hand changes them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path


def dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def change(run: Path, file: str, **fields: object) -> None:
    dump(run / file, {**json.loads((run / file).read_text()), **fields})


class Page(HTMLParser):
    """Fails on an element that is not closed in its order; collects text, ids and attributes."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.names: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(name)
        for key, value in attributes:
            assert not key.startswith("on"), f"{name} would run {key}"
            if key == "id":
                self.ids.append(str(value))
            if key in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(str(value))
        if name not in ("meta", "img", "br", "link", "input"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open and self.open.pop() == name, f"</{name}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def section(page: str, anchor: str) -> str:
    found = re.search(rf'<section id="{anchor}">.*?</section>', page, re.S)
    assert found, f"no section '{anchor}'"
    return found[0]
