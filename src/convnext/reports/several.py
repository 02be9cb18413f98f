"""The sections of a run report that only a classifier of several labels has. Each may assume that its file is there."""

from collections.abc import Callable
from typing import Any

from convnext.drawing import charts
from convnext.drawing.markup import Html, clean, join, table, tag
from convnext.drawing.numbers import count, finite, percent, plain
from convnext.drawing.thumbnails import thumbnail
from convnext.reports import sections
from convnext.reports.run_files import RunFiles
from convnext.reports.sections import Score, folded, note
from convnext.reports.several_text import notes_of, pairs_of

MAP = Score("Validation mAP", {"map": ""})
_MOST_MAPPED = 15  # classes of a table of pairs
_PAIRS = 24  # that are listed


def is_several(files: RunFiles) -> bool:
    """Whether the run is one of several labels an image."""
    return (files.recipe or files.evaluation or {}).get("labels") == "multi"


def score(files: RunFiles) -> Html:
    """Mean average precision: of the final evaluation, else of the last one during training."""
    found: dict[str, Any] = files.evaluation or (files.evals[-1] if files.evals else {})
    value = found.get("map")
    if not finite(value):
        return note("This run has not been evaluated yet.")
    kept = found.get("chosen") if found.get("crosswise") else found.get("weights")
    weights = sections.WEIGHTS.get(str(kept), ("", ""))[0]
    guess = found.get("baseline_map")
    below = f"an order that knows nothing would have {percent(guess)}" if finite(guess) else ""
    n = found.get("n") or ((files.data or {}).get("val") or {}).get("n", 0)
    sentence = f"on {count(n)} images" if n else "images not counted"
    if found.get("crosswise"):
        sentence += f", each judged by one of {count(found['crosswise'])} networks that had not seen it"
    return tag(
        "div",
        tag("p", "Mean average precision", tag("span", f", {weights}" if weights else ""), class_="label"),
        tag("p", percent(value), class_="hero"),
        sections.bounded(found, "map"),
        tag("p", below, class_="below") if below else None,
        tag("p", sentence, class_="below"),
        class_="score",
    )


def stats(files: RunFiles) -> dict[str, object]:
    """What stands beside the score."""
    found: dict[str, Any] = files.evaluation or (files.evals[-1] if files.evals else {})
    return {
        "Macro F1": percent(found.get("macro_f1")),
        "Micro F1": percent(found.get("micro_f1")),
        "All labels right": percent(found.get("exact")),
        "Validation loss": plain(found.get("loss"), 3),
    }


def per_class(files: RunFiles) -> Html:
    """Average precision and F1 of each class, the worst first; those without an image that has them come last."""
    found = files.evaluation or {}
    rows = sorted(found["per_class"], key=lambda row: (row["ap"] is None, row["ap"] or 0.0, row["name"]))
    cells: list[list[object]] = [
        [
            tag("span", row["name"], class_="name"),
            count(row["n"]),
            percent(row["ap"]),
            charts.bar(row["ap"] or 0.0),
            percent(row["f1"]),
            charts.bar(row["f1"] or 0.0, "orange"),
            percent(row["precision"]),
            percent(row["recall"]),
            plain(row["threshold"], 2),
        ]
        for row in rows
    ]
    head: list[object] = ["Class", "Images", "AP", "", "F1", "", "Precision", "Recall", "Threshold"]
    return join([tag("p", notes_of(found), class_="lead"), folded(head, cells, "dense")])


def together(files: RunFiles) -> Html:
    """Which classes images have together, and which they are said to have."""
    found = files.evaluation or {}
    names, pairs = found["classes"], pairs_of(found)
    if not pairs:
        return note("No image has two classes, nor is any said to.")
    most = max(max(has, told) for _, _, has, told in pairs)
    rows: list[list[object]] = [
        [
            [tag("span", names[a], class_="name"), " + ", tag("span", names[b], class_="name")],
            count(has),
            charts.bar(has / most, "grey"),
            count(told),
            charts.bar(told / most),
        ]
        for a, b, has, told in pairs[:_PAIRS]
    ]
    listed = table(["Classes", "Labelled", "", "Predicted", ""], rows, class_="short")
    if len(names) > _MOST_MAPPED or "labelled" not in found:
        return listed
    labelled, predicted = found["labelled"], found["predicted"]
    every: list[list[object]] = [
        [tag("span", name, class_="name"), *(_cell(labelled[a][b], predicted[a][b]) for b in range(len(names)))]
        for a, name in enumerate(names)
    ]
    lead = (
        "Images labelled with both classes, and after the bar those predicted with both; on the diagonal with the one."
    )
    whole = tag("div", table(["", *names], every, class_="dense"), class_="scroll")
    return join([tag("p", lead, class_="lead"), whole, tag("h3", "Most often together"), listed])


def worst(files: RunFiles, read: Callable[[str], bytes] | None) -> Html:
    """The images with a wrong answer that the network was most sure about."""
    rows = (files.evaluation or {})["worst"]
    if not rows:
        return note("Not one image had a wrong answer.")
    return tag("div", [_card(row, read) for row in rows], class_="cards")


def _cell(has: int, told: int) -> str:
    return "" if not has and not told else f"{count(has)} | {count(told)}"


def _card(row: dict[str, Any], read: Callable[[str], bytes] | None) -> Html:
    path = str(row["path"])
    name = clean(path).rsplit("/", 1)[-1]
    small = thumbnail(read, path) if read else None
    labels = ", ".join(row["labels"]) or "no label"
    if small:
        pixels = "pixels" if small[1] < 80 else None  # a magnified scan shall show its pixels, not a blur
        image = tag("img", src=small[0], alt=labels, class_=pixels)
    else:
        image = tag("div", name, class_="unseen")
    scores = row["scores"]
    lines = [tag("div", "missed ", tag("b", each), " ", _sure(scores[each]), class_="sure") for each in row["missed"]]
    lines += [tag("div", "→ ", tag("b", each), " ", _sure(scores[each]), class_="sure") for each in row["wrong"]]
    caption = tag(
        "figcaption",
        tag("div", labels, class_="ground-truth"),
        lines,
        tag("div", name, class_="file") if small else None,
    )
    says = f"{clean(path)}: predicted {', '.join(row['predicted']) or 'nothing'}"
    return tag("figure", tag("div", image, class_="frame"), caption, title=says, class_="card")


def _sure(value: float) -> Html:
    return tag("span", percent(value), class_="sure")
