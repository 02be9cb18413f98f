"""One promise of a network and what became of it; and those about the answers of a classifier, which are shares of images.

No torch here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from convnext.errors import number_of
from convnext.tasks.classification.promise import least, luck

Verdict = Literal["holds", "broken", "open"]
_LUCK = 0.05
_NAMED = 3  # classes in a sentence


@dataclass(frozen=True)
class Finding:
    """One promise."""

    name: str
    promised: str  # in words
    measured: str  # in words
    verdict: Verdict
    note: str = ""  # what a person should know
    values: Mapping[str, Any] = field(default_factory=dict)  # the numbers behind the words, for a program

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """A row of a table."""
        return self.name, self.promised, self.measured, "BROKEN" if self.verdict == "broken" else self.verdict

    def to_dict(self) -> dict[str, Any]:
        """For a program."""
        names = ("name", "promised", "measured", "verdict", "note")
        return {**{name: getattr(self, name) for name in names}, **self.values}


def answered(about: Mapping[str, Any], *, learnt: bool) -> Finding:
    """The promise about answers from a score on: broken where so many mistakes would hardly be chance."""
    here = about["here"]
    accuracy, n = about["accuracy"], round(here["n"] * here["answered"])
    title, text = "sure answers", f"{100 * accuracy:g} % right from {about['threshold']:.2f} on"
    values = {
        "promised_value": accuracy,
        "measured_value": here["right"],
        "answered": n,
        "threshold": about["threshold"],
    }
    if not n or learnt:
        return Finding(title, text, "none" if not n else percent(here["right"]), "open", values=values)
    wrong = round(n * (1 - here["right"]))
    told = f"{percent(here['right'])} of {n:,} ({here['answered']:.0%} answered)"
    return _kept_share(title, text, told, (wrong, n, accuracy), values)


def answered_each(about: Mapping[str, Any], *, learnt: bool) -> Finding:
    """The same where an image may have several labels, and each class a score of its own; all classes together.

    Broken where so many mistakes of one class would hardly be chance, though so many classes are looked at.
    """
    accuracy = about["accuracy"]
    rows = [row for row in about["classes"] if row["threshold"] is not None]
    sure = [row for row in rows if row["sure"]]
    title, text = "sure answers", f"{100 * accuracy:g} % right of {number_of(len(rows), 'class', 'classes')}"
    values: dict[str, Any] = {"promised_value": accuracy, "classes": rows}
    if learnt or not sure:
        return Finding(title, text, "none" if not sure else "not compared", "open", values=values)
    told = f"{number_of(len(sure), 'class', 'classes')} answered"
    fallen = [row for row in sure if _by_chance(row, accuracy) < _LUCK / len(sure)]
    if fallen:
        named = ", ".join(f"'{row['name']}' {percent(row['right'])} of {row['sure']:,}" for row in fallen[:_NAMED])
        more = ", ..." if len(fallen) > _NAMED else ""
        note = f"too many mistakes to be chance: {named}{more}."
        return Finding(title, text, f"{len(fallen)} below", "broken", note, values)
    few = [row["name"] for row in sure if row["sure"] < least(accuracy)]
    if len(few) == len(sure):
        note = f"no class has the {least(accuracy):,} answers, all right, that would show it."
        return Finding(title, text, told, "open", note, values)
    return Finding(title, text, told, "holds", values=values)


def sets(about: Mapping[str, Any], *, learnt: bool) -> Finding:
    """The promise about sets of classes, in the same way."""
    here, coverage = about["here"], about["coverage"]
    title, text = "sets", f"{100 * coverage:g} % hold the right class"
    values = {"promised_value": coverage, "measured_value": here["covered"]}
    told = f"{percent(here['covered'])}, {here['mean_size']:.1f} classes each"
    if learnt:
        return Finding(title, text, told, "open", values=values)
    wrong = round(here["n"] * (1 - here["covered"]))
    return _kept_share(title, text, told, (wrong, here["n"], coverage), values)


def _by_chance(row: Mapping[str, Any], share: float) -> float:
    """How likely so many mistakes or more are, were the promise kept."""
    wrong = round(row["sure"] * (1 - row["right"]))
    return 1.0 - luck(wrong - 1, row["sure"], share) if wrong else 1.0


def _kept_share(title: str, text: str, told: str, seen: tuple[int, int, float], values: dict[str, Any]) -> Finding:
    wrong, n, share = seen
    by_chance = 1.0 - luck(wrong - 1, n, share) if wrong else 1.0  # so many mistakes or more
    if by_chance < _LUCK:
        rare = "less than 0.1%" if by_chance < 0.001 else f"{by_chance:.1%}"
        note = f"{number_of(wrong, 'mistake')} in {n:,} would be chance in {rare} of the cases, were the promise kept."
        return Finding(title, text, told, "broken", note, values)
    if n < least(share):
        note = f"{number_of(n, 'image')} cannot tell: {least(share):,} without a mistake would show it."
        return Finding(title, text, told, "open", note, values)
    return Finding(title, text, told, "holds", values=values)


def percent(value: float, digits: int = 1) -> str:
    """0.8431 -> '84.3 %'."""
    return f"{100 * value:.{digits}f} %"
