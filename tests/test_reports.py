"""The run report: one page that stands alone, whatever state the run's folder is in."""

import io
import json
import math
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext.drawing import charts
from convnext.drawing.markup import clean, tag
from convnext.drawing.numbers import duration, percent, plain, short
from convnext.errors import ConvNeXtError
from convnext.reports.run import write_report
from convnext.tasks.classification.metrics import wilson
from pages import Page, change, dump, section

NAMES = [
    "tench", "English springer", "cassette player", "chain saw", "church",
    "French horn", "garbage truck", "gas pump", "golf ball", "parachute",
]  # fmt: skip
FILES = ("recipe.json", "environment.json", "data.json", "metrics.jsonl", "timings.jsonl", "evaluation.json")
SECTIONS = ("curves", "confusion", "classes", "calibration", "most-wrong", "data", "recipe", "environment")


def make_run(folder: Path, names: list[str], *, epochs: int = 20, per_class: int = 390, worst: int = 24) -> Path:
    """A run's folder as training leaves it, with made-up but plausible numbers."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {
        "name": "small", "source": "tuned on Imagenette", "precision": "fp32", "seed": 0,
        "model": {"family": "convnext", "name": "atto", "depths": [2, 2, 6, 2], "layer_scale": 1e-6, "grn": False},
        "input": {"size_px": 128, "progressive": [[0.0, 96], [0.6, 128]], "mean": [0.485, 0.456, 0.406]},
        "augment": {"scale": [0.35, 1.0], "rand_augment": "", "erasing": 0.0, "mixup": 0.2, "smoothing": 0.1},
        "optim": {"name": "adamw", "lr": 0.004, "batch": 64, "weight_decay": 0.05, "betas": [0.9, 0.999], "ema": 0.999},
        "schedule": {"epochs": float(epochs), "warmup_epochs": 2.0, "kind": "cosine", "min_lr": 0.0},
    }  # fmt: skip
    environment = {
        "convnext": "0.1.0", "torch": "2.11.0", "torchvision": "0.26.0", "python": "3.11.2", "device": "cpu",
        "processor": "2 cores", "commit": "a1b2c3d",
    }  # fmt: skip
    counts = {name: int(n) for name, n in zip(names, rng.integers(700, 1000, len(names)), strict=True)}
    held_out = {name: per_class for name in names}
    data = {
        "classes": names,
        "train": {"n": sum(counts.values()), "per_class": counts},
        "val": {"n": per_class * len(names), "per_class": held_out},
        "findings": ["2 images are in train and in val: 'tench/n0144.jpg', 'church/n0302.jpg'."],
        "skipped": {"train/church/n0302_17.jpg": "cut short: 1,204 of 8,113 bytes", "train/tench/x.jpg": "0 bytes"},
    }
    metrics, timings = curves(rng, epochs, len(names))
    dump(folder / "recipe.json", recipe)
    dump(folder / "environment.json", environment)
    dump(folder / "data.json", data)
    dump(folder / "evaluation.json", evaluation(rng, names, per_class, worst))
    for name, rows in {"metrics.jsonl": metrics, "timings.jsonl": timings}.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def curves(rng: np.random.Generator, epochs: int, classes: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    metrics: list[dict[str, Any]] = []
    timings: list[dict[str, Any]] = []
    for i in range(20 * epochs):
        epoch, step = (i + 1) / 20, 7 * (i + 1)
        fade = math.exp(-3.2 * epoch / epochs)
        loss = 0.72 + (math.log(max(classes, 2)) - 0.72) * fade + rng.normal(0, 0.05)
        lr = 0.004 * min(epoch / 2, 0.5 + 0.5 * math.cos(math.pi * max(0.0, epoch - 2) / max(1, epochs - 2)))
        row = {"kind": "train", "step": step, "epoch": epoch, "lr": lr, "loss": loss, "grad_norm": None}
        metrics.append(row)
        timings.append({"step": step, "seconds": 7.0, "images_per_s": 63 + rng.normal(0, 2)})
        if (i + 1) % 20 == 0:
            for weights, head_start in (("raw", 0.0), ("ema", 0.02)):
                top1 = (
                    0.845 * (1 - fade) + 0.07 + head_start * fade + rng.normal(0, 0.006 if weights == "raw" else 0.001)
                )
                scores = {"top1": top1, "top5": 0.98, "loss": 0.6, "ece": 0.03}
                metrics.append({"kind": "eval", "step": step, "epoch": epoch, "weights": weights, **scores})
    return metrics, timings


def evaluation(rng: np.random.Generator, names: list[str], per_class: int, worst: int) -> dict[str, Any]:
    size = len(names)
    confusion = np.zeros((size, size), int)
    for i in range(size):
        chance = rng.dirichlet(np.full(size, 0.4)) * rng.uniform(0.05, 0.3) if size > 1 else np.zeros(1)
        chance[i] += 1 - chance.sum()
        confusion[i] = rng.multinomial(per_class, chance)
    said, hits = confusion.sum(0), confusion.diagonal()
    rows = []
    for i, name in enumerate(names):
        precision, recall = float(hits[i] / max(1, said[i])), float(hits[i] / per_class)
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        rows.append({"name": name, "n": per_class, "precision": precision, "recall": recall, "f1": f1})
    bins = []
    for i in range(15):
        middle, n = (i + 0.5) / 15, int(per_class * size * (0.002 + 0.5 * (i / 15) ** 6))
        n = 0 if i == 0 else n
        right = max(0.0, middle - 0.06 * math.sin(math.pi * middle)) if n else 0.0
        bins.append(
            {"low": i / 15, "high": (i + 1) / 15, "n": n, "confidence": middle if n else 0.0, "accuracy": right}
        )
    mistakes = [
        {
            "path": f"val/{names[i % size]}/n{i:05d}.jpg",
            "label": names[i % size],
            "predicted": names[(3 * i + 1) % size],
            "score": 0.999 - 0.01 * i,
            "label_score": 0.0001 * i,
        }
        for i in range(worst)
    ]
    top1 = float(hits.sum() / (per_class * size))
    return {
        "n": per_class * size, "top1": top1, "top5": 0.985, "loss": 0.612, "ece": 0.0312, "weights": "ema",
        "classes": names, "confusion": confusion.tolist(), "per_class": rows, "calibration": bins, "worst": mistakes,
    }  # fmt: skip


def image(path: str) -> bytes:
    """A cloud of coloured noise, another one for each path."""
    rng = np.random.default_rng(sum(path.encode("utf-8", "surrogateescape")))
    rough = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    file = io.BytesIO()
    rough.resize((200, 150), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "imagenette", NAMES)


def test_a_report_is_balanced_markup_with_every_section(run: Path) -> None:
    page = write_report(run, read=image).read_text("utf-8")
    parsed = Page(page)
    assert parsed.ids == list(SECTIONS)
    assert 'class="note"' not in page
    assert "not hold what this version" not in page
    assert section(page, "curves").count("<figure") == 4
    assert section(page, "most-wrong").count("<img") == 24


def test_a_report_loads_nothing_and_runs_nothing(run: Path) -> None:
    page = write_report(run, read=image).read_text("utf-8")
    assert "http://" not in page and "https://" not in page and "//fonts" not in page
    assert "url(" not in page and "@import" not in page
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object", "embed"} & set(parsed.names)
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in parsed.links)
    assert "default-src &#x27;none&#x27;" in page


def test_the_headline_tells_the_score_with_its_interval_and_the_cost(run: Path) -> None:
    change(run, "evaluation.json", top1=0.8431, n=3925)
    text = Page(write_report(run).read_text("utf-8")).text.replace("\u202f", " ")
    low, high = wilson(0.8431, 3925)
    for said in (
        "84.3 %",
        f"{100 * low:.1f} to {100 * high:.1f} %",
        "3,309 of 3,925",
        "EMA weights",
        "98.5 %",
        "3.1 %",
    ):
        assert said in text
    assert "46 min 40 s" in text  # 400 rows of 7 s
    assert "ConvNeXt atto on 10 classes" in re.sub(r"\s+", " ", text)


def test_the_parameters_are_counted_from_the_header_of_the_weights(run: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "head.weight": {"dtype": "F32", "shape": [1000, 3694], "data_offsets": [0, 0]},
        "norm.running_mean": {"dtype": "F32", "shape": [10**7], "data_offsets": [0, 0]},
    }
    data = json.dumps(header).encode()
    (run / "best.safetensors").write_bytes(len(data).to_bytes(8, "little") + data)
    assert "3.7\u202fM" in write_report(run).read_text("utf-8")


def test_names_that_look_like_markup_stay_text(tmp_path: Path) -> None:
    names = ['<b>&"', "'><script>alert(1)</script>", "</style>", "plain"]
    run = make_run(tmp_path / "<i>run", names)
    change(run, "recipe.json", source='<img src=x onerror="1">')
    change(run, "environment.json", device="</table>")
    page = write_report(run, read=image).read_text("utf-8")
    parsed = Page(page)
    assert "<script" not in page and "<b>&amp;" not in page and "<i>run" not in page
    for name in names:
        assert name in parsed.text


def test_a_path_that_is_not_utf8_is_shown_and_read_by_its_own_name(run: Path) -> None:
    path = "val/church/\udcff\udcfe.jpg"
    row = {"path": path, "label": "church", "predicted": "gas \udcffpump\x00", "score": 0.9, "label_score": 0.01}
    change(run, "evaluation.json", worst=[row, {**row, "path": "half pair \ud800.jpg"}])
    asked: list[str] = []

    def read(name: str) -> bytes:
        asked.append(name)
        return image("x")

    page = write_report(run, read=read).read_text("utf-8")
    assert asked == [path, "half pair \ud800.jpg"]
    assert r"\xff\xfe.jpg" in Page(page).text
    assert "\x00" not in page


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_costs_its_section_and_nothing_else(run: Path, file: str) -> None:
    (run / file).unlink()
    page = write_report(run, read=image).read_text("utf-8")
    assert Page(page).ids == list(SECTIONS)
    assert (f"This run has no {file}." in page) == (file != "timings.jsonl")  # which only adds to others


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", [b"", b'{"classes": ["a", "b', b"[1, 2]", b"{}", b"\xff\xfe\x00", b"null\nnull\n"])
def test_a_damaged_file_is_noted(run: Path, file: str, content: bytes) -> None:
    (run / file).write_bytes(content)
    page = write_report(run, read=image).read_text("utf-8")
    assert Page(page).ids == list(SECTIONS)
    if file != "timings.jsonl":
        assert 'class="note"' in page


@pytest.mark.parametrize("field", ["classes", "confusion", "per_class", "calibration", "worst", "top1", "n", "weights"])
def test_a_field_of_another_form_is_noted_not_fatal(run: Path, field: str) -> None:
    for value in (None, "text", 3, {"a": 1}, [], [[1]], float("nan")):
        change(run, "evaluation.json", **{field: value})
        assert Page(write_report(run, read=image).read_text("utf-8")).ids == list(SECTIONS)


def test_an_empty_folder_gives_a_page_of_notes(tmp_path: Path) -> None:
    page = write_report(tmp_path).read_text("utf-8")
    assert Page(page).ids == list(SECTIONS)
    assert page.count('class="note"') == len(SECTIONS) + 1


def test_a_last_line_cut_short_is_left_out_and_said(run: Path) -> None:
    whole = section(write_report(run).read_text("utf-8"), "curves")
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 2807, "epo')
    cut = section(write_report(run).read_text("utf-8"), "curves")
    assert "1 line of metrics.jsonl could not be read and is left out." in cut
    assert re.findall("<polyline[^>]*>", cut) == re.findall("<polyline[^>]*>", whole)


def test_numbers_that_are_not_finite_are_left_out(run: Path) -> None:
    rows = [
        {"kind": "train", "step": i, "epoch": i / 10, "lr": 0.1, "loss": math.nan if i % 2 else 1.0} for i in range(9)
    ]
    rows.append({"kind": "eval", "step": 9, "epoch": 1.0, "weights": "raw", "top1": math.inf, "top5": None})
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    change(run, "evaluation.json", ece=math.nan, loss=math.inf, top5=None)
    page = write_report(run).read_text("utf-8")
    Page(page)
    assert not re.search(r"\b(nan|inf|NaN|Infinity)\b", re.sub("<style>.*?</style>", "", page, flags=re.S))


def test_a_score_is_shown_beside_what_needs_no_image_and_top5_only_of_more_than_five_classes(tmp_path: Path) -> None:
    for size in (5, 6):
        run = make_run(tmp_path / str(size), NAMES[:size])
        never = NAMES[:2]
        change(
            run, "evaluation.json", balanced_accuracy=0.51, macro_f1=0.42, baseline_top1=0.3, chance=1 / size,
            never_predicted=never,
        )  # fmt: skip
        page = write_report(run).read_text("utf-8")
        text = Page(page).text
        assert "Balanced accuracy" in text and percent(0.51) in text and percent(0.42) in text
        assert "Naming the commonest class for every image would be right for 30.0%" in text
        assert f"2 classes of {size} are never predicted: {never[0]}, {never[1]}." in section(page, "classes")
        assert ("Top-5 accuracy" in text) == (size > 5)


def test_the_figure_that_chose_the_best_weights_has_its_curve(run: Path) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    dump(run / "recipe.json", {**recipe, "select": {"metric": "macro_f1"}})
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{**row, "macro_f1": 0.3} if row["kind"] == "eval" else row for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(run).read_text("utf-8")
    assert section(page, "curves").count("<figure") == 5
    assert "Validation macro F1, which chose the best weights" in section(page, "curves")


@pytest.mark.parametrize("size", [1, 2, 15, 16, 30, 31, 1000])
def test_any_number_of_classes_gives_a_readable_page(tmp_path: Path, size: int) -> None:
    names = [f"class {i}" for i in range(size)]
    run = make_run(tmp_path / "run", names, epochs=1, per_class=50, worst=2)
    page = write_report(run, read=image).read_text("utf-8")
    parsed = Page(page)
    confusion = section(page, "confusion")
    assert ('class="heat' in confusion) == (size <= 30)
    assert ('class="n"' in confusion) == (size <= 15)
    assert ("details" in parsed.names) == (size > 40)
    assert all(f"class {i}" in parsed.text for i in range(size))
    assert len(page) < 2_000_000


def test_of_thousands_of_classes_the_page_has_the_worst_pairs_the_worst_classes_and_a_line_for_each(
    tmp_path: Path,
) -> None:
    names = [f"class <{i}>" for i in range(3000)]
    run = make_run(tmp_path / "run", names[:20], epochs=1, worst=2)
    rows = [
        {"name": name, "n": 3, "precision": 0.5, "recall": i / 3000, "f1": i / 3000} for i, name in enumerate(names)
    ]
    triples = [[i, i, 3] for i in range(3000)] + [[7, 2999, 5], [8, 3, 9]]
    told = json.loads((run / "evaluation.json").read_text())
    del told["confusion"]
    dump(run / "evaluation.json", {**told, "classes": names, "confusion_triples": triples, "per_class": rows})
    per = dict.fromkeys(names, 3)
    change(run, "data.json", classes=names, train={"n": 9000, "per_class": per}, val={"n": 9000, "per_class": per})
    page = write_report(run).read_text("utf-8")
    pairs, classes = (" ".join(Page(section(page, name)).text.split()) for name in ("confusion", "classes"))
    assert "3,000 classes are too many to draw" in pairs.replace("\u202f", ",")
    assert pairs.index("class <8> → class <3>") < pairs.index("class <7> → class <2999>")
    assert "75.0" in pairs  # nine of twelve
    assert all(f"class <{i}>" in classes for i in range(3000))
    listed = section(page, "classes")
    assert re.findall('<span class="name">class &lt;(\\d+)&gt;</span>', listed) == [str(i) for i in range(20)]
    assert listed.count("\nclass &lt;") == 2999 and len(page) < 1_000_000


@pytest.mark.parametrize("triples", [[[0, 5, 1]], [[-1, 0, 1]], [[0, 1]], [["a", 0, 1]], None, 3])
def test_triples_of_other_classes_cost_their_section_alone(run: Path, triples: Any) -> None:
    told = json.loads((run / "evaluation.json").read_text())
    del told["confusion"]
    dump(run / "evaluation.json", {**told, "classes": ["a", "b"], "confusion_triples": triples})
    assert "does not hold what this version writes there" in section(write_report(run).read_text("utf-8"), "confusion")


def test_the_confused_pairs_come_most_frequent_first(run: Path) -> None:
    table = np.diag([100, 100, 100])
    table[0, 2], table[2, 1] = 7, 30
    change(run, "evaluation.json", classes=["ant", "bee", "cat"], confusion=table.tolist())
    text = re.sub("<[^>]*>", "", section(write_report(run).read_text("utf-8"), "confusion"))
    assert text.index("cat → bee30") < text.index("ant → cat7")
    assert "bee → " not in text


def test_classes_are_listed_from_the_worst(run: Path) -> None:
    rows = [
        {"name": name, "n": 9, "precision": f1, "recall": f1, "f1": f1}
        for name, f1 in zip("abc", (0.9, 0.2, 0.5), strict=True)
    ]
    change(run, "evaluation.json", per_class=rows)
    listed = re.findall('<span class="name">(.)</span>', section(write_report(run).read_text("utf-8"), "classes"))
    assert listed == ["b", "c", "a"]


def test_every_field_of_the_recipe_is_shown(run: Path) -> None:
    text = Page(section(write_report(run).read_text("utf-8"), "recipe")).text
    for values in json.loads((run / "recipe.json").read_text()).values():
        for field in values if isinstance(values, dict) else ():
            assert field in text
    assert "0.004" in text and "(0, 96), (0.6, 128)" in text and "1e-6" in text


def test_an_image_that_cannot_be_read_is_shown_as_its_name(run: Path) -> None:
    def read(path: str) -> bytes:
        number = int(path[-9:-4])
        if number == 0:
            raise FileNotFoundError(path)
        return {1: b"", 2: b"no image", 3: image("x")[:900]}.get(number, image(path))

    page = write_report(run, read=read).read_text("utf-8")
    section_of = section(page, "most-wrong")
    assert section_of.count("<img") == 20
    assert section_of.count('class="unseen"') == 4
    assert '<div class="unseen">n00000.jpg</div>' in section_of


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_an_image_of_any_mode_becomes_a_small_jpeg(run: Path, mode: str) -> None:
    file = io.BytesIO()
    Image.new("L", (300, 40), 128).convert("L" if mode == "I;16" else mode).convert(mode).save(file, "TIFF")
    page = write_report(run, read=lambda path: file.getvalue()).read_text("utf-8")
    data = re.findall('src="data:image/jpeg;base64,([^"]*)"', page)
    assert len(data) == 24
    with Image.open(io.BytesIO(b64decode(data[0]))) as small:
        assert small.format == "JPEG" and small.size == (160, 21) and small.mode == "RGB"


def test_an_image_is_turned_as_its_camera_was_held(run: Path) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (320, 160), "red").save(file, "JPEG", exif=exif)
    page = write_report(run, read=lambda path: file.getvalue()).read_text("utf-8")
    found = re.search('src="data:image/jpeg;base64,([^"]*)"', page)
    assert found
    with Image.open(io.BytesIO(b64decode(found[1]))) as small:
        assert small.size == (80, 160)


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    first = write_report(run, read=image).read_bytes()
    assert write_report(run, read=image).read_bytes() == first


def test_a_report_is_replaced_whole_or_not_at_all(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_report(run).read_bytes()
    (run / "recipe.json").unlink()

    def refuse(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(ConvNeXtError, match=r"Cannot write .*report\.html': No space left"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob(".report*"))


def test_a_folder_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConvNeXtError) as refused:
        write_report(tmp_path / "nothing")
    assert "There is no run at" in str(refused.value) and "\n" not in str(refused.value)


def test_wilson_intervals_agree_with_published_ones() -> None:
    low, high = wilson(81 / 263, 263)  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson(0.0, 20)
    assert (round(low, 4), round(high, 4)) == (0.0, 0.1611)
    assert wilson(1.0, 29)[1] == 1.0 and round(wilson(1.0, 29)[0], 4) == 0.8830
    assert wilson(0.5, 0) == (0.0, 1.0)


def test_numbers_are_written_as_people_read_them() -> None:
    written = [percent(0.84314), short(3_694_960), short(28_589_128), duration(41.2), duration(2892), duration(11_100)]
    assert [w.replace("\u202f", " ") for w in written] == [
        "84.3 %",
        "3.7 M",
        "28.6 M",
        "41 s",
        "48 min 12 s",
        "3 h 05 min",
    ]
    assert [plain(v) for v in (0.00125, 5e-5, 12.3456, 20.0, 1234.5, None, math.nan)] == [
        "0.00125", "5e-5", "12.35", "20", "1,234", "–", "–",
    ]  # fmt: skip


def test_smoothing_keeps_a_constant_and_lags_behind_nothing() -> None:
    assert np.allclose(charts.smooth(np.full(200, 3.0)), 3.0)
    ramp = np.arange(400.0)
    assert np.allclose(charts.smooth(ramp)[100:300], ramp[100:300])


def test_a_tag_escapes_text_and_attributes_but_not_markup() -> None:
    assert tag("p", "a<b", tag("b", "&"), None, title='"x"') == '<p title="&quot;x&quot;">a&lt;b<b>&amp;</b></p>'
    assert clean("a\udc80\x07b") == "a\\x80\ufffdb"
