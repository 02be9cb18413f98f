"""A classifier in the browser against torch: the same answers, how long, how large; beside two other ways.

    python benchmarks/web.py RUN DATA [--images 500] [--seed 0] [--runtime FOLDER] [--transformers FOLDER]

`convnext export RUN --to web` is opened in a real Chromium and given images of DATA as files; its answers are compared with
those of `convnext predict`. Bare is what one writes by hand: the network by `torch.onnx.export`, the image drawn on a canvas
of the network's size, normalised in a loop, the same runtime in the same browser. The third way is transformers.js, from a
FOLDER with transformers.min.js and the two files ort-wasm-simd-threaded.asyncify.* of its onnxruntime-web (npm pack brings
both packages): its classes for the same network and a processor of the same sizes, in one thread. All answer the same
images in turn, and their times go from the file to the scores; cold starts, from an empty cache until the first image may
come and until it has its answer, are taken in turn too. Writes a line of JSON to benchmarks/results/web.jsonl.
"""

import argparse
import base64
import gzip
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Browser, Page, sync_playwright

import convnext
from convnext.data.opening import open_labelled, recognise
from convnext.data.transforms import normalise
from convnext.deploy.export.web.runtime import PACKAGE, VERSION
from convnext.engine.machine import processor

RESULTS = Path(__file__).parent / "results" / "web.jsonl"
TOGETHER = 10  # images that are given to a page at once
STARTS = 5  # cold ones
READY = "() => Boolean(window.ask)"
OTHERS = ("transformers.min.js", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
PATIENCE_MS = 600_000
BARE = """<!doctype html><script type="module">
import * as ort from "./onnxruntime.js";
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("./onnxruntime.wasm", location.href).href };
const session = await ort.InferenceSession.create("./bare.onnx", { executionProviders: ["wasm"] });
const { size, shorter, mean, std } = await (await fetch("./bare.json")).json();
const canvas = new OffscreenCanvas(size, size);
const pen = canvas.getContext("2d", { willReadFrequently: true });
pen.imageSmoothingQuality = "high";
window.ask = async (text) => {
  const file = new Blob([Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0))]);
  const began = performance.now();
  const bitmap = await createImageBitmap(file);
  const ratio = shorter / Math.min(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width * ratio, bitmap.height * ratio];
  pen.drawImage(bitmap, (size - width) / 2, (size - height) / 2, width, height);
  const { data } = pen.getImageData(0, 0, size, size);
  const x = new Float32Array(3 * size * size);
  for (let place = 0; place < size * size; place += 1) {
    for (let c = 0; c < 3; c += 1) x[c * size * size + place] = (data[4 * place + c] / 255 - mean[c]) / std[c];
  }
  const { logits } = await session.run({ images: new ort.Tensor("float32", x, [1, 3, size, size]) });
  return { logits: [...logits.data], ms: performance.now() - began };
};
</script>"""
TRANSFORMERS = """<!doctype html><script type="module">
import { AutoImageProcessor, AutoModelForImageClassification, RawImage, env } from "./transformers.min.js";
Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: new URL("./", location.href).href });
const place = (end) => new URL(`./ort-wasm-simd-threaded.asyncify.${end}`, location.href).href;
Object.assign(env.backends.onnx.wasm, { numThreads: 1, wasmPaths: { mjs: place("mjs"), wasm: place("wasm") } });
const processed = await AutoImageProcessor.from_pretrained("theirs");
const network = await AutoModelForImageClassification.from_pretrained("theirs", { dtype: "fp32", device: "wasm" });
window.ask = async (text) => {
  const file = new Blob([Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0))]);
  const began = performance.now();
  const { logits } = await network(await processed(await RawImage.fromBlob(file)));
  return { logits: [...logits.data], ms: performance.now() - began };
};
</script>"""


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("data", help="images of three channels")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runtime", help="a folder that holds onnxruntime-web")
    parser.add_argument("--transformers", type=Path, help="a folder that holds transformers.js")
    args = parser.parse_args()
    predictor: Any = convnext.load(args.run, task="classification", device="cpu")
    files = list(images_of(args.data, args.images, args.seed))
    with tempfile.TemporaryDirectory() as room, sync_playwright() as driver:
        folder = Path(room) / "web"
        done = convnext.export(args.run, "web", folder, runtime=args.runtime)
        sizes = {file.name: file.stat().st_size / 1e6 for file in folder.iterdir()}
        packed = sum(len(gzip.compress(file.read_bytes())) for file in folder.iterdir()) / 1e6
        own = {"page": sizes, "bare": write_bare(predictor, folder)}
        if args.transformers:
            own["transformers.js"] = write_transformers(predictor, folder, args.transformers)
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        with served(folder) as address:
            starts = {name: list[tuple[float, float]]() for name in own}
            for name in [*own] * STARTS:
                starts[name].append(start(browser, address, name, files[0]))
            found = in_turn(browser, address, files, list(own))
        version = browser.version
        browser.close()
    expected = [predictor(data, top=len(predictor.classes)).predictions for _, data in files]
    row: dict[str, Any] = {"command": f"web.py RUN DATA --images {args.images} --seed {args.seed}", "n": len(files)}
    row |= {"network": predictor.recipe.model.name, "size_px": predictor.recipe.input.eval_size_px}
    row |= {"data": Path(args.data).name}
    for name, files_mb in own.items():
        row[name] = agreement(found[name], expected) | {"mb": round(sum(files_mb.values()), 2)}
        row[name] |= cold(starts[name], starts["bare"])
    row |= {"max_logit_difference_of_the_export": done.difference}
    row |= {"gzipped_mb": packed, "files_mb": sizes, "starts": STARTS}
    row |= {"browser": f"Chromium {version}", "runtime": f"{PACKAGE} {VERSION}", "processor": processor()}
    if args.transformers:
        row["transformers.js"] |= {"version": json.loads((args.transformers / "package.json").read_text())["version"]}
    row |= {"torch": torch.__version__, "threads": 1}
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


Answers = list[tuple[dict[str, float], float]]  # class -> score, and milliseconds


def images_of(data: str, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, file) of random images."""
    dataset = open_labelled(recognise(data), split=None)
    for place in np.random.default_rng(seed).permutation(len(dataset.entries))[:count].tolist():
        path = dataset.entries[place].path
        yield Path(path).name, dataset.store.read(path)


def write_bare(predictor: Any, folder: Path) -> dict[str, float]:
    """The network as one writes it by hand; megabytes of the files that it takes."""
    write_onnx(predictor, folder / "bare.onnx", "images")
    config = predictor.recipe.input
    about = {"size": config.eval_size_px, "shorter": shorter_px(config), "mean": config.mean, "std": config.std}
    (folder / "bare.json").write_text(json.dumps(about | {"classes": predictor.classes}))
    (folder / "bare.html").write_text(BARE)
    names = ("bare.html", "bare.json", "bare.onnx", "onnxruntime.js", "onnxruntime.wasm")
    return {name: (folder / name).stat().st_size / 1e6 for name in names}


def write_transformers(predictor: Any, folder: Path, package: Path) -> dict[str, float]:
    """What transformers.js takes: itself, its runtime, the network with its configuration and its processor."""
    place, config = folder / "theirs", predictor.recipe.input
    (place / "onnx").mkdir(parents=True)
    write_onnx(predictor, place / "onnx" / "model.onnx", "pixel_values")
    named = {str(number): name for number, name in enumerate(predictor.classes)}
    about = {"model_type": "convnext", "architectures": ["ConvNextForImageClassification"], "id2label": named}
    (place / "config.json").write_text(json.dumps(about))
    steps = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": shorter_px(config)}, "resample": 3}
    steps |= {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    steps |= {"do_center_crop": True, "crop_size": {"height": config.eval_size_px, "width": config.eval_size_px}}
    steps |= {"image_mean": list(config.mean), "image_std": list(config.std)}
    (place / "preprocessor_config.json").write_text(json.dumps(steps))
    (folder / "transformers.html").write_text(TRANSFORMERS)
    for name in OTHERS:
        (folder / name).write_bytes((package / name).read_bytes())
    files = [*(folder / name for name in (*OTHERS, "transformers.html")), *place.rglob("*.*")]
    return {file.name: file.stat().st_size / 1e6 for file in files}


def write_onnx(predictor: Any, path: Path, name: str) -> None:
    """Normalised images -> logits, one at a time."""
    config = predictor.recipe.input
    x = normalise(torch.zeros(1, config.eval_size_px, config.eval_size_px, 3, dtype=torch.uint8), config)
    network = convnext.load(predictor.source, device="cpu", plain=True).model
    options: dict[str, Any] = {"input_names": [name], "output_names": ["logits"], "external_data": False}
    torch.onnx.export(network, (x,), str(path), dynamo=True, verbose=False, **options)


def shorter_px(config: Any) -> int:
    """The shorter side of an image before its crop."""
    return int(config.eval_size_px / config.eval_crop)


def start(browser: Browser, address: str, name: str, file: tuple[str, bytes]) -> tuple[float, float]:
    """Milliseconds from an empty cache until a page is ready to answer, and until it has answered."""
    context = browser.new_context()
    page = context.new_page()
    began = time.perf_counter()
    ready(page, address, name)
    waited = time.perf_counter()
    if name == "page":
        page.set_input_files("#files", {"name": file[0], "mimeType": "image/jpeg", "buffer": file[1]})
        page.locator(".card[aria-busy=false]").wait_for(timeout=PATIENCE_MS)
    else:
        page.evaluate("(text) => ask(text)", base64.b64encode(file[1]).decode())
    ended = time.perf_counter()
    context.close()
    return 1000 * (waited - began), 1000 * (ended - began)


def cold(starts: list[tuple[float, float]], bare: list[tuple[float, float]]) -> dict[str, float]:
    """Medians of cold starts, and of the shares of those of `bare`, round by round."""
    found: dict[str, float] = {}
    for place, name in enumerate(("cold_start", "first_answer")):
        found[f"{name}_ms"] = round(statistics.median(each[place] for each in starts))
        shares = [each[place] / other[place] for each, other in zip(starts, bare, strict=True)]
        found[f"{name}_of_bare"] = round(statistics.median(shares), 2)
    return found


def ready(page: Page, address: str, name: str) -> None:
    """`page` shows one of the ways, ready to answer."""
    if name == "page":
        page.goto(f"{address}/index.html")
        page.locator("#about", has_text="classification").wait_for(timeout=PATIENCE_MS)
    else:
        page.goto(f"{address}/{name.removesuffix('.js')}.html")
        page.wait_for_function(READY, timeout=PATIENCE_MS)


def in_turn(browser: Browser, address: str, files: list[tuple[str, bytes]], names: list[str]) -> dict[str, Answers]:
    """What each way says of the same images, some of these and some of those in turn."""
    pages = {name: browser.new_page() for name in names}
    for name, page in pages.items():
        ready(page, address, name)
    classes = pages["bare"].evaluate("fetch('bare.json').then((answer) => answer.json())")["classes"]
    found: dict[str, Answers] = {name: [] for name in names}
    for first in range(0, len(files), TOGETHER):
        some = files[first : first + TOGETHER]
        for name, page in pages.items():
            found[name] += of_page(page, some) if name == "page" else [asked(page, data, classes) for _, data in some]
    return found


def asked(page: Page, data: bytes, classes: list[str]) -> tuple[dict[str, float], float]:
    """What one of the other ways says of one image."""
    answer = page.evaluate("(text) => ask(text)", base64.b64encode(data).decode())
    logits = np.array(answer["logits"], np.float64)
    scores = np.exp(logits - logits.max())
    return dict(zip(classes, (scores / scores.sum()).tolist(), strict=True)), answer["ms"]


def of_page(page: Page, some: list[tuple[str, bytes]]) -> Answers:
    """What the page says of some images, by what it saves and shows."""
    given: Any = [{"name": name, "mimeType": "image/jpeg", "buffer": data} for name, data in some]
    page.set_input_files("#files", given)
    page.locator(".card[aria-busy=false]").nth(len(some) - 1).wait_for(timeout=PATIENCE_MS)
    with page.expect_download() as saved:
        page.click("#save")
    rows = json.loads(Path(saved.value.path()).read_text())["results"]
    times = [float(note.split("·")[-1].removesuffix("ms")) for note in page.locator(".note").all_text_contents()]
    page.click("#clear")
    scores = [{each["label"]: each["score"] for each in row["predictions"]} for row in rows]
    return list(zip(scores, times, strict=True))


def agreement(found: Answers, expected: list[tuple[tuple[str, float], ...]]) -> dict[str, float]:
    """With torch's answers: images of the same first class, the largest difference of a score, and the time of one."""
    firsts = [
        max(scores, key=lambda name: scores[name]) == best[0][0]
        for (scores, _), best in zip(found, expected, strict=True)
    ]
    differences = [
        abs(scores[name] - score)
        for (scores, _), best in zip(found, expected, strict=True)
        for name, score in best
        if name in scores
    ]
    times = sorted(ms for _, ms in found)
    return {
        "same_top1": sum(firsts),
        "max_score_difference": max(differences),
        "median_ms": statistics.median(times),
        "p10_ms": times[len(times) // 10],
    }


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `folder`, as `python -m http.server` serves it."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


if __name__ == "__main__":
    main()
