"""`python docs/make/check.py HTML`: every link inside of the site leads somewhere, nothing comes from elsewhere."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"src", "data", "poster"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.names.add(value)
            elif key == "href" and value:
                (self.loads if tag == "link" and dict(attrs).get("rel") != "canonical" else self.links).append(value)
            elif key in _LOADED and value:
                self.loads.append(value)


def faults(site: Path) -> list[str]:
    """One line for each link that leads nowhere, and for each thing that would come from another host."""
    pages: dict[Path, _Page] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = _Page()
        pages[path].feed(path.read_text("utf-8"))
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name}: loads {each}" for each in page.loads if urlsplit(each).netloc]
        for each in page.links + page.loads:
            parts = urlsplit(each)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                found.append(f"{name}: '{each}' leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names:
                found.append(f"{name}: '{each}' names no part of its page")
    return found


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]).resolve())
    print("\n".join(wrong) or "Every link leads somewhere; nothing is loaded from elsewhere.")
    sys.exit(bool(wrong))
