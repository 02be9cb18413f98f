"""The paper's roadmap as a table for a terminal: no network is built, nothing heavy is loaded."""

from convnext.recipes.roadmap import Regime, roadmap, rows
from convnext.reports.columns import table


def roadmap_text(regime: Regime = "t") -> str:
    """Step, what changes, parameters, MACs, and the paper's GFLOPs and accuracy; probable misprints with both values."""
    steps, cells, notes = roadmap(regime), [], []
    for step, row in zip(steps, rows(regime), strict=True):
        mark = " " if step.misprint is None else "*"
        std = "" if step.paper_std is None else f" ±{step.paper_std:.2f}"
        sizes = [f"{row['params'] / 1e6:.3f}", f"{row['macs'] / 1e9:.4f}", f"{step.paper_gflops:.2f}{mark}"]
        cells.append([step.name, *sizes, f"{step.paper_top1:.2f}{std:<6}", step.change])
        if step.misprint:
            notes.append(f"* {step.name}: {step.misprint} (our reading; no erratum is known).")
    head = ["step", "params (M)", "GMACs", "paper G ", "paper top-1 ", "what changes"]
    return "\n".join([left_last(head, cells), *([""] if notes else []), *notes])


def left_last(head: list[str], cells: list[list[str]]) -> str:
    """A terminal's table whose last column, of words, stands to the left."""
    width = max(len(line[-1]) for line in [head, *cells])
    head, *cells = ([*line[:-1], line[-1].ljust(width)] for line in [head, *cells])
    return table(head, cells)
