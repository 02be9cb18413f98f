"""The evaluation of a classifier of several labels as plain text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from convnext.errors import number_of
from convnext.reports.columns import table
from convnext.tasks.classification.several.metrics import FEW
from convnext.tasks.classification.several.promise import labels_promise_text

MOST_ROWS = 60
RATES = ("ap", "precision", "recall", "f1")
PAIRS = 12  # of classes that are labelled or predicted together


def scores_line(result: Mapping[str, Any], between: str = "  ") -> str:
    """'mAP 81.20%  macro F1 70.31%'"""
    return between.join(
        f"{name} {result[key]:.2%}" for name, key in {"mAP": "map", "macro F1": "macro_f1"}.items() if key in result
    )


def several_text(result: Mapping[str, Any]) -> str:
    """`evaluation.json` as a page of text: headline, classes from worst to best, which go together, and how it was judged."""
    head = (
        f"{scores_line(result, '   ')}   micro F1 {result['micro_f1']:.2%}   exact {result['exact']:.2%}   n {result['n']:,}   "
        f"loss {result['loss']:.4f}   weights {result['weights']}"
    )
    held = [row for row in result["per_class"] if row["ap"] is not None]
    worst = sorted(held, key=lambda row: row["ap"])
    rows = [
        [row["name"], f"{row['n']:,}", *(f"{row[key]:.1%}" for key in RATES), f"{row['threshold']:.2f}"]
        for row in worst[:MOST_ROWS]
    ]
    parts = [head, table(["class", "n", "AP", "precision", "recall", "F1", "threshold"], rows)]
    if len(worst) > MOST_ROWS:
        parts.append(f"... and {number_of(len(worst) - MOST_ROWS, 'class', 'classes')} with a higher AP")
    parts += [notes_of(result), pairs_text(result)]
    return "\n\n".join(part for part in parts if part)


def notes_of(result: Mapping[str, Any]) -> str:
    """What the figures stand on: whose thresholds, what an order that knows nothing would score, and what is in no mean."""
    own = "chosen by these images, cross-fitted" if result["thresholds_of"] != "the run" else "of the run"
    lines = [f"Thresholds {own}. An order that knows nothing would have mAP {result['baseline_map']:.2%}."]
    lines += _shared(result["per_class"]) if result["thresholds_of"] != "the run" else []
    without = [row["name"] for row in result["per_class"] if row["ap"] is None]
    if without:
        more = f" and {len(without) - 5} more" if len(without) > 5 else ""
        lines.append(f"In no mean, for want of an image that has them: {', '.join(without[:5])}{more}.")
    never = [row["name"] for row in result["per_class"] if row["n"] and not row["predicted"]]
    if never:
        more = f" and {len(never) - 5} more" if len(never) > 5 else ""
        lines.append(f"Never predicted: {', '.join(never[:5])}{more}.")
    lines += promised(result)
    return " ".join(lines)


def _shared(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which classes have too few images, or too few without them, for a threshold of their own."""
    shared = [row["name"] for row in rows if row["n"] and min(row["n"], row["known"] - row["n"]) < FEW]
    if not shared:
        return []
    more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
    all_ = number_of(len(shared), "class", "classes")
    has, its = ("has", "its own") if len(shared) == 1 else ("have", "their own")
    why = f"fewer than {FEW} images with or without it"
    return [f"{all_} {has} no threshold of {its} but that of all together, for {why}: {', '.join(shared[:5])}{more}."]


def promised(result: Mapping[str, Any]) -> list[str]:
    """What is promised of each class, where something was asked for: a line."""
    return [labels_promise_text(result["promise"])] if "promise" in result else []


def pairs_text(result: Mapping[str, Any]) -> str:
    """The pairs of classes that are most often labelled or predicted together."""
    names = result["classes"]
    rows = [[f"{names[a]}, {names[b]}", f"{has:,}", f"{told:,}"] for a, b, has, told in pairs_of(result)[:PAIRS]]
    return "Most often together:\n" + table(["classes", "labelled", "predicted"], rows) if rows else ""


def pairs_of(result: Mapping[str, Any]) -> list[tuple[int, int, int, int]]:
    """(a, b, images labelled with both, images predicted with both) of the pairs that there are, the most frequent first."""
    if "together" in result:
        return [(int(a), int(b), int(has), int(told)) for a, b, has, told in result["together"]]
    labelled, predicted = result["labelled"], result["predicted"]
    size = len(result["classes"])
    pairs = [(a, b, int(labelled[a][b]), int(predicted[a][b])) for a in range(size) for b in range(a + 1, size)]
    return sorted((pair for pair in pairs if pair[2] or pair[3]), key=lambda pair: -max(pair[2], pair[3]))
