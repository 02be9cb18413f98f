"""A finished training run as a value: its folder, its figures, and the way to its predictor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnext.deploy.load import load
from convnext.deploy.prediction import Prediction
from convnext.deploy.predictor import Predictor
from convnext.tasks.result import Evaluation


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    path: Path  # its folder
    step: int  # its last
    figures: Mapping[str, float | None]  # of its best weights on the held-out images; None: not to be told from these
    evaluation: Evaluation = field(repr=False)  # what evaluation.json holds
    report: Path = field(repr=False)  # the page for people

    @property
    def scores(self) -> dict[str, float]:
        """The figures that are known: 'top1', 'loss', ...; 'box_ap', ...; 'miou', ..."""
        return {name: value for name, value in self.figures.items() if value is not None}

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def chosen(self) -> str | None:
        """What a run kept that had a choice, as those from weights have: 'probe', 'finetuned' or 'mixed'."""
        return self.evaluation.about.get("chosen")

    def load(self, *, weights: str = "best", device: str = "auto") -> Predictor[Prediction]:
        """Its predictor, as `convnext.load(run.path)` gives it."""
        return load(self.path, weights=weights, device=device)

    def to_dict(self) -> dict[str, Any]:
        """What `convnext train --json` prints."""
        about = {"task": self.evaluation.task, "n": self.evaluation.n, "weights": self.evaluation["weights"]}
        about["stopped_early"] = bool(self.evaluation.about.get("stopped_early"))
        about |= {
            name: value for name, value in self.evaluation.about.items() if name in ("chosen", "crosswise", "test")
        }
        return {"run": str(self.path), "report": str(self.report), "step": self.step, **self.figures, **about}
