"""A run that starts from weights where an image may have several labels: the same stages, told by mean average precision."""

from typing import ClassVar

from torch import nn

from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.several.metrics import Outcomes, metrics
from convnext.tasks.classification.several.task import SeveralLabels
from convnext.tasks.classification.stages import Stages
from convnext.tasks.classification.task import Classification


class SeveralStages(Stages):
    """One such run, or a part of one, stage by stage."""

    figure: ClassVar[str] = "map"

    def scores(self, answers: Answers) -> dict[str, float]:
        """The figures that these answers make."""
        return metrics(outcomes_of(answers))

    def title(self, metric: str) -> str:
        """What people call a figure that chooses."""
        return {"map": "mAP", "macro_f1": "Macro F1", "micro_f1": "Micro F1", "exact": "Exact matches"}[metric]

    def told(self, rate: float, n: int) -> str:
        """'mAP 71.2% of 341'."""
        return f"mAP {rate:.1%} of {n:,}"

    def _task(self, model: nn.Module) -> Classification:
        return SeveralLabels(model, self.recipe, self.options, self.splits)


def outcomes_of(answers: Answers) -> Outcomes:
    """Of the logits of many images."""
    return Outcomes.of(answers.logits, answers.label, answers.index)
