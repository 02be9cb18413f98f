"""What `evaluation.json` tells of a classifier of several labels: figures, classes, pairs, the most wrong images."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.data.labelled import UNKNOWN, Dataset
from convnext.data.store import printable
from convnext.tasks.classification.conclusion import GIVEN, HELD_OUT, NOTHING, Wanted
from convnext.tasks.classification.facts import fingerprint
from convnext.tasks.classification.several.metrics import (
    Counts,
    Floats,
    Outcomes,
    average_precisions,
    crossfitted,
    fitted_thresholds,
    mean_of_known,
    metrics,
)
from convnext.tasks.classification.several.promise import promised
from convnext.tasks.classification.several.promise import told as promise_told
from convnext.tasks.classification.several.thresholds import KEY, Thresholds
from convnext.tasks.groups import FEWEST, GROUPS, interval
from convnext.tasks.result import Evaluation

MOST_IN_TABLE = 300  # classes whose pairs are written as tables
PAIRS = 50  # that are listed, of many classes


def evaluation_of(
    outcomes: Outcomes,
    dataset: Dataset,
    thresholds: Thresholds | None = None,
    *,
    wanted: Wanted = NOTHING,
    measured: str = GIVEN,
) -> Evaluation:
    """The evaluation that the outcomes of a network on `dataset` make; `thresholds` None: these images choose them.

    Figures by thresholds that these images chose are cross-fitted, also where they chose them before. `wanted`: a promise is
    measured on these images, which are `measured`, and joins the thresholds.
    """
    paths, images = [printable(entry.path) for entry in dataset.entries], fingerprint(dataset)
    theirs = thresholds is None or thresholds.images in ("", images)
    given = None if thresholds is None or theirs else thresholds.array()
    found = Evaluation.of("classification", report(outcomes, dataset.classes, paths, given))
    chosen = thresholds or Thresholds(tuple(fitted_thresholds(outcomes).tolist()), images)
    if wanted.promise is not None:
        part = HELD_OUT if thresholds is not None and thresholds.images == images else measured
        chosen = replace(chosen, promise=promised(outcomes, wanted.promise, part))
    if chosen.promise is not None:
        found = found.with_about(promise=promise_told(outcomes, chosen.promise, dataset.classes))
    return found.with_about(**{KEY: chosen.to_dict()}) if chosen != thresholds else found


def report(
    outcomes: Outcomes, names: tuple[str, ...], paths: list[str], thresholds: Floats | None = None, *, worst: int = 24
) -> dict[str, Any]:
    """Everything that `evaluation.json` holds; `paths` are those of the dataset's entries."""
    judging = crossfitted(outcomes) if thresholds is None else thresholds
    shown = fitted_thresholds(outcomes) if thresholds is None else thresholds
    told = outcomes.score >= judging
    return {
        "task": "classification",
        "labels": "multi",
        "n": len(outcomes),
        **metrics(outcomes, judging),
        **_intervals(outcomes),
        "classes": list(names),
        "per_class": _per_class(outcomes, names, Counts.of(outcomes, judging), shown),
        "thresholds_of": "these images, cross-fitted" if thresholds is None else "the run",
        **_together(outcomes, told, names),
        "worst": _worst(outcomes, told, names, paths, worst),
    }


def _intervals(outcomes: Outcomes) -> dict[str, dict[str, tuple[float, float]]]:
    """'intervals': the 95 % interval of 'map'; nothing of few images."""
    if len(outcomes) < FEWEST:
        return {}
    places = [np.flatnonzero(outcomes.index % GROUPS == number) for number in range(GROUPS)]
    whole, *parts = (mean_of_known(average_precisions(each)) for each in (outcomes, *map(outcomes.at, places)))
    found = interval(whole, parts, len(outcomes))
    return {"intervals": {"map": found}} if found else {}


def _per_class(outcomes: Outcomes, names: tuple[str, ...], counts: Counts, thresholds: Floats) -> list[dict[str, Any]]:
    """Of each class its images, average precision, threshold, precision, recall and F1; None of a class without images."""
    aps, known = average_precisions(outcomes), (outcomes.marks != UNKNOWN).sum(0)
    rows = []
    for place, name in enumerate(names):
        held = bool(counts.images[place])
        figures = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
        rows.append(
            {
                "name": name,
                "n": int(counts.images[place]),
                "known": int(known[place]),
                "predicted": int(counts.predicted[place]),
                "threshold": float(thresholds[place]),
                "ap": float(aps[place]) if held else None,
                **{key: float(column[place]) if held else None for key, column in figures.items()},
            }
        )
    return rows


def _together(outcomes: Outcomes, told: NDArray[np.bool_], names: tuple[str, ...]) -> dict[str, Any]:
    """How many images are labelled with two classes, and how many are predicted with them; alone on the diagonal: with one.

    'labelled' and 'predicted', (K, K); of many classes 'together', [a, b, labelled, predicted] of the most frequent pairs.
    """
    has = (outcomes.marks == 1).astype(np.float32)
    tables = [np.rint(each.T @ each).astype(np.int64) for each in (has, told.astype(np.float32))]
    if len(names) <= MOST_IN_TABLE:
        return {"labelled": tables[0].tolist(), "predicted": tables[1].tolist()}
    either = np.triu(np.maximum(*tables), 1)
    order = np.argsort(-either, axis=None, kind="stable")[:PAIRS]
    pairs = zip(*(column.tolist() for column in np.unravel_index(order, either.shape)), strict=True)
    return {"together": [[a, b, int(tables[0][a, b]), int(tables[1][a, b])] for a, b in pairs if either[a, b]]}


def _worst(
    outcomes: Outcomes, told: NDArray[np.bool_], names: tuple[str, ...], paths: list[str], most: int
) -> list[dict[str, Any]]:
    """The images with a wrong answer whose loss is highest: what they have, what they are said to have, and the scores."""
    wrong = (told != (outcomes.marks == 1)) & (outcomes.marks != UNKNOWN)
    places = np.flatnonzero(wrong.any(1))
    places = places[np.argsort(-outcomes.loss[places], kind="stable")][:most]
    rows = []
    for place in places.tolist():
        has, said = outcomes.marks[place] == 1, told[place] & (outcomes.marks[place] != UNKNOWN)
        named = {"labels": has, "predicted": said, "missed": has & ~said, "wrong": said & ~has}
        scores = {names[k]: float(outcomes.score[place, k]) for k in np.flatnonzero(has | said)}
        lists = {key: [names[k] for k in np.flatnonzero(which)] for key, which in named.items()}
        rows.append(
            {"path": paths[outcomes.index[place]], **lists, "scores": scores, "loss": float(outcomes.loss[place])}
        )
    return rows
