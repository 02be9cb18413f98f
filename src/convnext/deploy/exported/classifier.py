"""The classifier in an exported file: the calls of every predictor, in NumPy, so that nothing needs torch.

Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.config import ClassificationRecipe, Recipe, parse
from convnext.data.evaluation import Shown, framed, shown
from convnext.data.labelled import Dataset
from convnext.data.source import Source
from convnext.deploy.classifier import BATCH, ClassificationPredictor
from convnext.deploy.explanation import Explanation, Method
from convnext.deploy.exported.opened import Exported, open_exported
from convnext.deploy.forms.table import LOGITS
from convnext.deploy.images import Pixels, Read, in_batches
from convnext.deploy.predictor import Features, require_numbers
from convnext.engine.records import warn, watched
from convnext.errors import ConvNeXtError, DataError
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.conclusion import GIVEN, TEST, Wanted, conclude
from convnext.tasks.classification.decision import Decision
from convnext.tasks.classification.facts import fingerprint
from convnext.tasks.classification.metrics import Outcomes
from convnext.tasks.classification.passing import PLAIN, Pass
from convnext.tasks.classification.several import metrics as several
from convnext.tasks.classification.several.report import evaluation_of as evaluation_of_several
from convnext.tasks.judged import judged_on, refuse_learnt
from convnext.tasks.opening import open_scored
from convnext.tasks.result import Evaluation
from convnext.tasks.skipped import note_skipped

Floats = NDArray[np.float32]


class ExportedClassifier(ClassificationPredictor):
    """A network in a file with everything that it needs to answer."""

    model: Exported

    @classmethod
    def of(cls, source: str | Path, *, backend: str = "auto", threads: int | None = None) -> "ExportedClassifier":
        """The predictor of a file that `convnext export` wrote. Raises what `open_exported` raises."""
        return cls.around(open_exported(source, backend=backend, threads=threads))

    @classmethod
    def around(cls, network: Exported) -> "ExportedClassifier":
        """The predictor of an opened file."""
        described, source = network.description, network.path
        recipe: ClassificationRecipe = parse(Recipe, described["recipe"] | {"precision": "fp32"}, where=f"'{source}'")
        Decision.of(described, source)  # a wrong one is refused now
        return cls(network, recipe, tuple(described["classes"]), "cpu", source, described)

    def _evaluated(self, source: Source, part: str | None, how: Pass, wanted: Wanted, *, keep: bool) -> Evaluation:
        if keep:
            raise ConvNeXtError(f"'{self.source}' is exported and stays as it is. Name its run, and export that again.")
        asked_of: dict[str, Any] = {
            "part": part,
            "run": self.source.parent,
            "learnt": refuse_learnt if wanted else warn,
        }
        dataset: Dataset = open_scored(source, self.recipe, self.metadata, fingerprint, **asked_of)
        skipped: dict[str, str] = {}
        how, measured = replace(how, skipped=skipped), TEST if part == TEST else GIVEN
        about = judged_on(dataset, self.recipe, self.metadata, fingerprint)
        if self.several:
            outcomes = self.label_outcomes(dataset, how)
            told = evaluation_of_several(outcomes, dataset, self.thresholds, wanted=wanted, measured=measured)
            return told.with_about(skipped=skipped, **about)

        def asked(images: Dataset) -> Iterator[Answers]:
            return self._passes(images, how)

        found = conclude(dataset, asked, self.decision, wanted=wanted, measured=measured)
        return found.with_about(skipped=skipped, **about)

    def outcomes(self, dataset: Dataset, how: Pass = PLAIN, *, only: Sequence[int] = ()) -> Outcomes:
        """As for every classifier."""
        self._require_labels("single")
        parts = []
        for found in self._passes(dataset, how):
            within = replace(found, logits=restricted(found.logits, only))
            parts.append(within.outcomes(self.decision.scale.log_scores(within.logits)))
        return Outcomes.join(parts)

    def label_outcomes(self, dataset: Dataset, how: Pass = PLAIN) -> several.Outcomes:
        """As for every classifier."""
        self._require_labels("multi")
        return several.Outcomes.join(
            [
                several.Outcomes.of(each.logits, each.label.astype(np.int8), each.index)
                for each in self._passes(dataset, how)
            ]
        )

    def _passes(self, dataset: Dataset, how: Pass) -> Iterator[Answers]:
        """The logits of every readable image, a batch at a time.

        Raises DataError where none is, ConvNeXtError for an attack, which needs gradients.
        """
        if how.attack is not None:
            raise ConvNeXtError(f"'{self.source}' has no gradients to attack it by. Name the run that it was made of.")
        count, seen = len(dataset.entries), 0

        def read(places: range) -> Shown:
            return shown(dataset, self.recipe.input, places, how.change)

        batches = in_batches(read, count, how.batch or BATCH, how.workers)
        with watched(batches, count, shown=how.progress) as passing:
            for found in passing:
                note_skipped(found.skipped.items(), {} if how.skipped is None else how.skipped)
                seen += len(found.indices)
                if found.indices:
                    logits = self.logits(found.images)
                    for index, row in zip(found.indices, logits, strict=True):
                        require_numbers(row, dataset.entries[index].path, self.source)
                    yield Answers(np.array(found.indices, np.int64), dataset.labels(found.indices), logits)
        if not seen:
            raise DataError(f"None of the {count} images to evaluate on could be read.")

    def _logits(self, images: Pixels) -> Floats:
        return self.logits(images)

    def logits(self, images: Pixels) -> Floats:
        """(N, K) float32 logits of (N, H, W, C) uint8 images that `eval_transform` made.

        The graph would resize by itself, by products that cost more than Pillow's loops and of images of one size only. So
        it is given what its own resize leaves as it is.
        """
        found: Floats = self.model.run(framed(images, self.recipe.input), (LOGITS,))[0]
        return found

    def _explained(
        self, read: Sequence[Read], *, classes: str | Sequence[str] | None, method: Method, stage: int | None
    ) -> Iterable[Explanation]:
        raise ConvNeXtError(
            f"'{self.source}' gives logits alone, without the maps and gradients that explain them. Name the run that it was "
            "made of."
        )

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        raise ConvNeXtError(f"'{self.source}' gives logits alone. Load the run for its features.")


def restricted(logits: Floats, only: Sequence[int]) -> Floats:
    """(N, K) logits with every class that is not in `only` at minus infinity; as they are where `only` is empty."""
    if not only:
        return logits
    out = np.full_like(logits, -np.inf)
    out[:, list(only)] = logits[:, list(only)]
    return out
