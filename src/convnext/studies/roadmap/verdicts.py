"""What a measured roadmap says beside the paper's, without taking noise for news: direction, spread, verdict.

A difference between two steps counts when it is larger than its spread, which would hold 95 % of the differences that
chance alone makes. With two or more seeds, the spread comes from the runs: one variance pooled over all steps, because a
variance of two or three runs is no estimate of anything. With one seed, it is that of the held-out images only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convnext.errors import number_of

# 97.5 % quantiles of Student's t by degrees of freedom
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 8: 2.31, 10: 2.23, 15: 2.13, 20: 2.09, 30: 2.04}
_PAPER_SEEDS = {"t": 3, "b": 1}
_PAPER_FREEDOM = 32  # sixteen rows of three seeds
_PAPER_STD = 0.094  # points: pooled over the sixteen standard deviations of table 10; table 11 gives none

VERDICTS = {  # -> how a summary counts one and several of them
    "same direction": ("goes the paper's way", "go the paper's way"),
    "other direction": ("goes the other way", "go the other way"),
    "no clear difference": ("is too small to tell from chance here", "are too small to tell from chance here"),
    "none, as in the paper": ("is within the spread here and there", "are within the spread here and there"),
    "only here": ("is clear here but not in the paper", "are clear here but not in the paper"),
}


@dataclass(frozen=True)
class Reading:
    """One step against the one that it changes; accuracies in percent, differences and spreads in points."""

    row: dict[str, Any]  # of roadmap.json
    delta: float | None  # to the base, here; None where one of the two was not trained
    spread: float | None
    paper_delta: float | None  # None for the first step
    paper_spread: float
    verdict: str | None  # a key of VERDICTS


def read(results: dict[str, Any]) -> list[Reading]:
    """A reading of every step of roadmap.json, in order."""
    by_name = {row["name"]: row for row in results["steps"]}
    seeds = _PAPER_SEEDS[results["regime"]]
    paper_spread = _quantile(_PAPER_FREEDOM) * _PAPER_STD * math.sqrt(2 / seeds)
    readings = []
    for row in results["steps"]:
        base = by_name.get(row["base"])
        paper = row["paper_top1"] - base["paper_top1"] if base else None
        delta = spread = None
        if base and row["mean"] is not None and base["mean"] is not None:
            delta, spread = 100 * (row["mean"] - base["mean"]), 100 * _spread(row, base, results)
        verdict = None if paper is None or delta is None else _verdict(delta, spread or 0.0, paper, paper_spread)
        readings.append(Reading(row, delta, spread, paper, paper_spread, verdict))
    return readings


def summary(readings: Sequence[Reading]) -> str:
    """How many changes go the paper's way, and how many do not."""
    counts = {name: sum(reading.verdict == name for reading in readings) for name in VERDICTS}
    total = sum(counts.values())
    if not total:
        return "No step has been trained together with the one that it changes, so there is nothing to compare yet."
    *sentence, last = (f"{n} {VERDICTS[name][n > 1]}" for name, n in counts.items() if n)
    return f"Of {number_of(total, 'change')} measured, {' and '.join(filter(None, [', '.join(sentence), last]))}."


def method(results: dict[str, Any]) -> str:
    """What the spread is made of, and what it does not cover."""
    freedom, deviation = _pooled(results["steps"])
    if freedom:
        return (
            f"The spread is a 95 % interval from {number_of(freedom, 'degree')} of freedom over the seeds; one run scatters by "
            f"{100 * deviation:.2f} points. It does not cover the choice of the {results['val']:,} held-out images."
        )
    return (
        f"One seed a step: the spread is that of {results['val']:,} held-out images alone, and another seed would "
        "scatter too. Train two seeds or more before you believe a small difference."
    )


def _verdict(delta: float, spread: float, paper: float, paper_spread: float) -> str:
    here, there = abs(delta) > spread, abs(paper) > paper_spread
    if here and there:
        return "same direction" if delta * paper > 0 else "other direction"
    if here:
        return "only here"
    return "no clear difference" if there else "none, as in the paper"


def _spread(row: dict[str, Any], base: dict[str, Any], results: dict[str, Any]) -> float:
    """Half the 95 % interval of the difference of two means, as a rate."""
    freedom, deviation = _pooled(results["steps"])
    if freedom:
        chance = _quantile(freedom) * deviation * math.sqrt(1 / len(row["runs"]) + 1 / len(base["runs"]))
        return max(chance, 1 / max(1, results["val"]))  # one image is no difference, however much the seeds agree
    rates = (row["mean"], base["mean"])
    return 1.96 * math.sqrt(sum(rate * (1 - rate) for rate in rates) / max(1, results["val"]))


def _pooled(rows: Sequence[dict[str, Any]]) -> tuple[int, float]:
    """(degrees of freedom, standard deviation of one run) over all steps with two runs or more."""
    several = [row for row in rows if len(row["runs"]) > 1]
    freedom = sum(len(row["runs"]) - 1 for row in several)
    squares = math.fsum((run["top1"] - row["mean"]) ** 2 for row in several for run in row["runs"])
    return freedom, math.sqrt(squares / freedom) if freedom else 0.0


def _quantile(freedom: int) -> float:
    return _STUDENT[max(n for n in _STUDENT if n <= freedom)]
