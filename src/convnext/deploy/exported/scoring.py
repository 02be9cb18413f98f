"""The classifier in an exported file on labelled images: what it answers, and the scores of that. No torch here.

Axes: N images, K classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from convnext.data.evaluation import Shown, shown
from convnext.data.labelled import Dataset
from convnext.data.source import Source
from convnext.deploy.classifier import BATCH
from convnext.deploy.exported.classifier import ExportedClassifier, Floats
from convnext.deploy.images import in_batches
from convnext.deploy.predictor import require_numbers
from convnext.engine.records import warn, watched
from convnext.errors import ConvNeXtError, DataError
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.conclusion import GIVEN, TEST, Wanted, conclude
from convnext.tasks.classification.facts import fingerprint
from convnext.tasks.classification.metrics import Outcomes
from convnext.tasks.classification.passing import Pass
from convnext.tasks.classification.several import metrics as several
from convnext.tasks.classification.several.report import evaluation_of as evaluation_of_several
from convnext.tasks.judged import judged_on, refuse_learnt
from convnext.tasks.opening import open_scored
from convnext.tasks.result import Evaluation
from convnext.tasks.skipped import note_skipped


def evaluated(
    predictor: ExportedClassifier, source: Source, part: str | None, how: Pass, wanted: Wanted, *, keep: bool
) -> Evaluation:
    """The scores on the images of recognised data. Raises ConvNeXtError for `keep`: the file stays as it is."""
    place, recipe, metadata = predictor.source, predictor.recipe, predictor.metadata
    if keep:
        raise ConvNeXtError(f"'{place}' is exported and stays as it is. Name its run, and export that again.")
    learnt = refuse_learnt if wanted else warn
    dataset: Dataset = open_scored(source, recipe, metadata, fingerprint, part=part, run=place.parent, learnt=learnt)
    skipped: dict[str, str] = {}
    how, measured = replace(how, skipped=skipped), TEST if part == TEST else GIVEN
    about = judged_on(dataset, recipe, metadata, fingerprint)
    if predictor.several:
        found = label_outcomes(predictor, dataset, how)
        told = evaluation_of_several(found, dataset, predictor.thresholds, wanted=wanted, measured=measured)
        return told.with_about(skipped=skipped, **about)

    def asked(images: Dataset) -> Iterator[Answers]:
        return _passes(predictor, images, how)

    concluded = conclude(dataset, asked, predictor.decision, wanted=wanted, measured=measured)
    return concluded.with_about(skipped=skipped, **about)


def outcomes(predictor: ExportedClassifier, dataset: Dataset, how: Pass, only: Sequence[int]) -> Outcomes:
    """What the network makes of every readable image; `only`: the classes that may be answered, empty for all."""
    parts = []
    for found in _passes(predictor, dataset, how):
        within = replace(found, logits=_restricted(found.logits, only))
        parts.append(within.outcomes(predictor.decision.scale.log_scores(within.logits)))
    return Outcomes.join(parts)


def label_outcomes(predictor: ExportedClassifier, dataset: Dataset, how: Pass) -> several.Outcomes:
    """The same where an image may have several labels."""
    return several.Outcomes.join(
        [
            several.Outcomes.of(each.logits, each.label.astype(np.int8), each.index)
            for each in _passes(predictor, dataset, how)
        ]
    )


def _passes(predictor: ExportedClassifier, dataset: Dataset, how: Pass) -> Iterator[Answers]:
    """The logits of every readable image, a batch at a time.

    Raises DataError where none is, ConvNeXtError for an attack, which needs gradients.
    """
    if how.attack is not None:
        raise ConvNeXtError(f"'{predictor.source}' has no gradients to attack it by. Name the run that it was made of.")
    count, seen = len(dataset.entries), 0

    def read(places: range) -> Shown:
        return shown(dataset, predictor.recipe.input, places, how.change)

    batches = in_batches(read, count, how.batch or BATCH, how.workers)
    with watched(batches, count, shown=how.progress) as passing:
        for found in passing:
            note_skipped(found.skipped.items(), {} if how.skipped is None else how.skipped)
            seen += len(found.indices)
            if found.indices:
                logits = predictor.logits(found.images)
                for index, row in zip(found.indices, logits, strict=True):
                    require_numbers(row, dataset.entries[index].path, predictor.source)
                yield Answers(np.array(found.indices, np.int64), dataset.labels(found.indices), logits)
    if not seen:
        raise DataError(f"None of the {count} images to evaluate on could be read.")


def _restricted(logits: Floats, only: Sequence[int]) -> Floats:
    """(N, K) logits with every class that is not in `only` at minus infinity; as they are where `only` is empty."""
    if not only:
        return logits
    out = np.full_like(logits, -np.inf)
    out[:, list(only)] = logits[:, list(only)]
    return out
