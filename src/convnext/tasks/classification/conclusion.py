"""From what a network answers to an evaluation whose scores are those that people will be given. No torch here.

The images that a scale is fitted on have no say in how good it looks: their figures are cross-fitted, at the end of a run
as whenever they are evaluated again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.data.labelled import Dataset
from convnext.errors import ConvNeXtError, DataError
from convnext.tasks.classification import calibration, conformal, promise
from convnext.tasks.classification.answers import Answers, rescored
from convnext.tasks.classification.calibration import Floats
from convnext.tasks.classification.decision import KEY, PLAIN, Decision
from convnext.tasks.classification.facts import fingerprint
from convnext.tasks.classification.metrics import Outcomes, joined, metrics
from convnext.tasks.classification.metrics import calibration as bins_of
from convnext.tasks.classification.report import evaluation_of
from convnext.tasks.classification.selective import aurc, risk_coverage
from convnext.tasks.result import Evaluation

MOST = 1 << 24  # logits that are held at once; of more images an even sample is fitted on
HELD_OUT, TEST, GIVEN = "held out", "test", "given"  # what the images are
Asked = Callable[[Dataset], Iterable[Answers]]
Gather = Callable[[list[Any]], list[list[Any]]]  # from all processes


@dataclass(frozen=True)
class Wanted:
    """What a person asks of the answers, to be measured on labelled images."""

    promise: float | None = None  # the share of the answers that shall be right
    sets: float | None = None  # the share of the sets that shall hold the right class

    @classmethod
    def of(cls, promised: float | None, sets: float | None) -> "Wanted":
        """Raises ConvNeXtError for what nobody can promise."""
        accuracy = None if promised is None else promise.require_promise(promised)
        return cls(accuracy, None if sets is None else conformal.require_coverage(sets))

    def require(self, *, several: bool) -> None:
        """Raise ConvNeXtError for sets where an image may have `several` labels."""
        if several and self.sets is not None:
            raise ConvNeXtError(
                f"--sets {self.sets:g} is refused: a set holds the one right class of an image, and these images may have "
                f"several labels. --promise {self.sets:g} says from which score on each class is right that often."
            )

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Wanted()


@dataclass(frozen=True)
class _Judged:
    """Some images, by the plain softmax and by what people are given."""

    plain: Outcomes
    scored: Outcomes
    sizes: NDArray[np.int64]  # (N,) of their sets; 0 where there are none
    held: NDArray[np.bool_]  # (N,) whether the right class is among them

    @classmethod
    def of(
        cls, part: Answers, plain: Outcomes, log_scores: Floats, sets: conformal.Sets | None, *, same: bool = False
    ) -> "_Judged":
        """`plain`: by the softmax; `log_scores`: (N, K) of what people are given, `same`: these are those of the softmax."""
        sizes = sets.sizes(log_scores) if sets else np.zeros(len(part), np.int64)
        held = conformal.covered(sizes, log_scores, part.label)
        return cls(plain, plain if same else rescored(plain, log_scores), sizes, held)

    @classmethod
    def join(cls, parts: Sequence["_Judged"]) -> "_Judged":
        """All parts as one, each image once."""
        plain, scored = (Outcomes.join([getattr(part, name) for part in parts]) for name in ("plain", "scored"))
        _, first = np.unique(np.concatenate([part.plain.index for part in parts]), return_index=True)
        sizes, held = (np.concatenate([getattr(part, name) for part in parts])[first] for name in ("sizes", "held"))
        return cls(plain, scored, sizes, held)


def conclude(
    dataset: Dataset,
    answers: Asked,
    decision: Decision,
    *,
    fit: bool = False,
    wanted: Wanted = NOTHING,
    measured: str = GIVEN,
    gather: Gather = lambda parts: [parts],
    judge: Callable[[Answers], Outcomes] = Answers.outcomes,
) -> Evaluation:
    """What `answers`, asked for the images of a dataset, come to by `decision`; `fit`: by one that is fitted on them.

    `wanted` is measured on these images, which are `measured`, and joins the decision. `judge`: the outcomes by the plain
    softmax, in the numbers of the program that answers. Raises DataError when no image could be read.
    """
    few, print_ = _few(dataset), fingerprint(dataset)
    again = bool(decision.images) and decision.images == print_
    apart: Floats | None = None
    about: dict[str, Any] = {}
    if fit or wanted or (again and few is dataset):
        seen = Answers.join(_all(answers(few), gather, few))
        if fit or again:
            scale, apart = calibration.fit(seen.logits, seen.label)
            decision = Decision(scale, print_, len(seen)) if fit else decision
        if wanted:
            decision, about = promised(seen, decision, wanted, HELD_OUT if again else measured)
    if apart is not None and few is dataset:
        found = _Judged.of(seen, judge(seen), apart, decision.sets)
    else:
        scale, sets = decision.scale, decision.sets
        same = scale == calibration.SOFTMAX
        parts = (
            _Judged.of(each, judge(each), scale.log_scores(each.logits), sets, same=same) for each in answers(dataset)
        )
        found = _Judged.join(_all(joined(parts, _Judged.join), gather, dataset))
    told = _told(found, dataset).with_about(**{**_kept(found, decision), **about})
    return told.with_about(**{KEY: decision.to_dict()}) if decision != PLAIN else told


def promised(seen: Answers, decision: Decision, wanted: Wanted, part: str) -> tuple[Decision, dict[str, Any]]:
    """The decision with what `wanted` comes to on these images, and what evaluation.json says of it where it failed."""
    log_scores = decision.scale.log_scores(seen.logits)
    about: dict[str, Any] = {}
    if wanted.promise is not None:
        found = seen.outcomes(log_scores)
        kept = promise.kept(found.score, found.rank == 0, wanted.promise, part)
        decision = replace(decision, promise=kept)
        if kept is None:
            about["promise"] = promise.refused(found.score, found.rank == 0, wanted.promise, part)
    if wanted.sets is not None:
        sets = conformal.sets_of(log_scores, seen.label, wanted.sets, part)
        decision = replace(decision, sets=sets)
        if sets is None:
            least = conformal.fewest(wanted.sets)
            about["sets"] = {"coverage": wanted.sets, "kept": False, "n": len(seen), "part": part, "least": least}
    return decision, about


def _kept(found: _Judged, decision: Decision) -> dict[str, Any]:
    """How the promise and the sets of a decision do on these images."""
    about: dict[str, Any] = {}
    if decision.promise:
        given = found.scored.score >= decision.promise.threshold
        right = float((found.scored.rank[given] == 0).mean()) if given.any() else None
        about["promise"] = {
            **decision.promise.to_dict(),
            "confidence": promise.CONFIDENCE,
            "kept": True,
            "here": {"n": len(given), "answered": float(given.mean()), "right": right},
        }
    if decision.sets:
        seen = {"n": len(found.sizes), "mean_size": float(found.sizes.mean()), "covered": float(found.held.mean())}
        about["sets"] = {**decision.sets.to_dict(), "kept": True, "here": seen}
    return about


def _told(found: _Judged, dataset: Dataset) -> Evaluation:
    """The evaluation with what the plain softmax claims beside it, and with what answering less would gain."""
    before, told = metrics(found.plain), evaluation_of(found.scored, dataset)
    scores = {"loss_before": before["loss"], "ece_before": before["ece"], "aurc": aurc(found.scored)}
    tables = {"calibration_before": bins_of(found.plain), "risk_coverage": risk_coverage(found.scored)}
    return replace(told, scores={**told.scores, **scores}, tables={**told.tables, **tables})


def _few(dataset: Dataset) -> Dataset:
    """The dataset, or every so many of its images where the logits of all would not be held at once."""
    apart = -(-len(dataset.entries) * len(dataset.classes) // MOST)
    return dataset if apart <= 1 else replace(dataset, entries=dataset.entries[::apart])


def _all(parts: Iterable[Any], gather: Gather, dataset: Dataset) -> Sequence[Any]:
    found = [part for gathered in gather(list(parts)) for part in gathered]
    if not found:
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return found
