"""`python docs/make/screenshots.py FOLDER`: the images of the pages, taken in Chromium from what record.py left in FOLDER."""

import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "images"
PARTS = {  # image -> the page, and the part of it that is taken
    "tutorial_finetune.png": ("runs/clothing/report.html", "#confusion"),
    "tutorial_audit.png": ("checked/index.html#labels", None),
    "start.png": ("runs/demo/report.html", None),
}


def main(folder: Path) -> None:
    """Take them all, in light colours."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 640}, color_scheme="light")
        for name, (where, part) in PARTS.items():
            file, _, anchor = where.partition("#")
            page.goto(f"{(folder / file).resolve().as_uri()}#{anchor}")
            _take(page, part, IMAGES / name)
        browser.close()
    for place, name in (("drawn", "detections.png"), ("painted", "tutorial_segment.png")):
        _beside(sorted((folder / place).glob("*.jpg"))[:3], IMAGES / name)


def _take(page: Page, part: str | None, file: Path) -> None:
    if part:
        page.locator(part).screenshot(path=file)
    else:
        page.screenshot(path=file)
    Image.open(file).convert("P", palette=Image.Palette.ADAPTIVE).save(file, optimize=True)


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
