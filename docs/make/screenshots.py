"""`python docs/make/screenshots.py FOLDER`: the images of the pages, taken in Chromium from what record.py left in FOLDER.

Beside the runs of the tutorials there lie, made by their commands: near.html (`similar runs/clothing holiday/shoes.jpg
clothing.zip`), why/ (`explain runs/clothing holiday`), runs/clothing/web (`export runs/clothing --to web`) and rob/ (`evaluate
runs/clothing few --suite corruptions --severities 1,3,5`, where few/ has eight test images of each class).
"""

import functools
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from charts import Bar, bars
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

IMAGES = Path(__file__).parents[1] / "images"
PARTS = {  # image -> the page, the part of it that is taken, how wide the window is, and how many pixels of the part's height
    "tutorial_finetune.png": ("runs/clothing/report.html", "#confusion", 1000, 700),
    "tutorial_audit.webp": ("checked/index.html", "#labels", 760, 590),
    "start.png": ("runs/demo/report.html", "body", 1000, 640),
    "calibration.webp": ("runs/clothing/report.html", "#calibration", 1000, 530),
    "most_wrong.webp": ("runs/clothing/report.html", "#most-wrong", 760, 430),
    "precision_recall.webp": ("runs/nuclei/report.html", "#precision-and-recall", 1000, 390),
    "worst_objects.webp": ("runs/nuclei/report.html", "#worst-images", 1000, 450),
    "worst_masks.webp": ("runs/cells/report.html", "#worst-images", 1000, 490),
    "similar.webp": ("near.html", "main", 760, 715),
    "explain.webp": ("why/index.html", "main", 1000, 640),
}
_ABOVE = 30  # pixels above a part that are left out: its distance to the one before


def main(folder: Path) -> None:
    """Take them all, in light colours."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(color_scheme="light")
        for name, (where, part, width, most) in PARTS.items():
            page.set_viewport_size({"width": width, "height": 640})
            page.goto((folder / where).resolve().as_uri())
            _take(page, part, most, IMAGES / name)
        with _served(folder / "runs" / "clothing" / "web") as address:
            page.set_viewport_size({"width": 760, "height": 640})
            page.goto(address)
            page.locator("#files").set_input_files(sorted((folder / "holiday").iterdir()))
            expect(page.locator("#status")).to_contain_text("4 of 4", timeout=300_000)
            _take(page, "body", 1015, IMAGES / "web.webp")
        browser.close()
    for place, name in (("drawn", "detections.png"), ("painted", "tutorial_segment.png")):
        _beside(sorted((folder / place).glob("*.jpg"))[:3], IMAGES / name)
    found = json.loads((folder / "rob" / "robustness.json").read_text("utf-8"))
    rows = [Bar("clean images", 100 * (1 - found["clean"]["error"]), ours=True)]
    for name, cells in found["cells"].items():
        rows.append(Bar(name.replace("_", " "), 100 * (1 - cells["3"]["error"])))
    title = "Accuracy under corruption"
    (IMAGES / "robustness.svg").write_text(str(bars(title, "top-1 at severity 3, %", {"": rows})), "utf-8")


def _take(page: Page, part: str, most: int, file: Path) -> None:
    """The upper `most` pixels of a part of the page."""
    taken = file.with_suffix(".taken.png")
    box = page.locator(part).first.bounding_box() or {}
    above = _ABOVE if part != "body" else 0
    clip = {"x": box["x"], "y": box["y"] + above, "width": box["width"], "height": min(box["height"] - above, most)}
    page.screenshot(path=taken, clip=clip, full_page=True)
    with Image.open(taken) as image:
        if file.suffix == ".webp":
            image.convert("RGB").save(file, quality=80, method=6)
        else:
            image.convert("P", palette=Image.Palette.ADAPTIVE).save(file, optimize=True)
    taken.unlink()


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a web server for `folder`, while the block runs."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def _beside(files: list[Path], file: Path) -> None:
    """Images of one height in a row."""
    images = [Image.open(each).convert("RGB") for each in files]
    images = [each.resize((round(each.width * 256 / each.height), 256)) for each in images]
    row = Image.new("RGB", (sum(each.width for each in images) + 8 * (len(images) - 1), 256), "white")
    left = 0
    for each in images:
        row.paste(each, (left, 0))
        left += each.width + 8
    row.convert("P", palette=Image.Palette.ADAPTIVE).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
