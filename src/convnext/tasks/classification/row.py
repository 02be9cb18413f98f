"""What the road of all tasks asks of classification: of one label an image, or of several, by what the recipe says."""

from collections.abc import Callable
from typing import Any

from convnext.models.weights import load_weights
from convnext.tasks.classification import balance, build, decision, facts, scoring, transfer
from convnext.tasks.classification.decision import Decision
from convnext.tasks.classification.several import scoring as several_scoring
from convnext.tasks.classification.several.task import SeveralLabels
from convnext.tasks.classification.several.thresholds import KEY, Thresholds
from convnext.tasks.classification.task import Classification
from convnext.tasks.result import Evaluation
from convnext.tasks.table import Row

Made = Callable[..., Any]


def _by_labels(place: int, **kinds: Made) -> Made:
    """That of `kinds`, 'single' and 'multi', which the recipe names; it is the argument at `place`."""

    def chosen(*given: Any, **how: Any) -> Any:
        return kinds[given[place].labels](*given, **how)

    return chosen


def _again(found: Evaluation) -> dict[str, Any]:
    """What held-out images chose: the thresholds of several labels, or the decision of one."""
    if KEY in found.about:
        return {"thresholds": Thresholds.of(found.about, len(found.classes), "evaluation.json")}
    return {"decision": Decision.of(found.about, "evaluation.json")} if decision.KEY in found.about else {}


ROW = Row(
    build=build.build,
    load=load_weights,
    task=_by_labels(1, single=Classification, multi=SeveralLabels),
    carry_out=transfer.carry_out,
    evaluation=_by_labels(2, single=scoring.evaluation, multi=several_scoring.evaluation),
    final=_by_labels(2, single=scoring.final, multi=several_scoring.final),
    fitted=facts.fitted,
    told=balance.balance_line,
    fingerprint=facts.fingerprint,
    counts=facts.counts,
    classes="model.classes",
    hold_out="Add val/<class>/ with some, give each class two images or more, or raise --val-share.",
    again=_again,
)
