"""The sections that only detection and segmentation have: functions from a run's files to markup.

Each may assume that the file it is made of is there. AP is COCO's average precision, IoU intersection over union.
"""

from typing import Any

import numpy as np

from convnext.drawing import charts
from convnext.drawing.charts import Line
from convnext.drawing.markup import Html, join, table, tag
from convnext.drawing.numbers import NOTHING, count, finite, percent
from convnext.reports.baseline import never_line
from convnext.reports.run_files import RunFiles
from convnext.reports.sections import Score, columns, folded, note
from convnext.tasks.segmentation.metrics import TITLES

DETECTION_SCORES = (
    Score("Validation box AP", {"box_ap": "AP", "box_ap50": "AP50"}),
    Score("Validation mask AP", {"mask_ap": "AP", "mask_ap50": "AP50"}),
    Score("Validation loss", {"loss": ""}, rate=False),
)
SEGMENTATION_SCORES = (
    Score("Validation mean IoU", {"miou": ""}),
    Score("Validation pixel accuracy", {"pixel_accuracy": ""}),
    Score("Validation loss", {"loss": ""}, rate=False),
)
KINDS = {"box": "Boxes", "mask": "Masks"}
_FEW_ROWS = 8  # of a log: too few to smooth
_FIGURES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar": "Recall",
}
_OVERLAPS = {"ap50": ("IoU 0.50", "blue"), "ap75": ("IoU 0.75", "orange"), "ap": ("mean of IoU 0.50 to 0.95", "grey")}
_PARTS = {  # of a loss: its name in the log -> in the legend, colour
    "rpn_score": ("proposals: object or not", "blue dashed"),
    "rpn_box": ("proposals: box", "orange dashed"),
    "score": ("class", "blue"),
    "box": ("box", "orange"),
    "mask": ("mask", "grey"),
    "main": ("main head", "blue"),
    "auxiliary": ("auxiliary head, weighted", "orange"),
}
_DASHES = ("", " dashed", " dotted")  # tell three lines of one colour apart


def precision(files: RunFiles) -> Html:
    """COCO's figures for boxes and for masks, and how it is right at the score that is shown."""
    found = files.evaluation or {}
    kinds = {kind: name for kind, name in KINDS.items() if f"{kind}_ap" in found}
    if not kinds:
        return note("evaluation.json has no average precision.")
    lead = (
        "Average precision (AP) is the mean over the classes of the area under the curve of precision against recall; AP "
        "alone is the mean of ten, at overlaps (IoU) from 0.50 to 0.95. Small objects have less than 32 × 32 pixels, "
        f"large ones more than 96 × 96. Recall is the mean of the same ten with at most {count(found.get('most'))} "
        f"detections an image. {NOTHING} stands where there is nothing to find."
    )
    head: list[object] = ["", *_FIGURES.values()]
    rows: list[list[object]] = [
        [tag("b", name), *(percent(found.get(f"{kind}_{figure}")) for figure in _FIGURES)]
        for kind, name in kinds.items()
    ]
    return join([tag("p", lead, class_="lead"), table(head, rows, class_="figures"), _working_point(found)])


def curves_of_precision(files: RunFiles) -> Html:
    """Precision against recall: all classes at three overlaps, and the best and the worst classes at 0.5."""
    details = (files.evaluation or {}).get("details") or {}
    drawn = []
    for kind, name in KINDS.items():
        curves = (details.get("curves") or {}).get(kind) or {}
        lines = [_line(*_OVERLAPS[each], curves[each]) for each in _OVERLAPS if each in curves]
        if lines:
            drawn.append(_chart(f"{name}, mean over the classes", lines))
        classes = (details.get("classes") or {}).get(kind) or {}
        if len(classes) > 1:
            drawn.append(_chart(f"{name}, {_which(files)} at IoU 0.50", _class_lines(classes)))
    if not drawn:
        return note("evaluation.json has no curves: there was nothing to find, or it was written without its details.")
    return tag("div", drawn, class_="pair")


def losses(files: RunFiles) -> Html:
    """What the training loss is the sum of: one chart, and one for each stage of a cascade."""
    logged = [row["parts"] | {files.unit: row.get(files.unit)} for row in files.train if row.get("parts")]
    if not logged:
        return note("The log of this run has no parts of its loss.")
    charts_of: dict[str, list[Line]] = {}
    for name in dict.fromkeys(name for row in logged for name in row if name != files.unit):
        stage, _, part = name.rpartition("_") if name.startswith("stage") else ("", "", name)
        x, y = columns(logged, files.unit, name)
        if len(x):
            shown = charts.smooth(y) if len(x) > _FEW_ROWS else y
            named, colour = _PARTS.get(part, (part, "grey dotted"))
            line = Line(named, colour, x, shown, dots=len(x) <= _FEW_ROWS)
            charts_of.setdefault(stage, []).append(line)
    several = len(charts_of) > 1
    drawn = [
        charts.line_chart(_titled(stage, several), lines, zero=True, x_name=files.unit)
        for stage, lines in charts_of.items()
    ]
    lead = "The training loss is the sum of these, each with its weight"
    smoothed = "; the curves are smoothed" if len(logged) > _FEW_ROWS else ""
    return join([tag("p", f"{lead}{smoothed}.", class_="lead"), tag("div", drawn, class_="pair")])


def detected_classes(files: RunFiles) -> Html:
    """Objects, AP, precision and recall of each class, the worst first."""
    rows = (files.evaluation or {})["per_class"]
    kinds = [kind for kind in KINDS if any(f"{kind}_ap" in row for row in rows)]
    order = f"{kinds[-1]}_ap" if kinds else "recall"
    names = {"box": "Box", "mask": "Mask"}
    head: list[object] = ["Class", "Objects"]
    for kind in kinds:
        head += [f"{names[kind]} AP", f"{names[kind]} AP50"]
    cells: list[list[object]] = []
    for row in sorted(rows, key=lambda row: _last_without(row, order)):
        figures = [percent(row.get(f"{kind}_{key}")) for kind in kinds for key in ("ap", "ap50")]
        rates = [percent(row.get("precision")), percent(row.get("recall"))]
        cells.append(
            [tag("span", row["name"], class_="name"), count(row["objects"]), *figures, *rates, _bar(row, order)]
        )
    lead = (
        f"Precision and recall count boxes at IoU 0.50 from {_score(files)} on. {NOTHING}: nothing to find, or nothing "
        "found."
    )
    if not cells:
        return note("There are no classes.")
    return join([tag("p", lead, class_="lead"), folded([*head, "Precision", "Recall", ""], cells, "dense")])


def segmented_classes(files: RunFiles) -> Html:
    """Share of the pixels, IoU, accuracy and precision of each class, the worst first."""
    rows = (files.evaluation or {})["per_class"]
    total = sum(row["pixels"] for row in rows) or 1
    cells: list[list[object]] = [
        [
            tag("span", row["name"], class_="name"),
            percent(row["pixels"] / total, 2) if row["pixels"] else NOTHING,
            percent(row.get("iou")),
            percent(row.get("accuracy")),
            percent(row.get("precision")),
            _bar(row, "iou"),
        ]
        for row in sorted(rows, key=lambda row: _last_without(row, "iou"))
    ]
    if not cells:
        return note("There are no classes.")
    lead = (
        "Accuracy: of the pixels of a class, those that are given it. Precision: of the pixels that are given a class, those "
        f"that are of it. IoU: right pixels over both together. {NOTHING}: there are none."
    )
    head: list[object] = ["Class", "Of all pixels", "IoU", "Accuracy", "Precision", ""]
    never = never_line(files.evaluation or {})
    warning = tag("p", never, class_="lead warning") if never else ""
    return join(
        [warning, _taken_back(files.evaluation or {}), tag("p", lead, class_="lead"), folded(head, cells, "dense")]
    )


def _taken_back(found: dict[str, Any]) -> Html | None:
    """What was chosen after a training in which rare classes counted more; see `tasks.segmentation.adjusting`."""
    chosen = found.get("adjusted")
    if not chosen:
        return None
    metric = chosen["metric"]
    told = ", ".join(f"{percent(row[metric])} with {percent(row['share'], 0)}" for row in chosen["candidates"])
    sentence = (
        f"Rare classes counted more in training; the answers take back {percent(chosen['share'], 0)} of that, which the "
        f"held-out images chose by {TITLES[metric]}: {told}."
    )
    return tag("p", sentence, class_="lead")


def _titled(stage: str, several: bool) -> str:
    if stage:
        return f"Stage {int(stage.removeprefix('stage')) + 1}"
    return "Proposals" if several else "Training loss by part"


def _working_point(found: dict[str, Any]) -> Html | None:
    point = found.get("working_point") or {}
    if not finite(point.get("f1")):
        return None
    if not point["f1"]:
        return note("No detection is right, whatever its score.")
    sentence = (
        f"F1 is best, {percent(point['f1'])}, where detections with a score of {point['score']:.2f} or more are shown: "
        f"{percent(point['precision'])} of them are right, and {percent(point['recall'])} of the objects are found (boxes "
        "at IoU 0.50). Everything below that counts single objects does so from this score on."
    )
    return tag("p", sentence, class_="lead")


def _score(files: RunFiles) -> str:
    score = ((files.evaluation or {}).get("working_point") or {}).get("score")
    return f"a score of {score:.2f}" if finite(score) else "the score where F1 is best"


def _which(files: RunFiles) -> str:
    return "best and worst classes" if len((files.evaluation or {})["classes"]) > 2 * len(_DASHES) else "each class"


def _class_lines(classes: dict[str, list[float]]) -> list[Line]:
    """The better half blue, the worse orange; AP50 is the mean of a curve."""
    names = list(classes)
    half = (len(names) + 1) // 2
    colours = [f"blue{dash}" for dash in _DASHES][:half] + [f"orange{dash}" for dash in reversed(_DASHES)][
        -(len(names) - half) :
    ]
    return [
        _line(f"{name} {percent(float(np.mean(classes[name])), 0)}", colour, classes[name])
        for name, colour in zip(names, colours, strict=True)
    ]


def _line(name: str, colour: str, curve: list[float]) -> Line:
    return Line(name, colour, np.linspace(0.0, 1.0, len(curve)), np.asarray(curve, np.float64))


def _chart(title: str, lines: list[Line]) -> Html:
    return charts.line_chart(title, lines, rate=True, whole=True, x_name="recall")


def _last_without(row: dict[str, Any], figure: str) -> tuple[bool, float, str]:
    value = row.get(figure)
    return (False, value, row["name"]) if finite(value) else (True, 0.0, row["name"])


def _bar(row: dict[str, Any], figure: str) -> Html | None:
    value = row.get(figure)
    return charts.bar(value) if finite(value) else None
