"""`convnext export --to web`: a folder whose page answers in the browser as `predict` does, and asks nobody."""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import band_images
import labels_data
from browser import SKIP, answered, chromium_open, give, opened, playwright, png, served
from checkpoints import checkpoint_of
from children import PATIENCE_S
from commands import convnext, trained
from convnext.data.decode import decode
from convnext.deploy.export.web import runtime
from convnext.deploy.export.web.folder import export_web
from convnext.deploy.load import load
from convnext.engine.run import amend_whole
from convnext.errors import ConvNeXtError
from convnext.tasks.classification.conformal import Sets
from serving import pixels_of

SOURCE = Path(runtime.__file__).parent
PARTS = {  # of a decision, as a run keeps them
    "promise": {"accuracy": 0.9, "threshold": 0.6, "answered": 0.5, "n": 100, "part": "test"},
    "sets": {"coverage": 0.9, "most": 0.55, "penalty": 0.01, "free": 1, "n": 100, "part": "test"},
}
DECISION = {"temperature": 0.3, "stretch": 0.02, "images": "", "n": 10, **PARTS}


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """onnxruntime-web, unpacked, from npm's own cache: tests fetch nothing."""
    place: Path = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--offline", "--loglevel=error", f"{runtime.PACKAGE}@{runtime.VERSION}"]
    if not shutil.which("npm") or subprocess.run(command, cwd=place, capture_output=True, check=False).returncode:
        pytest.skip("the browser folder is NOT tested: npm's cache has no onnxruntime-web (npm cache add fetches it)")
    with tarfile.open(next(place.glob("*.tgz"))) as archive:
        for inside, _ in runtime.FILES.values():
            archive.extract(f"package/{inside}", place, filter="data")
    return place / "package"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with chromium_open() as browser:
        yield browser


# The runtime


def other_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Files under the names of the runtime's, and their digests in place of its."""
    held = {inside: name.encode() for name, (inside, _) in runtime.FILES.items()}
    for inside, data in held.items():
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        (folder / inside).write_bytes(data)
    digests = {name: (inside, hashlib.sha256(held[inside]).hexdigest()) for name, (inside, _) in runtime.FILES.items()}
    monkeypatch.setattr(runtime, "FILES", digests)
    return {name: name.encode() for name in runtime.FILES}


@pytest.mark.parametrize("place", ["", "package", "onnxruntime-web", "node_modules/onnxruntime-web", "tgz", "flat"])
def test_the_runtime_is_found_wherever_it_is_unpacked_installed_or_packed(tmp_path, monkeypatch, place):
    folder = tmp_path / ("package" if place == "tgz" else "" if place == "flat" else place)
    folder.mkdir(exist_ok=True, parents=True)
    expected = other_files(folder, monkeypatch)
    if place == "flat":
        for file in [*(folder / "dist").iterdir()]:
            file.rename(folder / file.name)
    if place == "tgz":
        archive = tmp_path / "onnxruntime-web-1.30.0.tgz"
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(folder, "package")
        shutil.rmtree(folder)
        assert runtime.runtime_files(archive) == expected
    assert runtime.runtime_files(tmp_path) == expected


def test_other_files_than_those_of_the_version_are_refused_in_one_line(tmp_path, monkeypatch):
    other_files(tmp_path, monkeypatch)
    inside, _ = next(iter(runtime.FILES.values()))
    (tmp_path / inside).write_bytes(b"other")
    with pytest.raises(ConvNeXtError, match="its SHA-256 is another") as told:
        runtime.runtime_files(tmp_path)
    assert inside.split("/")[-1] in str(told.value) and "\n" not in str(told.value)
    (tmp_path / inside).unlink()
    with pytest.raises(ConvNeXtError, match="has no ort"):
        runtime.runtime_files(tmp_path)
    with pytest.raises(ConvNeXtError, match="has no ort"):
        runtime.runtime_files(tmp_path / "nowhere")
    (tmp_path / "broken.tgz").write_bytes(b"no archive")
    with pytest.raises(ConvNeXtError, match="cannot be read"):
        runtime.runtime_files(tmp_path / "broken.tgz")


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo 'npm error code E404' >&2; echo 'npm error 404 Not Found' >&2; exit 1", "404 Not Found"),
        ("""echo '{"error": {"summary": "request to http://x failed"}}'; exit 1""", "request to http://x failed"),
        ("exit 1", "it failed"),
        ("exit 0", "has no ort"),  # it says that all is well, and brings nothing
    ],
)
def test_what_npm_cannot_bring_is_one_line(tmp_path, monkeypatch, script, text):
    (tmp_path / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConvNeXtError, match=text) as told:
        runtime.runtime_files()
    assert "--runtime" in str(told.value) and str(told.value).isprintable()


def test_without_npm_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConvNeXtError, match=r"npm, which is not installed.*--runtime FOLDER"):
        runtime.runtime_files()


# What is refused


def test_networks_and_places_that_do_not_fit_are_refused_before_any_work(tmp_path, monkeypatch):
    other_files(tmp_path / "runtime", monkeypatch)
    dense = checkpoint_of("segmentation", made(tmp_path / "dense"))
    done = convnext("export", dense, "--to", "web", "--runtime", tmp_path / "runtime")
    assert done.status == 2 and "is for segmentation, and --to web is for classifiers" in done.err
    run = checkpoint_of("classification", made(tmp_path / "run"))
    done = convnext("export", run, "--to", "onnx", "--runtime", tmp_path / "runtime")
    assert done.status == 2 and "is for to = 'web'" in done.err
    (made(tmp_path / "mine") / "letter.txt").write_text("mine")
    done = convnext("export", run, "--to", "web", "--out", tmp_path / "mine", "--runtime", tmp_path / "runtime")
    assert done.status == 2 and "holds 'letter.txt', which is none of this export" in done.err
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    done = convnext("export", run, "--to", "web", "--runtime", tmp_path / "nowhere")
    assert done.status == 2 and "has no ort" in done.err and not (tmp_path / "run/web").exists()


def test_a_network_of_bands_is_refused(tmp_path, monkeypatch):
    other_files(tmp_path / "runtime", monkeypatch)
    trained(band_images.class_folders(tmp_path / "data", 6), tmp_path / "run", "--batch", 4)
    with pytest.raises(ConvNeXtError, match="which no browser decodes"):
        export_web(tmp_path / "run", runtime=tmp_path / "runtime")


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


# The scripts


@pytest.fixture(scope="module")
def scripts(chromium) -> Iterator[Any]:
    """A tab from which the scripts of the folder can be imported; no network is needed for them."""
    with served(SOURCE) as address:
        tab = chromium.new_page()
        tab.goto(f"{address}/answer.js")
        yield tab
        tab.close()


_PIXELS = """async ([text, about]) => {
  const { pixelsOf } = await import("/pixels.js");
  const data = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const found = await pixelsOf(new Blob([data]), about);
  return { height: found.height, width: found.width, data: [...found.data] };
}"""


def seen_in_browser(tab: Any, data: bytes, **about: Any) -> np.ndarray:
    """(H, W, C) that `pixels.js` makes of a file."""
    found = tab.evaluate(_PIXELS, [base64.b64encode(data).decode(), about])
    return np.array(found["data"], np.uint8).reshape(found["height"], found["width"], about["channels"])


def seen_by_pillow(data: bytes, channels: int, shorter: int | None, size: int) -> np.ndarray:
    """What Pillow makes of it, both sides of `size` or the shorter one of `shorter`."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if shorter is None:
        wanted = (size, size)
    elif width <= height:
        wanted = (shorter, shorter * height // width)
    else:
        wanted = (shorter * width // height, shorter)
    pixels = np.asarray(image.resize(wanted, Image.Resampling.BICUBIC))
    return pixels.reshape(*pixels.shape[:2], channels)


SIZES = [(40, 60), (64, 64), (61, 200), (170, 130), (1, 9), (480, 600)]  # the last is read in two strips


@SKIP
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pixels_are_those_of_pillow_to_the_bit(scripts, height, width, channels):
    data = png(height, height, width)
    for about in ({"warp": False, "shorter_px": 72, "size_px": 64}, {"warp": True, "shorter_px": None, "size_px": 64}):
        found = seen_in_browser(scripts, data, channels=channels, **about)
        assert (found == seen_by_pillow(data, channels, about["shorter_px"], about["size_px"])).all()


@SKIP
@pytest.mark.parametrize("width", range(2000, 2004))  # the middle lies between pixels, in every way
def test_of_a_long_image_the_middle_is_made_alone_and_a_crop_sees_the_same(scripts, width):
    data = png(1, 8, width)
    found = seen_in_browser(scripts, data, channels=3, warp=False, shorter_px=72, size_px=64)
    whole = seen_by_pillow(data, 3, 72, 64)
    assert found.shape[0] == 72 and 72 <= found.shape[1] < 76
    lefts = [round((image.shape[1] - 64) / 2) for image in (found, whole)]  # halves to even, as in evaluation
    assert (found[:, lefts[0] :][:, :64] == whole[:, lefts[1] :][:, :64]).all()


@SKIP
def test_where_pillow_shrinks_columns_first_pixels_move_by_little(scripts):
    data = png(7, 500, 170)  # Pillow 13 does so with high images; earlier ones, the graph and the page never do
    found = seen_in_browser(scripts, data, channels=3, warp=False, shorter_px=72, size_px=64)
    assert np.abs(found.astype(int) - seen_by_pillow(data, 3, 72, 64)).max() <= 3


@SKIP
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_are_upright_and_jpeg_differs_by_little(scripts, orientation):
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(pixels_of(3, 6, 9)).resize((180, 120), Image.Resampling.BICUBIC)
    smooth.save(stream, "jpeg", quality=90, exif=exif)
    about = {"warp": False, "shorter_px": 64, "size_px": 64}
    found = seen_in_browser(scripts, stream.getvalue(), channels=3, **about)
    expected = seen_by_pillow(stream.getvalue(), 3, 64, 64)
    assert np.abs(found.astype(int) - expected).max() <= 3


@SKIP
def test_transparency_lies_over_white_as_everywhere(scripts):
    pixels = np.concatenate([pixels_of(1, 64, 64), pixels_of(2, 64, 64)[:, :, :1]], 2)
    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "png")
    found = seen_in_browser(scripts, stream.getvalue(), channels=3, warp=False, shorter_px=64, size_px=64)
    assert np.abs(found.astype(int) - decode(stream.getvalue())).max() <= 2  # the browser rounds more than once


@SKIP
def test_what_is_no_image_is_told(scripts):
    with pytest.raises(playwright.Error, match="This browser cannot read it as an image"):
        seen_in_browser(scripts, b"no image", channels=3, warp=True, shorter_px=None, size_px=64)


@SKIP
@pytest.mark.parametrize("seed", range(4))
def test_answers_are_those_of_predict(scripts, tmp_path, seed):
    """Ranks, promises and sets of random logits, ties among them."""
    generator = np.random.default_rng(seed)
    classes, sets = [f"c{number}" for number in range(8)], Sets(0.9, 0.7, 0.02 * seed, 1 + seed, 100, "test")
    about = {"classes": classes, "several": False, "promised": True, "sets": sets.to_dict()}
    for _ in range(20):
        logits = generator.integers(-3, 4, (1, 8)).astype(np.float32)
        log_p = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
        order = np.argsort(-logits[0], kind="stable")
        answers = np.zeros(8, bool)
        answers[order[0]] = np.exp(log_p).max() >= 0.5
        given = [about, logits[0].tolist(), np.exp(log_p[0]).astype(np.float32).tolist(), answers.tolist()]
        found = scripts.evaluate("async (given) => (await import('/answer.js')).answerOf(...given)", given)
        assert [row["label"] for row in found["predictions"]] == [classes[place] for place in order[:5]]
        assert found["answered"] == bool(answers.any())
        assert found["set"] == [classes[place] for place in order[: int(sets.sizes(log_p)[0])]]


# The folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A classifier whose scores are promised, and whose sets are given."""
    file = checkpoint_of(
        "classification", made(tmp_path_factory.mktemp("web") / "pets"), classes=("<b>a</b>", "b", "c")
    )
    amend_whole(file, {"decision": DECISION})
    return file


@pytest.fixture(scope="module")
def folder(run, package) -> Path:
    done = convnext("export", run, "--to", "web", "--runtime", package, "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["out"] == str(run.parent / "web") and told["form"] == "web" and told["max_logit_difference"] < 1e-3
    return run.parent / "web"


@pytest.fixture
def page(chromium, folder) -> Iterator[Any]:
    with served(folder) as address, opened(chromium, address) as found:
        playwright.expect(found.locator("#about")).to_have_text("classification, 3 classes")
        yield found


def saved(page: Any) -> list[dict[str, Any]]:
    """What the page saves as JSON."""
    with page.expect_download() as download:
        page.click("#save")
    found: list[dict[str, Any]] = json.loads(Path(download.value.path()).read_text())["results"]
    return found


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same answer, scores to 1e-5."""
    scores = [[row.pop("score") for row in rows["predictions"]] for rows in (found, expected)]
    assert found == expected
    assert np.abs(np.subtract(*scores)).max(initial=0) < 1e-5


@SKIP
def test_with_the_network_off_the_page_answers_as_predict_does(page, run):
    page.context.set_offline(True)
    sizes = [(48, 64), (170, 90), (64, 64), (30, 31)]
    files = {f"{number}_png": png(number, *size) for number, size in enumerate(sizes)}
    give(page, "drop", **files)
    answered(page, len(files))
    predictor = load(run, device="cpu")
    expected = [predictor(data).to_dict() | {"path": name.replace("_", ".")} for name, data in files.items()]
    assert {row["answered"] for row in expected} and all(row["set"] for row in expected)
    for one, other in zip(saved(page), expected, strict=True):
        same(one, other)
    assert page.locator(".card b").count() == 0  # names are text
    assert page.locator("#explaining").is_hidden() and page.locator("#drawing").is_hidden()


@SKIP
def test_what_a_browser_cannot_read_is_told_in_its_place(page):
    give(page, "paste", a_png=png(0), broken_png=b"no image")
    answered(page, 2)
    failed = page.locator(".card.failed")
    assert failed.locator(".note").text_content() == "This browser cannot read it as an image."
    assert page.locator(".card:not(.failed) .bars li").count() == 3
    assert page.locator("#status").text_content() == "2 of 2 images answered."


@SKIP
def test_neither_page_nor_worker_can_ask_another_place(page, folder):
    with served(folder) as elsewhere:
        ask = f"fetch('{elsewhere}/network.json', {{mode: 'no-cors'}}).then(() => 'asked', (error) => String(error))"
        (worker,) = page.workers
        assert "Failed to fetch" in worker.evaluate(ask)
        assert "Failed to fetch" in page.evaluate(ask)
        assert page.evaluate("fetch('network.json').then(({ ok }) => ok)")


@SKIP
def test_a_page_that_is_opened_as_a_file_says_how_it_is_opened(chromium, folder):
    tab = chromium.new_page()
    tab.goto((folder / "index.html").as_uri())
    playwright.expect(tab.locator("#status .late")).to_be_visible(timeout=1000 * PATIENCE_S)
    assert "python -m http.server" in tab.locator("#status").text_content()
    tab.close()


@SKIP
def test_a_folder_that_lacks_its_network_says_so(chromium, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy/network.json").unlink()
    with served(tmp_path / "copy") as address, opened(chromium, address) as found:
        playwright.expect(found.locator("#status")).to_contain_text("cannot be loaded: network.json is missing (404)")


def test_an_earlier_export_is_replaced_whole(run, folder, package):
    (folder / "model.onnx").write_bytes(b"old")
    export_web(run, runtime=package)
    assert len((folder / "model.onnx").read_bytes()) > 1000
    names = {file.name for file in folder.iterdir()}
    assert "index.html" in names and not [file for file in folder.parent.iterdir() if file.name.endswith(".tmp")]


@SKIP
def test_several_labels_are_those_above_their_thresholds(tmp_path, chromium, package):
    data = labels_data.in_columns(tmp_path / "data", labels_data.made(16))
    trained(data, tmp_path / "run", "--batch", 8)
    export_web(tmp_path / "run", tmp_path / "page", runtime=package)
    files = sorted((tmp_path / "data").rglob("*.png"))[:4]
    predictor = load(tmp_path / "run", device="cpu")
    with served(tmp_path / "page") as address, opened(chromium, address) as found:
        playwright.expect(found.locator("#about")).to_contain_text("classification")
        give(found, "drop", **{f"{number}_png": file.read_bytes() for number, file in enumerate(files)})
        answered(found, len(files))
        for number, (one, file) in enumerate(zip(saved(found), files, strict=True)):
            same(one, predictor(file).to_dict() | {"path": f"{number}.png"})
