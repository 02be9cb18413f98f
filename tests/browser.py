"""A real Chromium, Debian's, and what people do on the pages of this package."""

import base64
import contextlib
import io
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from children import PATIENCE_S
from serving import pixels_of

playwright: Any = pytest.importorskip("playwright.sync_api", reason="pages are NOT tested: playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SKIP = pytest.mark.skipif(CHROMIUM is None, reason="pages are NOT tested: there is no chromium here")
_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
NARROW: dict[str, Any] = {"viewport": {"width": 400, "height": 800}, "color_scheme": "dark"}
_GIVE = """([kind, files]) => {
  const data = new DataTransfer();
  for (const [name, text] of files) {
    data.items.add(new File([Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0))], name, { type: "image/png" }));
  }
  const about = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
  const Kind = kind === "drop" ? DragEvent : ClipboardEvent;
  document.getElementById("drop").dispatchEvent(new Kind(kind, about));
}"""


@contextlib.contextmanager
def chromium_open() -> Iterator[Any]:
    """The browser, with a camera that shows a pattern."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *_CAMERA])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Any, address: str, **looks: Any) -> Iterator[Any]:
    """`address` in a tab of its own, 400 px wide, dark; at the end it has asked nobody else and raised nothing."""
    context = browser.new_context(**NARROW, **looks)
    context.set_default_timeout(1000 * PATIENCE_S)
    playwright.expect.set_options(timeout=1000 * PATIENCE_S)
    page = context.new_page()
    asked, raised = list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: raised.append(str(error)))
    page.on("filechooser", lambda chooser: None)  # early: the driver does not wait until the browser hands them over
    page.goto(address)
    yield page
    assert not raised
    assert not [url for url in asked if not url.startswith((f"{address}/", "blob:", "data:image/png;base64,"))]
    assert page.evaluate("document.documentElement.scrollWidth") <= 400  # whatever was shown, nobody scrolls sideways
    context.close()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `folder`, as `python -m http.server` serves it."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def png(number: int, height: int = 48, width: int = 64) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels_of(number, height, width)).save(stream, "png")
    return stream.getvalue()


def give(page: Any, kind: str, **files: bytes) -> None:
    """Drop or paste files on the page."""
    listed = [[name.replace("_", "."), base64.b64encode(data).decode()] for name, data in files.items()]
    page.evaluate(_GIVE, [kind, listed])


def answered(page: Any, many: int) -> None:
    """Until all images on the page have their answers."""
    playwright.expect(page.locator(".card[aria-busy=false]")).to_have_count(many)


def canvas(page: Any) -> str:
    """What is drawn."""
    found: str = page.evaluate("document.querySelector('.card canvas').toDataURL()")
    return found
