"""The gallery: charts drawn from benchmarks/results, each with its command, its processor and its rows."""

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from convnext.drawing.canvas import bar, canvas, line, whisker, write
from convnext.drawing.markup import Html
from convnext.drawing.scales import nice, steps

_INTRO = """# Gallery

Every chart is drawn from the rows that a script of `benchmarks/` wrote, when this site is built. Peers ran in the
same run, in turn. Blue is this package. Absolute times compare only inside of one chart; what the tables leave out is
in [measured](benchmarks.md), what did not help in the [log](log.md).
"""
_LABELS, _WIDE, _ROW = 220, 400, 26

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Bar:
    """One row of a chart: what, how much, the spread or 0, and whether it is ours."""

    name: str
    value: float
    spread: float = 0.0
    ours: bool = False


@dataclass(frozen=True)
class Entry:
    """One chart with its words; `rows` makes the bars of each panel from the lines of its file."""

    title: str
    says: str
    file: str
    script: str
    unit: str
    panels: Callable[[Rows], dict[str, list[Bar]]]


def page(results: Path, out: Path) -> str:
    """The page; drawings go into the folder `out`/drawn."""
    drawn = out / "drawn"
    drawn.mkdir(parents=True, exist_ok=True)
    lines = [_INTRO]
    for entry in ENTRIES:
        rows = [json.loads(row) for row in (results / entry.file).read_text("utf-8").splitlines()]
        name = f"gallery_{Path(entry.script).stem}.svg"
        (drawn / name).write_text(str(bars(entry.title, entry.unit, entry.panels(rows))), "utf-8")
        lines += [
            f"## {entry.title}",
            "",
            entry.says,
            "",
            f"![{entry.title}](drawn/{name})",
            "",
            _below(entry, rows),
            "",
        ]
    for title, says, file, script in DRAWN:
        shutil.copyfile(results / file, drawn / file)
        link = f"[`benchmarks/{script}`](../benchmarks/{script})"
        lines += [f"## {title}", "", says, "", f"![{title}](drawn/{file})", "", f"Made by {link}.", ""]
    return "\n".join(lines)


def _below(entry: Entry, rows: Rows) -> str:
    found = sorted({str(row[key]) for row in rows for key in ("device_name", "processor") if row.get(key)})
    on = f" on {', '.join(found)}" if found else ""
    script = f"[`benchmarks/{entry.script}`](../benchmarks/{entry.script})"
    return f"{script} wrote [these rows](../benchmarks/results/{entry.file}){on}."


def bars(title: str, unit: str, panels: dict[str, list[Bar]]) -> Html:
    """Bars below each other, in panels of one scale."""
    most = max(each.value + each.spread for shown in panels.values() for each in shown)
    step = nice(most / 4)
    ticks = [value for value in steps(0.0, most, step) if value <= most * 1.001]
    inside: list[object] = []
    y = 4.0
    for panel, shown in panels.items():
        if panel:
            inside.append(write(0, y + 12, panel, "panel"))
            y += 24
        low = y
        for each in shown:
            x = _LABELS + _WIDE * each.value / most
            inside.append(write(_LABELS - 10, y + 15, each.name, "strong" if each.ours else "", "end"))
            inside.append(bar(_LABELS, y + 4, x - _LABELS, 15, "fill blue" if each.ours else "fill silver"))
            end = x
            if each.spread:
                ends = [_LABELS + _WIDE * (each.value + sign * each.spread) / most for sign in (-1, 1)]
                inside.append(whisker(max(_LABELS, ends[0]), ends[1], y + 11.5))
                end = ends[1]
            inside.append(write(end + 6, y + 15, _number(each.value), "small"))
            y += _ROW
        for value in ticks:
            x = _LABELS + _WIDE * value / most
            inside.insert(0, line(x, low, x, y, "grid"))
        y += 10
    inside += [write(_LABELS + _WIDE * value / most, y + 6, _number(value), "small", "middle") for value in ticks]
    inside.append(write(_LABELS, y + 24, unit, "small"))
    return canvas(_LABELS + _WIDE + 50, y + 28, f"{title}: {unit}", *inside)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _of_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error."""
    return mean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _transfer(rows: Rows) -> dict[str, list[Bar]]:
    names = {
        "transfer": "train --weights",
        "logistic": "logistic regression",
        "fastai": "fastai",
        "autogluon": "AutoGluon",
        "small": "small, no weights",
        "finetune": "finetune",
    }
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.get("run") in names and "top1" in row:
            found[row["size"], row["run"]].append(100 * row["top1"])
    sizes = {"10": "10 images a class", "50": "50 images a class", "all": "all 3,068 images"}
    return {
        title: [
            Bar(
                f"{words}, {len(found[size, run])} seed" + "s" * (len(found[size, run]) > 1),
                *_of_seeds(found[size, run]),
                ours=run == "transfer",
            )
            for run, words in names.items()
            if (size, run) in found
        ]
        for size, title in sizes.items()
    }


def _served(rows: Rows) -> dict[str, list[Bar]]:
    names = {"serve median": "convnext serve", "litserve median": "LitServe", "mlserver median": "MLServer"}
    panels: dict[str, list[Bar]] = defaultdict(list)
    last = max(place for place, row in enumerate(rows) if row["kind"] == "machine" and "litserve" in row)
    for row in rows[last:]:  # of the last measurement beside peers
        if row["kind"] == "machine" and "litserve" not in row:
            break
        if row["kind"] in names:
            title = f"{row['clients']} client" + "s" * (row["clients"] > 1)
            panels[title].append(Bar(names[row["kind"]], row["requests_per_s"], ours=row["kind"] == "serve median"))
    return dict(panels)


def _ranked(rows: Rows) -> dict[str, list[Bar]]:
    names = {
        "ours": "convnext audit",
        "normalized_margin": "cleanlab, normalised margin",
        "self_confidence": "cleanlab, self-confidence",
        "confidence_weighted_entropy": "cleanlab, entropy",
    }
    return {
        "": [Bar(words, *_of_seeds([row[key] for row in rows]), ours=key == "ours") for key, words in names.items()]
    }


def _balanced(rows: Rows) -> dict[str, list[Bar]]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        found[row["way"]].append(100 * row["macro_f1"])
    order = ("none", "weights", "sampler", "logits")
    bars = [Bar(f"--balance {way}", *_of_seeds(found[way]), ours=way == "logits") for way in order if way in found]
    return {"": bars}


def _loaded(rows: Rows) -> dict[str, list[Bar]]:
    rates = rows[-1]["images_per_s"]
    return {"": [Bar(name, rate, ours=name == "convnext") for name, rate in rates.items()]}


ENTRIES = (
    Entry(
        "Fine-tuning from weights",
        "Photographs of clothing in ten classes, scored once on 372 test images; the same weights for everybody. Ours is "
        "`convnext train DATA --weights FILE` without another option; the others are their published defaults, "
        "which take less time.",
        "transfer.jsonl",
        "transfer.py",
        "top-1, %; mean and standard error over seeds",
        _transfer,
    ),
    Entry(
        "Uneven classes",
        "300 images of the most frequent class, 3 of the rarest. `--balance auto`, the default, takes `logits` here.",
        "balance.jsonl",
        "balance.py",
        "macro F1, %; mean and standard error over seeds",
        _balanced,
    ),
    Entry(
        "Finding wrong labels",
        "Labels are changed at random or into the most similar class, in 60 settings; how well each ranking finds them.",
        "audit_ranking.jsonl",
        "audit_ranking.py",
        "average precision; mean and standard error over settings",
        _ranked,
    ),
    Entry(
        "Serving",
        "One classifier (atto), images as JPEG over HTTP, every server with the best of several "
        "settings, in turn on one machine.",
        "serve.jsonl",
        "serve.py",
        "answers a second; median of rounds",
        _served,
    ),
    Entry(
        "Reading images",
        "Decoding and augmentation of made JPEGs to 224 px on two cores.",
        "loader.jsonl",
        "loader.py",
        "images a second",
        _loaded,
    ),
)
DRAWN = (
    (
        "Prediction, ConvNeXt-T, float32",
        "Batches of 1 and 8 at 224 px on two cores.",
        "inference_tiny_fp32.svg",
        "inference.py",
    ),
    ("Prediction, ConvNeXt-T, bf16", "The same with bf16 matmuls.", "inference_tiny_bf16.svg", "inference.py"),
    ("Prediction, atto, float32", "The smallest of timm's sizes.", "inference_atto_fp32.svg", "inference.py"),
    ("A training step, ConvNeXt-T, float32", "Forward, backward and update.", "training_tiny_fp32.svg", "training.py"),
    ("A training step, ConvNeXt-T, bf16", "The same under bf16.", "training_tiny_bf16.svg", "training.py"),
    ("Growth", "Time and memory as batch, image and threads grow.", "growth.svg", "growth.py"),
    (
        "Scaling",
        "Time and memory of commands as images, classes, pixels and objects grow.",
        "scaling.svg",
        "scaling.py",
    ),
)
