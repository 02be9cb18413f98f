"""The promises of a network beside what some images show of them, one finding each. No torch here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from convnext.deploy.classifier import ClassificationPredictor
from convnext.deploy.verify import chance
from convnext.deploy.verify.chance import Figure
from convnext.deploy.verify.finding import Finding, answered, answered_each, percent, sets
from convnext.deploy.verify.promises import Promises, Stated
from convnext.errors import number_of
from convnext.models.licences import UNKNOWN, terms
from convnext.tasks.result import Evaluation

FIGURES = {  # that are promised where they were measured; of rates of images the interval follows from their number
    "top1": "top-1",
    "map": "mAP",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "miou": "mIoU",
}
RATES = ("top1",)
_NAMED = 3  # classes in a sentence
_MOST_RIGHT = 0.5  # the share of a class's images from which on another class is its answer


@dataclass(frozen=True)
class Measured:
    """An evaluation of the bundle, and which of its statements it is to be compared with."""

    found: Evaluation
    promises: Promises

    @cached_property
    def stated(self) -> Stated | None:
        """That about these very images; else that which chose nothing, of the part 'test', where there is one."""
        held = self.promises.stated
        same = [each for each in held if each.images and each.images == self.found.about.get("images")]
        found = same or list(reversed(held))
        return found[0] if found else None

    @property
    def same(self) -> bool:
        """Whether these are the images that the statement is about, all of them."""
        here = self.found.about.get("images")
        return self.stated is not None and bool(here) and (here, self.found.n) == (self.stated.images, self.stated.n)

    @property
    def learnt(self) -> bool:
        """Whether the network has learnt from these images, so that figures say nothing."""
        taught = bool(self.found.about.get("learnt"))
        return taught or (self.same and self.stated is not None and self.stated.crosswise)


def network(predictor: Any, promises: Promises) -> Iterator[Finding]:
    """Whether it answers as the run did that it was exported from, as far as that is known."""
    reference = promises.reference
    if reference is None or not isinstance(predictor, ClassificationPredictor):
        return
    said = "those of the run"
    try:
        off, same = reference.compared(predictor)
    except ValueError as error:
        yield Finding("answers", said, "of other classes", "broken", f"{error}: this is not the network of that run.")
        return
    values = {"largest_score_difference": off, "same_first": same, "n": len(reference.scores), "bound": reference.bound}
    holds = off <= reference.bound
    note = "" if holds else (
        f"scores of {len(reference.scores)} made images may differ by {reference.bound:g}, and the first answer is the same "
        f"on {same}: this is not the network of that run, or the runtime computes otherwise."
    )  # fmt: skip
    yield Finding("answers", said, f"score off by {off:.0e} at most", "holds" if holds else "broken", note, values)


def findings_of(seen: Measured) -> Iterator[Finding]:
    """All that labelled images tell."""
    yield _images(seen)
    yield _classes(seen)
    if seen.stated is None:
        note = "no evaluation.json of these weights was beside them. Export the run again, or name the run's folder."
        yield Finding("scores", "nothing", _headline(seen.found), "open", note)
        return
    for name, title in FIGURES.items():
        if name in seen.stated.scores and seen.found.scores.get(name) is not None:
            yield _figure(seen, seen.stated, name, title)
    if seen.stated.recalls and seen.found.tables.get("per_class"):
        yield _recalls(seen, seen.stated)
    if "ece" in seen.stated.scores and "calibration" in seen.found.tables:
        yield _calibration(seen, seen.stated)
    promise = seen.found.about.get("promise", {})
    if promise.get("kept"):
        yield (answered_each if "classes" in promise else answered)(promise, learnt=seen.learnt)
    if seen.found.about.get("sets", {}).get("kept"):
        yield sets(seen.found.about["sets"], learnt=seen.learnt)


def licence(metadata: Mapping[str, Any]) -> Finding:
    """Where the weights come from; what is not known stays open, and is never guessed."""
    origin, name = metadata.get("origin"), metadata.get("license", UNKNOWN)
    if not origin:
        return Finding("licence", "trained from random weights", "no weights of others", "holds")
    by = metadata.get("license_known_by") or ""
    values = {"origin": origin, "license": name, "license_known_by": by}
    if name == UNKNOWN:
        note = f"under which licence '{origin}' may be used is not known. Ask whoever published it."
        return Finding("licence", UNKNOWN, f"from {origin}", "open", note, values)
    asks = terms(name)
    note = f"{asks}." if asks else ""
    return Finding("licence", name, f"from {origin}", "holds", note, values)


def _images(seen: Measured) -> Finding:
    here = {"images": seen.found.about.get("images"), "n": seen.found.n, "skipped": len(seen.found.skipped)}
    broken = number_of(len(seen.found.skipped), "image")
    lost = f"{broken} could not be read and did not count." if seen.found.skipped else ""
    if seen.stated is None:
        return Finding("images", "not said", f"{seen.found.n:,}", "open" if lost else "holds", lost, here)
    said = f"{seen.stated.n:,} {seen.stated.part}"
    if seen.learnt:
        note = "it has learnt from these images, so that its figures on them say nothing. Name others."
        return Finding("images", said, "learnt by heart", "open", note, here)
    if seen.same:
        return Finding("images", said, "the same", "holds", lost, here)
    return Finding("images", said, f"{seen.found.n:,} others", "open" if lost else "holds", lost, here)


def _classes(seen: Measured) -> Finding:
    """Which of the classes are there, and whether some of them look exchanged."""
    names = seen.found.classes
    rows: list[dict[str, Any]] = list(seen.found.tables.get("per_class", ()))
    there = [row["name"] for row in rows if row.get("n", row.get("objects", row.get("pixels", 0)))]
    missing = [name for name in names if name not in there]
    said, told = number_of(len(names), "class", "classes"), f"{len(there)} have images"
    values: dict[str, Any] = {"missing": missing, "exchanged": exchanged(seen.found)}
    if values["exchanged"]:
        pairs = "; ".join(f"most of '{own}' are taken for '{other}'" for own, other in values["exchanged"][:_NAMED])
        note = f"the names look exchanged, in the data or in the bundle: {pairs}."
        return Finding("classes", said, "names exchanged", "broken", note, values)
    if missing:
        more = ", ..." if len(missing) > _NAMED else ""
        note = f"nothing is known of {', '.join(map(repr, missing[:_NAMED]))}{more}: no image shows it."
        return Finding("classes", said, told, "open", note, values)
    return Finding("classes", said, "the same names", "holds", values=values)


def exchanged(found: Evaluation) -> list[tuple[str, str]]:
    """(class, the class that most of its images are taken for) where these form a ring, as after a swap of names."""
    if "confusion" not in found.tables or found.task != "classification":
        return []
    table = np.array(found.tables["confusion"])
    many = table.sum(1)
    first = table.argmax(1)
    sure = (table.max(1) > _MOST_RIGHT * many) & (many > 1)
    ring = []
    for start in np.flatnonzero(sure & (first != np.arange(len(table)))):
        place, seen = int(start), set[int]()
        while sure[place] and place not in seen:
            seen.add(place)
            place = int(first[place])
        if place == start:
            ring.append((found.classes[start], found.classes[first[start]]))
    return ring


def _figure(seen: Measured, stated: Stated, name: str, title: str) -> Finding:
    """A score: on the same images to the digit, on others as far as chance allows."""
    said, here = stated.scores[name], float(seen.found.scores[name] or 0.0)
    values: dict[str, Any] = {"promised_value": said, "measured_value": here}
    promised = _interval(stated, name)
    text = percent(said) + (f" ({100 * promised.low:.1f} to {100 * promised.high:.1f})" if promised else "")
    if seen.learnt:
        return Finding(title, text, percent(here), "open", values=values)
    if seen.same:
        return _repeated(title, text, said, here, seen.promises.tolerance, values)
    measured = _measured(seen.found, name)
    if promised is None or measured is None:
        note = "how far chance moves it on other images is not known."
        return Finding(title, text, percent(here), "open", note, values)
    told = f"{percent(here)} ({100 * measured.low:.1f} to {100 * measured.high:.1f})"
    low, high = chance.change(promised, measured)
    values |= {"promised_interval": [promised.low, promised.high], "measured_interval": [measured.low, measured.high]}
    if high < 0:
        note = f"significantly below: {-100 * high:.1f} to {-100 * low:.1f} points, with 95 % confidence."
        return Finding(title, text, told, "broken", note, values)
    if low > -chance.MARGIN:
        return Finding(title, text, told, "holds", values=values)
    more = chance.needed(promised) if name in RATES else None
    way = (
        f"about {more:,} images would be needed to exclude that" if more and more > seen.found.n
        else "more images would be needed to exclude that"
    )  # fmt: skip
    note = f"these images cannot tell it from a fall of {100 * chance.MARGIN:.0f} points or more: {way}."
    return Finding(title, text, told, "open", note, values | {"needed": more})


def _repeated(title: str, text: str, said: float, here: float, tolerance: float, values: dict[str, Any]) -> Finding:
    """On the same images."""
    if abs(here - said) <= 1e-9:
        return Finding(title, text, "the same", "holds", values=values)
    if abs(here - said) <= tolerance:
        note = f"within the {100 * tolerance:.2g} points that another machine may cost on the same images."
        return Finding(title, text, percent(here, 2), "holds", note, values)
    side = "below" if here < said else "above"
    note = f"{100 * abs(here - said):.1f} points {side}, on images of the same names and labels: they or the file have changed."
    return Finding(title, text, percent(here, 2), "broken", note, values)


def _recalls(seen: Measured, stated: Stated) -> Finding:
    """No class may pay for the mean; all of them together are wrong by chance in 5 of 100 cases at most."""
    rows = {row["name"]: row for row in seen.found.tables["per_class"] if row.get("n")}
    pairs = {name: (held, rows[name]) for name, held in stated.recalls.items() if held[0] and name in rows}
    title, said = "each class", f"recall of {number_of(len(pairs), 'class', 'classes')}"
    if seen.learnt or not pairs:
        return Finding(title, said, "not compared", "open")
    fallen: dict[str, tuple[float, float]] = {}
    for name, ((n, recall), row) in pairs.items():
        if seen.same:
            below = recall - row["recall"] > max(seen.promises.tolerance, 1.5 / n)
        else:
            before, after = Figure.of_rate(recall, n, len(pairs)), Figure.of_rate(row["recall"], row["n"], len(pairs))
            below = chance.change(before, after)[1] < 0
        if below:
            fallen[name] = (recall, row["recall"])
    if not fallen:
        return Finding(title, said, "none is below", "holds", values={"fallen": {}})
    worst = sorted(fallen, key=lambda name: fallen[name][1] - fallen[name][0])
    told = ", ".join(
        f"'{name}' {percent(fallen[name][1])} instead of {percent(fallen[name][0])}" for name in worst[:_NAMED]
    )
    more = ", ..." if len(worst) > _NAMED else ""
    note = f"significantly below: {told}{more}."
    return Finding(title, said, f"{len(fallen)} below", "broken", note, {"fallen": fallen})


def _calibration(seen: Measured, stated: Stated) -> Finding:
    """How far scores and shares of right answers lie apart, beside what chance adds in a collection of this size."""
    said, here = stated.scores["ece"], float(seen.found.scores["ece"] or 0.0)
    values: dict[str, Any] = {"promised_value": said, "measured_value": here}
    title, text = "calibration error", percent(said)
    if seen.learnt:
        return Finding(title, text, percent(here), "open", values=values)
    n = seen.found.n
    if 1 / n > chance.MARGIN and not (seen.same and abs(here - said) <= 1e-9):
        note = f"{number_of(n, 'image')} cannot tell: one of them moves it by {percent(1 / n, 0)}."
        return Finding(title, text, percent(here), "open", note, values)
    if seen.same:
        tolerance = max(seen.promises.tolerance, 1 / stated.n)
        return _repeated(title, text, said, here, tolerance, values)
    adds = chance.calibration_by_chance(seen.found.tables["calibration"])
    values["by_chance"] = adds
    if here > said + adds:
        note = f"in {n:,} images chance adds {100 * adds:.1f} points at most: scores claim too much or too little."
        return Finding(title, text, percent(here), "broken", note, values)
    if adds > chance.MARGIN:
        note = f"{number_of(n, 'image')} cannot tell: chance alone makes up to {percent(adds)} of so few."
        return Finding(title, text, percent(here), "open", note, values)
    return Finding(title, text, percent(here), "holds", values=values)


def _interval(stated: Stated, name: str) -> Figure | None:
    if name in RATES:
        return Figure.of_rate(stated.scores[name], stated.n)
    held = stated.intervals.get(name)
    return None if held is None else Figure(stated.scores[name], *held)


def _measured(found: Evaluation, name: str) -> Figure | None:
    value = float(found.scores[name] or 0.0)
    if name in RATES:
        return Figure.of_rate(value, found.n)
    held = found.tables.get("intervals", {}).get(name)
    return None if held is None else Figure(value, *held)


def _headline(found: Evaluation) -> str:
    name = next((name for name in FIGURES if found.scores.get(name) is not None), None)
    return f"{FIGURES[name]} {percent(found.scores[name] or 0.0)}" if name else "nothing"
