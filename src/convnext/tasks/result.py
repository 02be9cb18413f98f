"""What an evaluation came to, for every task: what `evaluation.json` of a run and `convnext evaluate --json` hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """A network's figures on one set of images; one that nothing was there to be measured on is None."""

    task: str
    n: int  # images that were scored
    scores: Mapping[str, float | None]  # 'top1', 'box_ap', 'miou', ..., and always 'loss'
    classes: tuple[str, ...]
    tables: Mapping[str, Any]  # 'per_class', 'confusion', 'worst', ...: rows and lists, ready for JSON
    about: Mapping[str, Any] = field(default_factory=dict)  # 'weights', 'step', 'skipped', ...: how it was made

    @classmethod
    def of(cls, task: str, report: Mapping[str, Any]) -> "Evaluation":
        """From a report of a task's own: its numbers with a fraction are scores, all else is a table."""
        rest = {name: value for name, value in report.items() if name not in ("task", "n", "classes")}
        scores = {name: value for name, value in rest.items() if value is None or isinstance(value, float)}
        tables = {name: value for name, value in rest.items() if name not in scores}
        return cls(task, report["n"], scores, tuple(report["classes"]), tables)

    @property
    def skipped(self) -> dict[str, str]:
        """Path -> reason of images that could not be read, and are not counted."""
        return dict(self.about.get("skipped", {}))

    @property
    def figures(self) -> dict[str, Any]:
        """How many images, the scores and those of each class: what a second set of images is summed up in."""
        known = ("intervals", "per_class", "never_predicted")
        tables = {name: self.tables[name] for name in known if name in self.tables}
        return {"n": self.n, **self.scores, **tables}

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def with_about(self, **about: Any) -> "Evaluation":
        """The same, and how it was made."""
        return replace(self, about={**self.about, **about})

    def without(self, *names: str) -> "Evaluation":
        """The same without some tables, such as 'details', which only the page of a run needs."""
        return replace(self, tables={name: value for name, value in self.tables.items() if name not in names})

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it, side by side."""
        head = {"task": self.task, "n": self.n, **self.scores, "classes": list(self.classes)}
        return {**head, **self.tables, **self.about}
