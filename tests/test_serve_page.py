"""The page of `convnext serve` in a real Chromium: what is dropped is answered and drawn; nothing comes from elsewhere."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from browser import SKIP, answered, canvas, chromium_open, give, opened, playwright, png
from checkpoints import TASKS, checkpoint_of
from convnext.deploy.load import load
from serving import process

pytestmark = SKIP
KEY = {"username": "anybody", "password": "0123456789abcdef0123"}  # a browser sends it as a password
CLASSES = ("<b>a</b>", "b")  # a name is text, whatever it looks like


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("runs")
    return {task: checkpoint_of(task, place / task, classes=CLASSES) for task in TASKS if not (place / task).mkdir()}


@pytest.fixture(scope="module")
def address(runs, tmp_path_factory) -> Iterator[str]:
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(KEY["password"])
    with process(*runs.values(), "--device", "cpu", "--api-key-file", key) as (_, url):
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with chromium_open() as browser:
        yield browser


@pytest.fixture
def page(chromium, address) -> Iterator[Any]:
    with opened(chromium, address, http_credentials=KEY) as found:
        playwright.expect(found.locator("#about")).to_have_text("classification, 2 classes")
        yield found


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_what_is_dropped_or_pasted_is_answered_as_predict_does(page, runs, kind):
    give(page, kind, a_png=png(0), b_png=png(1))
    answered(page, 2)
    expected = load(runs["classification"], device="cpu")(png(0)).predictions
    rows = page.locator(".card").first.locator(".bars li")
    assert rows.locator(".name").all_text_contents() == [name for name, _ in expected]
    assert rows.locator(".value").all_text_contents() == [f"{100 * score:.1f}%" for _, score in expected]
    assert page.locator(".card h2").all_text_contents() == ["a.png", "b.png"]
    assert "48" in page.locator(".note").first.text_content() and " ms" in page.locator(".note").first.text_content()
    assert page.locator("#status").text_content() == "2 of 2 images answered."
    label = page.locator(".card canvas").first.get_attribute("aria-label")
    assert label.startswith("a.png: ") and expected[0][0] in label
    assert page.locator(".card b").count() == 0  # names are text


def test_files_are_chosen_by_the_keyboard_alone_and_removed(page):
    page.focus("#files")
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files([{"name": "<img src=x onerror=alert(1)>.png", "mimeType": "image/png", "buffer": png(0)}])
    answered(page, 1)
    assert page.locator(".card h2").text_content() == "<img src=x onerror=alert(1)>.png"
    page.get_by_label("Remove <img").focus()
    page.keyboard.press("Enter")
    playwright.expect(page.locator(".card")).to_have_count(0)
    assert page.locator("#controls").is_hidden() and page.evaluate("document.activeElement.id") == "files"


def test_a_server_that_is_gone_is_told_in_place_of_an_answer(page):
    page.route("**/v1/predict*", lambda asked: asked.abort())
    give(page, "drop", a_png=png(0))
    answered(page, 1)
    assert "The server does not answer" in page.locator(".card.failed .note").text_content()


def test_who_removes_an_image_by_the_keyboard_comes_to_the_next(page):
    give(page, "drop", a_png=png(0), b_png=png(1))
    answered(page, 2)
    for left in ("Remove b.png", None):
        page.keyboard.press("Enter") if left is None else page.get_by_label("Remove a.png").press("Enter")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == left


@pytest.mark.parametrize("holds", [True, False])
def test_a_folder_that_is_dropped_is_all_images_in_it(page, tmp_path, holds):
    (tmp_path / "photos/deeper").mkdir(parents=True)
    (tmp_path / "photos/notes.txt").write_text("no image")
    for number, place in enumerate(("10.png", "9.PNG", "deeper/11.png") if holds else ()):
        (tmp_path / "photos" / place).write_bytes(png(number))
    zone, browser = page.locator("#drop").bounding_box(), page.context.new_cdp_session(page)
    what = {"items": [], "files": [str(tmp_path / "photos")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        about = {"type": kind, "x": zone["x"] + 9, "y": zone["y"] + 9, "data": what}
        browser.send("Input.dispatchDragEvent", about)
    if not holds:
        playwright.expect(page.locator("#status")).to_have_text("The folder holds no images.")
        return
    answered(page, 3)
    assert page.locator(".card h2").all_text_contents() == ["9.PNG", "10.png", "11.png"]


def test_a_photo_of_the_camera_is_answered(page):
    page.click("#photograph")
    playwright.expect(page.locator("#camera")).to_be_visible()
    playwright.expect(page.locator("#video")).to_have_js_property("readyState", 4)
    page.click("#take")
    answered(page, 1)
    assert page.locator(".card h2").text_content() == "photo.jpg"
    assert page.locator("#camera").is_hidden() and page.locator(".bars li").count() == 2


def test_what_cannot_be_read_is_told_in_its_place(page):
    give(page, "drop", a_png=png(0), broken_png=b"no image")
    answered(page, 2)
    failed = page.locator(".card.failed")
    assert failed.locator(".note").text_content().startswith("'broken.png' cannot be read: not an image")
    assert "cannot be read" in failed.locator("canvas").get_attribute("aria-label")
    assert page.locator(".card:not(.failed) .bars li").count() == 2


def test_the_slider_hides_what_scores_less_and_json_holds_all(page, runs):
    page.select_option("#network", "detection")
    give(page, "drop", a_png=png(0))
    answered(page, 1)
    assert page.locator(".bars").text_content() == "nothing above the threshold"
    bare = canvas(page)
    page.locator("#threshold").fill("10")
    playwright.expect(page.locator(".bars .value").first).to_be_visible()
    drawn = canvas(page)
    assert drawn != bare and page.locator("#threshold-value").text_content() == "10%"
    page.uncheck("#drawn")
    assert canvas(page) == bare
    with page.expect_download() as saved:
        page.click("#save")
    found = json.loads(Path(saved.value.path()).read_text())
    expected = load(runs["detection"], device="cpu", task="detection")(png(0), score=0.05, top=200).to_dict()[
        "predictions"
    ]
    assert saved.value.suggested_filename == "detection.json" and found["task"] == "detection"
    rows = [{**row, "file_name": "<bytes>"} for row in found["results"][0]["predictions"]]
    assert rows == json.loads(json.dumps(expected)) and len(rows) > 1


def test_a_map_is_drawn_over_the_image(page, runs):
    give(page, "drop", a_png=png(0))
    answered(page, 1)
    bare = canvas(page)
    page.select_option("#network", "segmentation")  # asks again
    playwright.expect(page.locator("#title")).to_have_text("segmentation")
    answered(page, 1)
    expected = load(runs["segmentation"], device="cpu")(png(0)).predictions
    assert page.locator(".bars .name").all_text_contents() == [name for name, _ in expected]
    assert canvas(page) != bare


def test_what_an_answer_rests_on_is_shown_on_a_switch_for_any_class_by_the_keyboard(page, runs):
    give(page, "drop", a_png=png(0))
    answered(page, 1)
    bare = canvas(page)
    page.focus("#explain")
    page.keyboard.press("Space")
    chosen = page.locator(".bars input:checked")
    playwright.expect(chosen).to_have_count(1)
    answered(page, 1)
    best, other = (name for name, _ in load(runs["classification"], device="cpu")(png(0)).predictions)
    assert chosen.input_value() == best and canvas(page) != bare
    assert f"what speaks for {best} is strongest " in page.locator(".card canvas").get_attribute("aria-label")
    shown = canvas(page)
    chosen.focus()
    page.keyboard.press("ArrowDown")
    playwright.expect(page.locator(".card canvas")).to_have_attribute("aria-label", re.compile(f"for {other} is"))
    assert page.evaluate("document.activeElement.value") == other  # the answer does not take the keyboard away
    assert canvas(page) not in (bare, shown)
    page.uncheck("#explain")
    assert canvas(page) == bare and page.locator(".bars input").count() == 0
    page.select_option("#network", "detection")
    playwright.expect(page.locator("#explaining")).to_be_hidden()


def test_the_place_of_a_map_is_told_in_words(page):
    places = [[[0, 0, 0], [0, 0, 0], [0, 0, 0]] for _ in range(3)]
    places[0][0][2] = places[1][1][1] = 5
    answers = [{"explained": [{"grid": grid}], "seen": [0, 0, 90, 60]} for grid in places]
    found = page.evaluate(
        "async (all) => (await import('/page/drawn.js').then((drawn) => all.map((one) => drawn.strongest(one, 90, 60))))",
        answers,
    )
    assert found == ["at the top right", "in the middle", "nowhere"]


def test_an_answer_below_what_is_promised_is_called_not_sure(page):
    row = {"path": "a.png", "predictions": [{"label": "b", "score": 0.6}], "answered": False, "set": ["b", CLASSES[0]]}
    text = json.dumps({"model": "classification", "task": "classification", "results": [row]})
    page.route("**/v1/predict?*", lambda route: route.fulfill(body=text, content_type="application/json"))
    give(page, "drop", a_png=png(0))
    answered(page, 1)
    assert page.locator(".note").text_content().startswith("not sure · one of: b, <b>a</b> · 64 × 48")
    assert page.locator(".card canvas").get_attribute("aria-label") == "a.png: not sure: b 60.0%"


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_unpacked_as_coco_has_them(page, seed):
    mask = np.random.default_rng(seed).random((37, 53)) < (0.02, 0.5, 0.98)[seed]
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    lengths = page.evaluate("async (text) => (await import('/page/drawn.js')).runs(text)", packed)
    values = np.repeat(np.arange(len(lengths)) % 2, lengths)
    assert (mask == values.reshape(53, 37).T).all()


def test_the_list_of_addresses_is_drawn_from_the_server_s_own_description(page, address):
    page.goto(f"{address}/docs")
    playwright.expect(page.locator("#addresses code").first).to_have_text("/v1/predict")
    assert page.locator(".address").count() > 10 and f"{address}/v1/predict" in page.locator("#examples").text_content()


def test_pages_take_the_colours_of_the_system(chromium, address):
    found = set()
    for scheme in ("light", "dark"):
        context = chromium.new_context(color_scheme=scheme, http_credentials=KEY)
        tab = context.new_page()
        tab.goto(address)
        found.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert len(found) == 2


def test_without_the_key_a_browser_sees_nothing(chromium, address):
    context = chromium.new_context()  # every other test sends the password
    with pytest.raises(playwright.Error, match="ERR_INVALID_AUTH_CREDENTIALS"):  # it would ask a person
        context.new_page().goto(address)
    context.close()
