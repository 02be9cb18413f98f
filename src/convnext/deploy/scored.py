"""What a trained detector or segmenter scores on annotated images."""

from pathlib import Path
from typing import Any

from convnext.data.annotated_preflight import preflight_dense
from convnext.data.opening import recognise
from convnext.deploy.evaluation import Evaluation
from convnext.deploy.predictor import Predictor
from convnext.deploy.trained import answering
from convnext.engine.records import info
from convnext.tasks.dense_scoring import open_scored
from convnext.tasks.train_dense import TASKS


def dense_evaluation(
    predictor: Predictor[Any],
    data: str | Path,
    part: str | None,
    images: str | Path | None,
    form: str | None,
    *,
    workers: int,
    progress: bool,
    **ways: Any,
) -> Evaluation:
    """`predictor.evaluate` of both; `ways` are those of the task's report."""
    recipe, metadata = predictor.recipe, predictor.metadata
    source = recognise(data, images, form=form, annotated=True)
    dataset = open_scored(source, recipe, metadata, part=part)
    for line in preflight_dense(dataset, workers=max(0, workers)).lines:
        info(line)
    skipped: dict[str, str] = {}
    with answering(recipe, predictor.device):
        result = TASKS[recipe.task].report(
            predictor.model, dataset, recipe, workers=workers, skipped=skipped, progress=progress, **ways
        )
    result |= {"skipped": skipped, "weights": metadata.get("weights", "raw"), **ways}
    result.pop("details", None)  # what only the page of a run needs
    return Evaluation(result)
