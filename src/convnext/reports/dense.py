"""report.html of a run of detection or segmentation: what was found beside what is there, on one page."""

from pathlib import Path
from typing import Any

from convnext.config import title_of
from convnext.data.dataset import DenseDataset
from convnext.drawing.charts import bar
from convnext.drawing.markup import Html, tag
from convnext.drawing.numbers import count, finite, percent, plain, short
from convnext.reports import dense_images, dense_sections, sections
from convnext.reports.confusion import confusion
from convnext.reports.layout import Section, backbone, best, cost, headline, whole_page, write_page
from convnext.reports.predicted import predicted_sections
from convnext.reports.run_files import RunFiles
from convnext.reports.tested import tested_sections

_SCORES = {  # the figure that the run was judged by stands in large, else the first that there is
    **{"mask_ap": "Mask AP", "box_ap": "Box AP", "miou": "Mean IoU"},
    **{f"{kind}_ap{at}": f"{name} AP{at}" for kind, name in (("mask", "Mask"), ("box", "Box")) for at in (50, 75)},
    **{"mean_accuracy": "Mean class accuracy", "pixel_accuracy": "Pixel accuracy"},
}


def write_dense_report(run: Path, data: DenseDataset | None) -> Path:
    """Write `report.html` into the folder of a run of detection or segmentation and return its path.

    `data` are the images that the run was evaluated on; without them, or where one cannot be read, an image is shown
    as its name. A file of the run that is missing or cut short costs its section, never the report. Raises ConvNeXtError
    when `run` is no folder or cannot be written to.
    """
    return write_page(run, lambda files: _page(files, data))


def _page(files: RunFiles, data: DenseDataset | None) -> Html:
    parts = tested_sections(files) + (_segmentation if _is_segmentation(files, data) else _detection)(files, data)
    parts += [
        Section("Recipe", "recipe.json", sections.recipe),
        Section("Environment", "environment.json", sections.environment),
    ]
    return whole_page(files, headline(files, _network, _score, _stats), parts)


def _detection(files: RunFiles, data: DenseDataset | None) -> list[Section]:
    return [
        Section("Average precision", "evaluation.json", dense_sections.precision),
        Section("Curves", "metrics.jsonl", lambda f: sections.curves(f, dense_sections.DETECTION_SCORES)),
        Section("Parts of the loss", "metrics.jsonl", dense_sections.losses),
        Section("Precision and recall", "evaluation.json", dense_sections.curves_of_precision),
        Section("Classes", "evaluation.json", dense_sections.detected_classes),
        Section("Worst images", "evaluation.json", lambda f: dense_images.worst_detections(f, data)),
        *predicted_sections(files),
        Section("Data", "data.json", lambda f: sections.data(f, "objects")),
    ]


def _segmentation(files: RunFiles, data: DenseDataset | None) -> list[Section]:
    return [
        Section("Curves", "metrics.jsonl", lambda f: sections.curves(f, dense_sections.SEGMENTATION_SCORES)),
        Section("Parts of the loss", "metrics.jsonl", dense_sections.losses),
        Section("Classes", "evaluation.json", dense_sections.segmented_classes),
        Section("Confusion", "evaluation.json", lambda f: confusion(f, "pixel")),
        Section("Worst images", "evaluation.json", lambda f: dense_images.worst_maps(f, data)),
        *predicted_sections(files),
        Section("Data", "data.json", lambda f: sections.data(f, "pixels", _pixels)),
    ]


def _is_segmentation(files: RunFiles, data: DenseDataset | None) -> bool:
    """By the first file that says so, else by the images."""
    sentence = [
        (files.evaluation or {}).get("task"),
        (files.data or {}).get("task"),
        (files.recipe or {}).get("task"),
        "segmentation" if any("miou" in row for row in files.evals) else None,
        data.task if data else None,
    ]
    return next((task for task in sentence if task in ("detection", "segmentation")), "detection") == "segmentation"


def _network(files: RunFiles) -> str:
    framework = title_of((files.recipe or {}).get("head") or {})
    return f"{framework}, {backbone(files)}" if framework else backbone(files)


def _found(files: RunFiles) -> dict[str, Any]:
    """The final evaluation, else the last one during training."""
    held_out = ((files.data or {}).get("val") or {}).get("n", 0)
    return files.evaluation or {**(files.evals[-1] if files.evals else {}), "n": held_out}


def _main(found: dict[str, Any]) -> str | None:
    """The figure that the run was judged by, else the first there is."""
    asked = found.get("metric")
    return next((key for key in (asked, *_SCORES) if key in _SCORES and finite(found.get(str(key)))), None)


def _score(files: RunFiles) -> Html:
    found = _found(files)
    figure = _main(found)
    if figure is None:
        return sections.note("This run has not been evaluated yet.")
    weights = sections.WEIGHTS.get(found.get("weights", ""), ("", ""))[0]
    n, classes = found.get("n"), len(found.get("classes") or (files.data or {}).get("classes") or ())
    over = f"{count(classes)} class{'' if classes == 1 else 'es'}"
    sentence = f"mean over {over}"
    if figure in ("box_ap", "mask_ap"):
        sentence = f"mean over IoU 0.50 to 0.95 and {over}"
    if figure == "pixel_accuracy":
        sentence = f"of the pixels of {over}"
    return tag(
        "div",
        tag("p", _SCORES[figure], tag("span", f", {weights}" if weights else ""), class_="label"),
        tag("p", percent(found[figure]), class_="hero"),
        sections.bounded(found, figure) or tag("div", bar(found[figure]), class_="interval"),
        tag("p", sentence, class_="below"),
        tag("p", f"on {count(n)} held-out images" if n else "images not counted", class_="below"),
        class_="score",
    )


def _stats(files: RunFiles) -> dict[str, object]:
    found = _found(files)
    figure = _main(found)
    pixels = figure in ("miou", "mean_accuracy", "pixel_accuracy")
    if pixels:
        own = {_SCORES[key]: found.get(key) for key in ("miou", "pixel_accuracy", "mean_accuracy") if key != figure}
    else:
        kinds = [(kind, name) for kind, name in (("mask", "Mask"), ("box", "Box")) if f"{kind}_ap" in found]
        own = {
            f"{name} AP{at}": found.get(f"{kind}_ap{at}")
            for kind, name in kinds
            for at in ("", "50", "75")
            if f"{kind}_ap{at}" != figure
        }
        own |= {"F1, boxes": (found.get("working_point") or {}).get("f1")} if own else {}
    stats: dict[str, object] = {name: percent(value) for name, value in own.items()}
    if pixels:
        stats["Validation loss"] = plain(found.get("loss"), 3)
    return stats | cost(files) | best(files, figure or "")


def _pixels(value: object) -> str:
    return short(value) if finite(value) and value else count(value)
