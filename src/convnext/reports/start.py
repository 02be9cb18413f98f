"""The section of a run that starts from weights: what it made of them, where they come from, and under which licence."""

from collections.abc import Mapping
from typing import Any

from convnext.drawing import charts
from convnext.drawing.markup import Html, join, table, tag
from convnext.drawing.numbers import count, percent, plain
from convnext.reports.run_files import RunFiles
from convnext.reports.sections import between, chosen_by
from convnext.reports.several import is_several
from convnext.tasks.classification.metrics import TITLES, wilson


def start(files: RunFiles) -> Html:
    """What a run made of the weights that it started from: the scores of all candidates, and where the weights come from."""
    found = files.transfer or {}
    n, parts, several = found["n"], found.get("crosswise"), is_several(files)
    figure, chosen = ("map", "map") if several else ("top1", chosen_by(files))
    rows: list[list[object]] = []
    for row in found["candidates"]:
        kept = row["share"] == found["share"]
        rows.append(
            [
                tag("b", _candidate(row["share"]), ", kept") if kept else _candidate(row["share"]),
                percent(row[figure]),
                *([percent(row.get(chosen))] if chosen != figure else []),
                *([] if several else [between(wilson(row[figure], n))]),
                plain(row["loss"], 3),
                charts.bar(row.get(chosen, 0.0), "blue" if kept else "grey"),
            ]
        )
    way = f"{count(n)} images, by cross-validation in {count(parts)} parts" if parts else f"{count(n)} held-out images"
    licence = found.get("license", "unknown")
    lead = f"From {_source(found)}; licence: {licence}. Judged on {way}:"
    notes = [tag("li", line) for line in found["notes"]]
    more = [f"{TITLES[chosen].capitalize()}, which chose"] if chosen != figure else []
    head: list[object] = ["Weights", *(["mAP"] if several else ["Top-1", *more, "95% interval"]), "Loss", ""]
    return join(
        [
            tag("p", lead, class_="lead"),
            table(head, rows, class_="short"),
            [tag("h3", "On loading"), tag("ul", notes, class_="findings")] if notes else None,
        ]
    )


def _source(found: Mapping[str, Any]) -> str:
    """The weights as the person named them, and where those came from."""
    origin = str(found.get("origin", "weights"))
    named = found.get("named", origin)
    return origin if named == origin else f"{named} (which came from {origin})"


def _candidate(share: float) -> str:
    """The name of a share of the fine-tuned weights."""
    named = {0.0: "Linear probe, network frozen", 1.0: "Fine-tuned"}
    return named.get(share, f"Mix of both, {percent(share, 0)} fine-tuned")
