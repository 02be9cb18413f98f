"""Results as plain text for a terminal or a log."""

from collections.abc import Mapping, Sequence
from typing import Any

from convnext.errors import number_of
from convnext.reports.baseline import baseline_line, never_line
from convnext.reports.columns import table
from convnext.reports.confusion import Pairs
from convnext.reports.several_text import promised, scores_line, several_text
from convnext.tasks.classification.calibration import FEWEST, unfitted
from convnext.tasks.classification.conformal import sets_text
from convnext.tasks.classification.metrics import TITLES, wilson
from convnext.tasks.classification.promise import promise_text
from convnext.tasks.segmentation import metrics as segmentation

WIDEST_CONFUSION = 20  # classes; beyond, the most confused pairs say more
MOST_ROWS = 60
CONFUSED = 20  # pairs of classes that are shown for images
MISTAKES = 10  # pairs of classes that are shown for pixels


def text_of(result: dict[str, Any]) -> str:
    """What `evaluation.json` holds as a page of text, whatever the task."""
    if result.get("labels") == "multi":
        broken = len(result.get("skipped", ()))
        return several_text(result) + (f"\n\n{not_counted(broken)}" if broken else "")
    return evaluation_text(result) if result["task"] == "classification" else dense_text(result)


def evaluation_text(result: dict[str, Any]) -> str:
    """`evaluation.json` as a page of text: headline, classes from worst to best, confusion."""
    head = (
        f"{_rates(result, '   ')}   n {result['n']:,}   "
        f"loss {result['loss']:.4f}   calibration error {result['ece']:.4f}   weights {result['weights']}"
    )
    head = "\n".join(filter(None, (head, baseline_line(result), never_line(result))))
    head += "".join(f"\n{line}" for line in scores_fitted(result))
    worst = sorted(result["per_class"], key=lambda row: row["recall"])
    rows = [
        [
            *(row["name"], f"{row['n']:,}", f"{row['precision']:.1%}", f"{row['recall']:.1%}"),
            *(interval(row), f"{row['f1']:.3f}"),
        ]
        for row in worst[:MOST_ROWS]
    ]
    parts = [head, table(["class", "n", "precision", "recall", "95% interval", "F1"], rows)]
    if len(worst) > MOST_ROWS:
        parts.append(f"... and {number_of(len(worst) - MOST_ROWS, 'class', 'classes')} with a higher recall")
    parts.append(confusion_text(result))
    if result.get("skipped"):
        parts.append(not_counted(len(result["skipped"])))
    return "\n\n".join(part for part in parts if part)


def _rates(result: dict[str, Any], between: str) -> str:
    """Top-1 with top-5, where there are more classes than five (of fewer it is always 100 %), and the means over classes."""
    keys = [key for key in TITLES if key in result and (key != "top5" or len(result["classes"]) > 5)]
    return between.join(f"{TITLES[key]} {result[key]:.2%}" for key in keys)


def interval(row: Mapping[str, Any]) -> str:
    """'41 to 83%', of the recall of a class; '-' where none of its images were seen."""
    return f"{100 * row['recall_low']:.0f} to {row['recall_high']:.0%}" if row["n"] else "-"


def scores_fitted(result: Mapping[str, Any]) -> list[str]:
    """What was fitted to the scores of a classifier, what that did, and what it promises: a line each."""
    if result.get("labels") == "multi":
        return promised(result)
    fitted = result.get("decision", {"stretch": 0, "n": 0})
    stretch = f" and stretch {fitted['stretch']:.3g}" if fitted["stretch"] else ""
    lines = []
    if fitted["n"] and fitted["temperature"] == 1 and not stretch:
        lines.append(f"Scores: as the network gives them; {unfitted(fitted['n'])}.{_unsure(result)}")
    elif fitted["n"]:
        lines.append(
            f"Scores: temperature {fitted['temperature']:.3g}{stretch}, fitted to "
            f"{number_of(fitted['n'], 'held-out image')}; calibration error {result['ece_before']:.2%} before, "
            f"{result['ece']:.2%} with it."
        )
    lines += [promise_text(result["promise"])] if "promise" in result else []
    lines += [sets_text(result["sets"])] if "sets" in result else []
    return lines


def _unsure(result: Mapping[str, Any]) -> str:
    """How far off the top-1 accuracy of very few images may be, of which the best weights may be so by chance."""
    if result["n"] >= FEWEST:
        return ""
    low, high = wilson(float(result["top1"]), result["n"])
    return f" Top-1 on so few is anything from {low:.0%} to {high:.0%}, and which weights are best is chance."


def scores_text(result: dict[str, Any]) -> str:
    """The scores of a run in one line."""
    if result.get("labels") == "multi":
        return scores_line(result)
    if result["task"] == "classification":
        return _rates(result, "  ")
    if result["task"] == "segmentation":
        return "  ".join(f"{name} {_percent(result[key])}" for key, name in segmentation.TITLES.items())
    kinds = [kind for kind in ("box", "mask") if f"{kind}_ap" in result]
    each = [[f"AP{at} {_percent(result[f'{kind}_ap{at}'])}" for at in ("", "50", "75")] for kind in kinds]
    return "   ".join(f"{kind} {'  '.join(scores)}" for kind, scores in zip(kinds, each, strict=True))


def test_text(result: Mapping[str, Any]) -> str:
    """The scores on the test part, as the run scored them at its end; '' where the data have none."""
    test = result.get("test")
    if not test:
        return ""
    whole = {**test, "task": result["task"], "classes": result["classes"]}
    return f"{scores_text(whole)} on {test['n']:,} images of the test part, which chose nothing"


def dense_text(result: dict[str, Any]) -> str:
    """`evaluation.json` of detection or segmentation as a page of text: headline, classes from worst to best, mistakes."""
    loss = "" if result["loss"] is None else f"   loss {result['loss']:.4f}"  # an exported detector has none
    head = f"{scores_text(result)}   n {result['n']:,}{loss}   weights {result['weights']}"
    parts = [head, *(_detected(result) if result["task"] == "detection" else _segmented(result))]
    if result.get("skipped"):
        parts.append(not_counted(len(result["skipped"])))
    return "\n\n".join(part for part in parts if part)


def _detected(result: dict[str, Any]) -> list[str]:
    """The table of classes, and what is right at the best score."""
    keys = [key for key in ("box_ap", "box_ap50", "mask_ap", "mask_ap50") if key in result]
    names = [key.replace("_ap", " AP") for key in keys]
    ranked = sorted(result["per_class"], key=lambda row: (row[keys[0]] is None, row[keys[0]] or 0.0))
    rows = [
        [row["name"], f"{row['objects']:,}", *(_percent(row[key]) for key in (*keys, "precision", "recall"))]
        for row in ranked[:MOST_ROWS]
    ]
    point = result["working_point"]
    best = (
        f"Precision and recall are those of detections with a score of {point['score']:.2f} or more, where F1 is best: "
        f"{point['f1']:.3f}."
        if point["f1"]
        else "No detection is right, whatever its score."
    )
    return [table(["class", "objects", *names, "precision", "recall"], rows), _left_out(ranked, "AP"), best]


def _segmented(result: dict[str, Any]) -> list[str]:
    """The table of classes, and which of them are taken for which."""
    total = max(1, sum(row["pixels"] for row in result["per_class"]))
    ranked = sorted(result["per_class"], key=lambda row: (row["iou"] is None, row["iou"] or 0.0))
    rows = [
        [
            row["name"],
            _percent(row["pixels"] / total),
            *(_percent(row[key]) for key in ("iou", "accuracy", "precision")),
        ]
        for row in ranked[:MOST_ROWS]
    ]
    classes = table(["class", "pixels", "IoU", "accuracy", "precision"], rows)
    return [classes, _left_out(ranked, "IoU"), never_line(result), mistaken_text(result)]


def mistaken_text(result: Mapping[str, Any]) -> str:
    """The ten pairs of classes that cost most pixels, with their share of the ground truth's pixels."""
    classes = result["classes"]
    rows = [[classes[i], classes[j], _percent(share)] for i, j, _, share in Pairs.of(result).wrong(MISTAKES)]
    return "Most often mistaken:\n" + table(["ground truth", "predicted", "of the ground truth"], rows) if rows else ""


def _left_out(ranked: Sequence[dict[str, Any]], what: str) -> str:
    more = len(ranked) - MOST_ROWS
    return f"... and {number_of(more, 'class', 'classes')} with a higher {what}" if more > 0 else ""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def not_counted(broken: int) -> str:
    """What is printed about images that could not be read."""
    return f"{number_of(broken, 'image')} could not be read and {'is' if broken == 1 else 'are'} not counted."


def confusion_text(result: Mapping[str, Any]) -> str:
    """The whole matrix when it fits a screen, else the pairs that are most often confused."""
    classes, found = result["classes"], Pairs.of(result)
    if len(classes) <= WIDEST_CONFUSION:
        head = ["ground truth \\ predicted", *(name[:10] for name in classes)]
        counts = found.table().tolist()
        rows = [[name, *(str(n) if n else "." for n in row)] for name, row in zip(classes, counts, strict=True)]
        return table(head, rows)
    rows = [[classes[i], classes[j], str(n)] for i, j, n, _ in found.wrong(CONFUSED)]
    return "Most often confused:\n" + table(["ground truth", "predicted", "n"], rows) if rows else ""
