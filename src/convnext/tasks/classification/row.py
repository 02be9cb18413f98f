"""What the road of all tasks asks of classification."""

from convnext.models.weights import load_weights
from convnext.tasks.classification import build, facts, scoring, transfer
from convnext.tasks.classification.task import Classification
from convnext.tasks.table import Row

ROW = Row(
    build=build.build,
    load=load_weights,
    task=Classification,
    carry_out=transfer.carry_out,
    evaluation=scoring.evaluation,
    fitted=facts.fitted,
    fingerprint=facts.fingerprint,
    counts=facts.counts,
    classes="model.classes",
    hold_out="Add val/<class>/ with some, give each class two images or more, or raise --val-share.",
)
