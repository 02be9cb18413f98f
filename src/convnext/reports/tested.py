"""The section of a run whose data have a test part: what the kept weights score on images that chose nothing."""

from typing import Any

from convnext.drawing.markup import Html, join, table, tag
from convnext.drawing.numbers import GAP, NOTHING, count, finite, percent, plain
from convnext.reports.layout import Section
from convnext.reports.run_files import RunFiles
from convnext.reports.sections import between, interval_of
from convnext.tasks.classification.metrics import TITLES

_DENSE = {
    **{f"{kind}_ap{at}": f"{name} AP{at}" for kind, name in (("box", "Box"), ("mask", "Mask")) for at in ("", 50, 75)},
    **{"miou": "Mean IoU", "mean_accuracy": "Mean class accuracy", "pixel_accuracy": "Pixel accuracy"},
}
_SEVERAL = {"map": "Mean average precision", "micro_f1": "Micro F1", "exact": "All labels right"}
_RATES = {**{name: title[0].upper() + title[1:] for name, title in TITLES.items()}, **_SEVERAL, **_DENSE}


def tested_sections(files: RunFiles) -> list[Section]:
    """The one section; none where the run scored no test part."""
    return [Section("Test part", "evaluation.json", tested)] if (files.evaluation or {}).get("test") else []


def tested(files: RunFiles) -> Html:
    """Every figure on the held-out images, which chose the weights, and on those of the test part, which chose nothing."""
    found = files.evaluation or {}
    test: dict[str, Any] = found["test"]
    few = len(found["classes"]) <= 5  # of five classes top-5 is always 100 %
    rows: list[list[object]] = [
        [name, percent(found.get(key)), percent(test[key]), _between(key, test)]
        for key, name in _RATES.items()
        if finite(test.get(key)) and not (few and key == "top5")
    ]
    rows.append(["Loss", plain(found.get("loss"), 3), plain(test.get("loss"), 3), ""])
    broken = len(test.get("skipped") or ())
    lead = (
        f"{count(test['n'])} images, scored once, after training: they chose neither weights nor anything else, so this "
        f"is what to expect of new images.{f' {count(broken)} could not be read.' if broken else ''}"
    )
    head: list[object] = ["", "Held out", "Test part", f"95{GAP}% interval"]
    return join([tag("p", lead, class_="lead"), table(head, rows, class_="short")])


def _between(key: str, test: dict[str, Any]) -> str:
    limits = interval_of(test, key)
    return between(limits) if limits else NOTHING
