"""The section about a classifier's scores: whether they can be taken at their word, before and after they were fitted."""

from typing import Any

import numpy as np

from convnext.drawing import charts
from convnext.drawing.charts import Line
from convnext.drawing.markup import Html, join, tag
from convnext.drawing.numbers import count, percent, plain
from convnext.reports.run_files import RunFiles
from convnext.reports.sections import note
from convnext.tasks.classification.calibration import unfitted
from convnext.tasks.classification.conformal import sets_text
from convnext.tasks.classification.promise import promise_text


def calibration(files: RunFiles) -> Html:
    """What the scores claim and what comes true; with a fitted scale also before it; and what answering less would gain."""
    found: dict[str, Any] = files.evaluation or {}
    bins = found["calibration"]
    total = sum(part["n"] for part in bins)
    if not total:
        return note("No image was evaluated.")
    confidence = sum(part["n"] * part["confidence"] for part in bins) / total
    accuracy = sum(part["n"] * part["accuracy"] for part in bins) / total
    points = 100 * (confidence - accuracy)
    verdict = (
        "neither over- nor under-confident" if abs(points) < 0.5 else "over-confident" if points > 0 else "too modest"
    )
    lead = tag(
        "p",
        f"On average it claims {percent(confidence)} and is right {percent(accuracy)} of the time: "
        f"{verdict}{'' if abs(points) < 0.5 else f' by {abs(points):.1f} points'}. ",
        f"The expected calibration error is {percent(found.get('ece'))}. Pale bars stand for fewer than ten images.",
        class_="lead",
    )
    fitted = found.get("decision")
    drawn = [charts.reliability(bins), charts.histogram(bins)]
    if fitted:
        drawn.insert(0, charts.reliability(found["calibration_before"], title="The same before it was fitted"))
    said = [tag("p", line, class_="lead") for line in _said(found)]
    return join(
        [lead, _fitted(found, fitted) if fitted else None, said, tag("div", [*drawn, _risk(found)], class_="pair")]
    )


def _fitted(found: dict[str, Any], fitted: dict[str, Any]) -> Html:
    """What was fitted, and what it did."""
    if fitted["temperature"] == 1 and not fitted["stretch"]:
        return tag("p", f"The scores are as the network gives them: {unfitted(fitted['n'])}.", class_="lead")
    stretch = f", and a stretch of {plain(fitted['stretch'])} for each squared margin" if fitted["stretch"] else ""
    return tag(
        "p",
        f"The scores are those of temperature {plain(fitted['temperature'])}{stretch}, fitted to {count(fitted['n'])} "
        "held-out images; which class is first never changes. What is drawn is cross-fitted: each fifth of the images is "
        f"scored by what the others gave. Before, the calibration error was {percent(found.get('ece_before'))}.",
        class_="lead",
    )


def _said(found: dict[str, Any]) -> list[str]:
    """What is promised of the answers, and of the sets."""
    told = {"promise": promise_text, "sets": sets_text}
    return [text(found[name]) for name, text in told.items() if name in found]


def _risk(found: dict[str, Any]) -> Html | None:
    """How many of the answers are wrong where only the surest are given."""
    points = np.array(found.get("risk_coverage") or [], np.float64).reshape(-1, 2)
    if len(points) < 2:
        return None
    line = Line("wrong among the answered", "blue", points[:, 0], points[:, 1])
    title = f"Wrong, where only the surest are answered (area {plain(found.get('aurc'), 4)})"
    return charts.line_chart(title, [line], rate=True, zero=True, x_name="share of the images that is answered")
