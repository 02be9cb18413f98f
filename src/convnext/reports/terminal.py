"""Results as plain text for a terminal or a log."""

from collections.abc import Sequence
from typing import Any

WIDEST_CONFUSION = 20  # classes; beyond, the most confused pairs say more
MOST_ROWS = 60


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(head), *(line(row) for row in rows)])


def evaluation_text(result: dict[str, Any]) -> str:
    """`evaluation.json` as a page of text: headline, classes from worst to best, confusion."""
    head = (
        f"top-1 {result['top1']:.2%}   top-5 {result['top5']:.2%}   n {result['n']:,}   "
        f"loss {result['loss']:.4f}   calibration error {result['ece']:.4f}   weights {result['weights']}"
    )
    worst = sorted(result["per_class"], key=lambda row: row["recall"])
    rows = [
        [row["name"], str(row["n"]), f"{row['precision']:.1%}", f"{row['recall']:.1%}", f"{row['f1']:.3f}"]
        for row in worst[:MOST_ROWS]
    ]
    parts = [head, table(["class", "n", "precision", "recall", "F1"], rows)]
    if len(worst) > MOST_ROWS:
        parts.append(f"... and {len(worst) - MOST_ROWS} classes with a higher recall")
    parts.append(confusion_text(result["confusion"], result["classes"]))
    if result.get("skipped"):
        parts.append(f"{len(result['skipped'])} pictures could not be read and are not counted.")
    return "\n\n".join(part for part in parts if part)


def confusion_text(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """The whole matrix when it fits a screen, else the pairs that are most often confused."""
    if len(classes) <= WIDEST_CONFUSION:
        head = ["truth \\ said", *(name[:10] for name in classes)]
        rows = [[name, *(str(n) if n else "." for n in row)] for name, row in zip(classes, confusion, strict=True)]
        return table(head, rows)
    pairs = [(n, classes[i], classes[j]) for i, row in enumerate(confusion) for j, n in enumerate(row) if n and i != j]
    rows = [[truth, said, str(n)] for n, truth, said in sorted(pairs, reverse=True)[:20]]
    return "Most often confused:\n" + table(["truth", "said", "n"], rows) if rows else ""
