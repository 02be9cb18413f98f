"""The page of a cross-validation: mean and spread of every score, a line for each fold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convnext import __version__
from convnext.drawing.markup import Html, clean, table, tag
from convnext.drawing.numbers import GAP, count, percent, plain
from convnext.errors import number_of
from convnext.files import told, write_bytes
from convnext.reports.page import page

_NAMES = {
    "top1": "Top-1 accuracy", "top5": "Top-5 accuracy", "loss": "Loss", "ece": "Calibration error", "miou": "mIoU",
    "macro_f1": "Macro F1", "balanced_accuracy": "Balanced accuracy", "baseline_top1": "Commonest class alone",
    "probe_top1": "Top-1, probe", "finetuned_top1": "Top-1, fine-tuned", "mixed_top1": "Top-1, mixed",
    "box_ap": "Box AP", "mask_ap": "Mask AP", "chance": "Guessing", "aurc": "Area under risk and coverage",
    "loss_before": "Loss before the temperature", "ece_before": "Calibration error before the temperature",
    "map": "Mean average precision", "micro_f1": "Micro F1", "exact": "All labels right",
}  # fmt: skip
_SHOWN = 5  # scores beside the headline; the table has all
_PLAIN = ("loss", "loss_before", "aurc")  # that are no rates


def write_report(found: Mapping[str, Any], file: Path) -> Path:
    """Write the page of what folds.json holds. Raises ConvNeXtError where the disk refuses."""
    with told(file):
        write_bytes(file, str(_page(found, file.parent)).encode())
    return file


def named(score: str) -> str:
    """A score as people call it."""
    return _NAMES.get(score, score.replace("_", " "))


def _page(found: Mapping[str, Any], folder: Path) -> Html:
    name, metric = clean(folder.resolve().name), found["metric"]
    mean, se, folds = found["mean"], found["se"], found["folds"]
    score = tag(
        "div",
        tag("p", named(metric), ", mean of the folds", class_="label"),
        tag("p", _value(metric, mean.get(metric)), class_="hero"),
        tag("p", f"± {_value(metric, se.get(metric))}, the standard error over {len(folds)} folds", class_="below"),
        class_="score",
    )
    stats = {"Images, each held out once": count(found["n"]), "Folds": count(len(folds))}
    stats |= {named(each): _value(each, mean[each]) for each in list(mean)[:_SHOWN] if each != metric}
    listed = tag("dl", [tag("div", tag("dt", key), tag("dd", value)) for key, value in stats.items()], class_="stats")
    lead = (
        f"Each run learnt from all folds but one and is scored on that one, of {number_of(found['n'], 'image')} altogether; "
        "which of its weights are kept follows from these images as well, as in every run. Folds share most of what they "
        "learn from, so the standard error is a little too small."
    )
    return page(
        f"Cross-validation {name}",
        tag("header", tag("p", "ConvNeXt cross-validation", class_="over"), tag("h1", name),
            tag("div", score, listed, class_="headline")),
        tag("main", tag("section", tag("h2", "Folds"), tag("p", lead, class_="lead"), _table(found), id="folds")),
        tag("footer", f"Written by convnext {__version__} from folds.json."),
    )  # fmt: skip


def _table(found: Mapping[str, Any]) -> Html:
    """A line for each score, a column for each fold."""
    folds = found["folds"]
    links = [tag("a", f"Fold {each['fold']}", href=f"fold{each['fold']}/report.html") for each in folds]
    rows: list[list[object]] = [["Images", *(count(each["n"]) for each in folds), count(found["n"]), ""]]
    for name, mean in found["mean"].items():
        values = [_value(name, each["scores"][name]) for each in folds]
        rows.append([named(name), *values, tag("b", _value(name, mean)), _value(name, found["se"][name])])
    return table(["", *links, "Mean", "Standard error"], rows)


def _value(score: str, value: object) -> str:
    return plain(value, 3) if score in _PLAIN else percent(value).replace(GAP, " ")
