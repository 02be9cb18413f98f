"""What the road of all tasks asks of classification."""

from convnext.models.weights import load_weights
from convnext.tasks.classification import build, facts, scoring
from convnext.tasks.classification.task import Classification
from convnext.tasks.table import Row

ROW = Row(
    build=build.build,
    load=load_weights,
    task=Classification,
    evaluation=scoring.evaluation,
    fitted=facts.fitted,
    fingerprint=facts.fingerprint,
    counts=facts.counts,
    classes="model.classes",
    hold_out="Add val/<class>/ with some, give each class two images or more, or raise --val-share.",
)
