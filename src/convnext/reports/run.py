"""report.html: a run on one page that needs nothing but itself, for the engineer and for whom they show it to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext.drawing.markup import Html, join, tag
from convnext.drawing.numbers import count, finite, percent, plain
from convnext.reports import sections, several, trust
from convnext.reports.baseline import baseline_line
from convnext.reports.classes import per_class
from convnext.reports.confusion import confusion
from convnext.reports.layout import Section, backbone, best, cost, headline, whole_page, write_page
from convnext.reports.predicted import predicted_sections
from convnext.reports.run_files import RunFiles
from convnext.reports.start import start
from convnext.reports.tested import tested_sections
from convnext.reports.worst import Read, Why, worst
from convnext.tasks.classification.metrics import TITLES


def write_report(run: Path, *, read: Read | None = None, why: Why | None = None) -> Path:
    """Write `report.html` into the run's folder and return its path.

    `read` gives the bytes of an image by its path in evaluation.json; without it, or where it fails, an image is
    shown as its name. `why` draws what speaks for some classes on an image; no map is shown where it fails, or where
    other networks than the one that is kept judged the images. A file of the run that is missing or cut short costs its
    section, never the report. Raises ConvNeXtError when `run` is no folder or cannot be written to.
    """
    return write_page(run, lambda files: _page(files, read, why))


def _page(files: RunFiles, read: Read | None, why: Why | None) -> Html:
    staged = files.transfer is not None or "transfer.json" in files.notes
    if several.is_several(files):
        return _page_of_several(files, read, staged)
    parts = [
        *([Section("Start", "transfer.json", start)] if staged else []),
        *tested_sections(files),
        Section("Curves", "metrics.jsonl", _curves),
        Section("Confusion", "evaluation.json", confusion),
        Section("Classes", "evaluation.json", per_class),
        Section("Calibration", "evaluation.json", trust.calibration),
        Section("Most wrong", "evaluation.json", lambda f: worst(f, read, None if f.crosswise else why)),
        *predicted_sections(files),
        Section("Data", "data.json", sections.data),
        Section("Recipe", "recipe.json", sections.recipe),
        Section("Environment", "environment.json", sections.environment),
    ]
    return whole_page(files, headline(files, backbone, _score, _stats), parts)


def _page_of_several(files: RunFiles, read: Read | None, staged: bool) -> Html:
    """The page of a run whose images may have several labels."""
    parts = [
        *([Section("Start", "transfer.json", start)] if staged else []),
        *tested_sections(files),
        Section("Curves", "metrics.jsonl", lambda f: _curves(f, (several.MAP,))),
        Section("Classes", "evaluation.json", several.per_class),
        Section("Together", "evaluation.json", several.together),
        Section("Most wrong", "evaluation.json", lambda f: several.worst(f, read)),
        *predicted_sections(files),
        Section("Data", "data.json", sections.data),
        Section("Recipe", "recipe.json", sections.recipe),
        Section("Environment", "environment.json", sections.environment),
    ]
    return whole_page(files, headline(files, backbone, several.score, _stats_of_several), parts)


def _stats_of_several(files: RunFiles) -> dict[str, object]:
    return {**several.stats(files), **cost(files), **({} if files.crosswise else best(files, "map"))}


def _score(files: RunFiles) -> Html:
    """Top-1 with its interval: of the final evaluation, else of the last one during training."""
    held_out = ((files.data or {}).get("val") or {}).get("n", 0)
    found: dict[str, Any] = files.evaluation or {**(files.evals[-1] if files.evals else {}), "n": held_out}
    top1, n = found.get("top1"), found.get("n") or 0
    if not finite(top1):
        return sections.note("This run has not been evaluated yet.")
    kept = found.get("chosen") if found.get("crosswise") else found.get("weights")
    weights = sections.WEIGHTS.get(str(kept), ("", ""))[0]
    sentence = f"{count(top1 * n)} of {count(n)} images right" if n else "images not counted"
    if found.get("crosswise"):
        sentence += f", each judged by one of {count(found['crosswise'])} networks that had not seen it"
    worth = baseline_line(found)
    return tag(
        "div",
        tag("p", "Top-1 accuracy", tag("span", f", {weights}" if weights else ""), class_="label"),
        tag("p", percent(top1), class_="hero"),
        sections.bounded(found, "top1"),
        tag("p", sentence, class_="below"),
        tag("p", worth, class_="below") if worth else None,
        class_="score",
    )


def _curves(files: RunFiles, scores: Sequence[sections.Score] = ()) -> Html:
    """The curves of the run; where its images were cut into parts, with a line that says of which these are."""
    chosen = "top1" if scores else sections.chosen_by(files)
    more = (
        [sections.Score(f"Validation {TITLES[chosen]}, which chose the best weights", {chosen: ""})]
        if chosen != "top1"
        else []
    )
    drawn = sections.curves(files, scores or [sections.TOP1, *more])
    if not files.crosswise:
        return drawn
    every, held_out = (((files.data or {}).get(name) or {}).get("n") or 0 for name in ("train", "val"))
    lead = (
        f"Of part 1 of {count(files.crosswise)} alone, trained on {count(every - held_out)} images and scored on the "
        f"{count(held_out)} that it holds out; the weights that are kept were trained on all of them."
    )
    return join([tag("p", lead, class_="lead"), drawn])


def _stats(files: RunFiles) -> dict[str, object]:
    found: dict[str, Any] = files.evaluation or (files.evals[-1] if files.evals else {})
    chosen = sections.chosen_by(files)
    return {
        **({"Top-5 accuracy": percent(found.get("top5"))} if _classes(files) > 5 else {}),  # of five it is always 100 %
        "Balanced accuracy": percent(found.get("balanced_accuracy")),
        "Macro F1": percent(found.get("macro_f1")),
        "Calibration error": percent(found.get("ece")),
        "Validation loss": plain(found.get("loss"), 3),
        **cost(files),
        **({} if files.crosswise else best(files, chosen)),  # else of the few images of part 1
    }


def _classes(files: RunFiles) -> int:
    """How many there are; 0 where no file says."""
    return len((files.evaluation or {}).get("classes") or (files.data or {}).get("classes") or ())
