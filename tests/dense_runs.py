"""Folders of detection and segmentation runs as training leaves them, and what their pages say."""

import io
import json
import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convnext.data.annotated import AnnotatedImage, Row, objects_of
from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.masks import encode
from convnext.data.opening import DenseSplits
from convnext.data.store import FolderStore
from convnext.recipes import recipe
from convnext.reports.dense import write_dense_report
from convnext.tasks.detection import metrics as detection
from convnext.tasks.detection.found import Found
from convnext.tasks.segmentation import metrics as segmentation
from convnext.tasks.segmentation.report import report as segmentation_report
from pages import Page, dump
from shape_objects import small

FILES = ("recipe.json", "environment.json", "data.json", "metrics.jsonl", "timings.jsonl", "evaluation.json")


DETECTION = (
    "average-precision", "curves", "parts-of-the-loss", "precision-and-recall", "classes", "worst-images", "data",
    "recipe", "environment",
)  # fmt: skip


SEGMENTATION = (
    "curves",
    "parts-of-the-loss",
    "classes",
    "confusion",
    "worst-images",
    "data",
    "recipe",
    "environment",
)


def write_run(folder: Path, splits: DenseSplits, evaluation: dict[str, Any]) -> Path:
    """A run's folder as training leaves it."""
    folder.mkdir()
    task = splits.train.task
    chosen = small() if task == "detection" else recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    per_class = {name: 40 * (place + 1) for place, name in enumerate(splits.train.classes)}
    counts = {part: {"n": 6, "per_class": per_class, "images": per_class} for part in ("train", "val")}
    data = {
        "task": task,
        "classes": list(splits.train.classes),
        **counts,
        "findings": [],
        "problems": {},
        "skipped": {},
    }
    figures = {name: value for name, value in evaluation.items() if isinstance(value, float)}
    names = ("rpn_score", "rpn_box", "score", "box", "mask") if task == "detection" else ("main", "auxiliary")
    rows: list[dict[str, Any]] = [
        {
            "kind": "train",
            "step": i,
            "epoch": i / 3,
            "lr": 0.1,
            "loss": 1 / i,
            "grad_norm": 1.0,
            "parts": {name: 1 / i / len(names) for name in names},
        }
        for i in range(1, 31)
    ]
    for weights in ("raw", "ema"):
        rows += [{"kind": "eval", "step": i, "epoch": i / 3, "weights": weights, **figures} for i in (15, 30)]
    timings = [{"step": i, "seconds": 1.5, "images_per_s": 2.0 + i} for i in range(1, 31)]
    dump(folder / "recipe.json", chosen.model_dump(mode="json"))
    dump(folder / "environment.json", {"torch": "2.11.0", "device": "cpu"})
    dump(folder / "data.json", data)
    dump(folder / "evaluation.json", evaluation | {"metric": _metric(evaluation), "weights": "ema", "step": 30})
    for name, lines in {"metrics.jsonl": rows, "timings.jsonl": timings}.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


def _metric(evaluation: dict[str, Any]) -> str:
    return next(name for name in ("mask_ap", "box_ap", "miou") if name in evaluation)


def guessed(dataset: DenseDataset, *, masks: bool = True, seed: int = 0) -> detection.Outcomes:
    """Detections as a mediocre detector has them: objects moved by a few pixels, some lost, some invented."""
    rng = np.random.default_rng(seed)
    found = []
    for index, entry in enumerate(dataset.entries):
        sample = read_sample(dataset, index)
        height, width = sample.size
        ground_truth = sample.instances
        assert ground_truth is not None
        rows = []
        for box, label in zip(ground_truth.boxes, ground_truth.labels, strict=True):
            rows += [(box + rng.integers(-3, 4, 4), label, rng.random())] if rng.random() < 0.8 else []
            rows += [(box + 9, rng.integers(0, len(dataset.classes)), 0.7 * rng.random())]
        rows.sort(key=lambda row: -row[2])
        boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4).clip(0, [width, height] * 2)
        drawn = np.zeros((len(rows), height, width), np.uint8)
        for mask, (x0, y0, x1, y1) in zip(drawn, boxes.astype(int).tolist(), strict=True):
            mask[y0:y1, x0:x1] = 1
        scores, labels = np.array([row[2] for row in rows], np.float32), np.array([row[1] for row in rows], np.int64)
        shapes = tuple(encode(mask) for mask in drawn) if masks else None
        found.append(Found(sample.path, entry.image_id, sample.size, boxes, scores, labels, shapes))
    return detection.Outcomes(tuple(range(len(found))), tuple(found), tuple(1.0 for _ in found))


def coloured(dataset: DenseDataset) -> segmentation.Outcomes:
    """Maps as a mediocre segmenter has them: everything moved to the right, further in each image."""
    judged = []
    table = np.zeros((len(dataset.classes),) * 2, np.int64)
    for index in range(len(dataset.entries)):
        ground_truth = read_sample(dataset, index).semantic
        assert ground_truth is not None
        predicted = np.roll(np.where(ground_truth == 255, 0, ground_truth), index, axis=1).astype(np.uint8)
        own = segmentation.confusion(predicted, ground_truth, len(dataset.classes))
        table += own
        judged.append(segmentation.Judged.of(index, own, 1.0, predicted))
    return segmentation.Outcomes(table, tuple(judged))


def segmented(dataset: DenseDataset) -> dict[str, Any]:
    return segmentation_report(coloured(dataset), dataset.classes, [entry.path for entry in dataset.entries])


def squares(classes: int, hits: Callable[[int], int]) -> tuple[detection.Outcomes, DenseDataset]:
    """An image for each class with ten squares of it, of which `hits(class)` are found."""
    entries, found = [], []
    for label in range(classes):
        corners = [(20.0 * i, 0.0) for i in range(10)]
        rows = [
            Row((x, y, x + 10, y + 10), label, None, False, 100.0, 10 * label + i + 1)
            for i, (x, y) in enumerate(corners)
        ]
        entries.append(AnnotatedImage(f"{label}.png", label + 1, (20, 200), objects_of(rows)))
        shown = np.array([row.box for row in rows[: hits(label)]], np.float32).reshape(-1, 4)
        given = np.full(len(shown), 0.9, np.float32), np.full(len(shown), label, np.int64)
        found.append(Found(f"{label}.png", label + 1, (20, 200), shown, *given, None))
    names = tuple(f"class {label}" for label in range(classes))
    dataset = DenseDataset("detection", names, tuple(entries), FolderStore("."), tuple(range(1, classes + 1)))
    return detection.Outcomes(tuple(range(classes)), tuple(found), tuple(0.0 for _ in found)), dataset


def evaluation_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
    return content


def page_of(run: Path, data: DenseDataset | None = None) -> str:
    return write_dense_report(run, data).read_text("utf-8")


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", Page(page).text.replace("\u202f", " "))


def images_in(page: str) -> list[np.ndarray]:
    data = re.findall('src="data:image/jpeg;base64,([^"]*)"', page)
    return [np.asarray(Image.open(io.BytesIO(b64decode(each)))) for each in data]


def relogged(run: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """`run` with every training row of its log changed."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [change(row) if row["kind"] == "train" else row for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run
