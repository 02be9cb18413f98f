"""What an audit found, as values: likely wrong labels, copies, outliers, pairs of classes that are hard to tell apart."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convnext.data.labelled import UNKNOWN
from convnext.data.store import printable
from convnext.data.whole import Whole
from convnext.errors import number_of
from convnext.studies.audit.confident import Doubts, doubts
from convnext.studies.audit.copies import Copies
from convnext.studies.audit.neighbours import Neighbours
from convnext.studies.audit.networks import Said

_PAIRS = 20  # of classes that are told


@dataclass(frozen=True)
class Suspect:
    """An image whose label is likely wrong."""

    path: str
    given: str
    suggested: str
    score: float  # 0 to 1: the chance that the label is a mistake, where one in twenty is


@dataclass(frozen=True)
class Image:
    """One of several that show the same."""

    path: str
    part: str  # 'train', 'val', 'test', or '' where the data have no parts
    given: str
    likeness: float  # correlation of its pixels with the nearest of the others, 1 the same


@dataclass(frozen=True)
class Group:
    """Images that show the same."""

    images: tuple[Image, ...]

    @property
    def leaks(self) -> bool:
        """Whether they are in more than one part: what is learnt is then scored as well."""
        return len({image.part for image in self.images}) > 1

    @property
    def torn(self) -> bool:
        """Whether they have more than one class."""
        return len({image.given for image in self.images}) > 1


@dataclass(frozen=True)
class Outlier:
    """An image far from all others."""

    path: str
    given: str
    distance: float  # 1 - the mean cosine of the features to those of the nearest images


@dataclass(frozen=True)
class Pair:
    """Two classes that are hard to tell apart, or whose labels are mixed up."""

    first: str
    second: str
    share: float  # of all images: labelled one and likely the other, either way
    images: int  # whose labels are likely wrong between the two


@dataclass(frozen=True)
class Audit:
    """What an audit of labelled images found; the most suspicious first."""

    out: Path  # its folder
    n: int  # images that were looked at
    classes: tuple[str, ...]
    wrong: tuple[Suspect, ...]
    groups: tuple[Group, ...]
    outliers: tuple[Outlier, ...]
    pairs: tuple[Pair, ...]
    skipped: dict[str, str] = field(default_factory=dict)  # path -> reason of images that could not be read
    several: bool = False  # whether an image may have several labels: each is judged by itself
    unjudged: tuple[str, ...] = ()  # paths of images whose class only one fold holds

    @property
    def page(self) -> Path:
        """index.html."""
        return self.out / "index.html"

    def to_dict(self) -> dict[str, Any]:
        """What `convnext audit --json` prints: counts and places; the rows are in the files."""
        files = {f"{name}_csv": str(self.out / f"{name}.csv") for name in ("audit", "duplicates", "outliers", "pairs")}
        return {
            "out": str(self.out),
            "page": str(self.page),
            "n": self.n,
            "wrong": len(self.wrong),
            "duplicates": len(self.groups),
            "across_parts": sum(group.leaks for group in self.groups),
            "two_classes": sum(group.torn for group in self.groups),
            "outliers": len(self.outliers),
            **files,
            "skipped": self.skipped,
            "unjudged": list(map(printable, self.unjudged)),
        }

    def lines(self) -> list[str]:
        """What `convnext audit` prints."""
        told = self.to_dict()
        most = [f"{each.first} and {each.second}" for each in self.pairs[:3] if each.images]
        return [
            f"{number_of(told['wrong'], 'label')} of {number_of(self.n, 'image')} likely wrong: {told['audit_csv']}",
            f"{number_of(told['duplicates'], 'group')} of images that show the same, {told['across_parts']:,} across parts "
            f"and {told['two_classes']:,} with two classes: {told['duplicates_csv']}",
            f"{number_of(told['outliers'], 'image')} far from all others: {told['outliers_csv']}",
            *([f"Classes that are mixed up most: {', '.join(map(printable, most))}"] if most else []),
        ]


def suspects(whole: Whole, said: Said) -> tuple[tuple[Suspect, ...], tuple[Pair, ...]]:
    """Likely wrong labels, the most suspicious first, and the pairs of classes between which they are.

    Where an image may have several labels, each class is judged by itself, and no pairs are told.
    """
    if whole.dataset.several:
        return _labels_in_doubt(whole, said), ()
    judged = np.isfinite(said.probabilities).all(1)
    places, labels = said.places[judged], whole.labels[said.places[judged]]
    found = doubts(said.probabilities[judged], labels)
    order = np.argsort(-found.score, kind="stable")
    names, entries = whole.dataset.classes, whole.dataset.entries
    wrong = tuple(
        Suspect(entries[places[i]].path, names[labels[i]], names[found.suggested[i]], float(found.score[i]))
        for i in order.tolist()
        if found.wrong[i]
    )
    return wrong, _pairs(found, labels, names)


def _labels_in_doubt(whole: Whole, said: Said) -> tuple[Suspect, ...]:
    """Of images that may have several labels: 'cat' that is likely 'not cat', and 'not cat' that is likely 'cat'."""
    marks, wrong = whole.dataset.labels()[said.places], []
    for label, name in enumerate(whole.dataset.classes):
        rows = np.flatnonzero(np.isfinite(said.probabilities[:, label]) & (marks[:, label] != UNKNOWN))
        p = said.probabilities[rows, label].astype(np.float64)
        own = marks[rows, label].astype(np.int64)
        if len(np.unique(own)) < 2:
            continue
        found = doubts(np.stack([1 - p, p], 1), own)
        words = (f"not {name}", name)
        for place in np.flatnonzero(found.wrong).tolist():
            path, given = whole.dataset.entries[said.places[rows[place]]].path, int(own[place])
            wrong.append(Suspect(path, words[given], words[1 - given], float(found.score[place])))
    return tuple(sorted(wrong, key=lambda each: (-each.score, each.path, each.given)))


def _pairs(found: Doubts, labels: np.ndarray, names: tuple[str, ...]) -> tuple[Pair, ...]:
    """The pairs of classes with the largest share of the joint off its diagonal, each once."""
    both = found.joint + found.joint.T
    counts = np.zeros_like(both)
    np.add.at(counts, (labels[found.wrong], found.suggested[found.wrong]), 1)
    counts += counts.T
    first, second = np.triu_indices(len(names), 1)
    order = np.argsort(-both[first, second], kind="stable")[:_PAIRS]
    pairs = [(int(first[i]), int(second[i])) for i in order if both[first[i], second[i]] > 0]
    return tuple(Pair(names[a], names[b], float(both[a, b]), int(counts[a, b])) for a, b in pairs)


def groups(whole: Whole, found: Copies) -> tuple[Group, ...]:
    """The images that show the same: those of several parts first, then those of several classes, the largest first."""
    likeness: dict[int, float] = {}
    for pair, value in zip(found.pairs.tolist(), found.likeness.tolist(), strict=True):
        for place in pair:
            likeness[place] = max(likeness.get(place, 0.0), value)
    entries = whole.dataset.entries
    made = [
        Group(tuple(Image(entries[i].path, whole.part_of(i), whole.given(i), min(1.0, likeness[i])) for i in group))
        for group in found.groups
    ]
    return tuple(sorted(made, key=lambda group: (not group.leaks, not group.torn, -len(group.images))))


def outliers(whole: Whole, said: Said, near: Neighbours) -> tuple[Outlier, ...]:
    """The images far from all others, the farthest first."""
    entries, distances = whole.dataset.entries, near.distances
    rows = [(int(said.places[row]), float(distances[row])) for row in near.far.tolist()]
    return tuple(Outlier(entries[place].path, whole.given(place), distance) for place, distance in rows)
