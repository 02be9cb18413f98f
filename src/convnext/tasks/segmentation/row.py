"""What the road of all tasks asks of segmentation."""

from functools import partial

from convnext.tasks import annotated
from convnext.tasks.segmentation import adjusting, build, checkpoint_names, facts, scoring
from convnext.tasks.segmentation.task import Segmentation
from convnext.tasks.table import Row
from convnext.tasks.weights import load_annotated

ROW = Row(
    build=build.build,
    load=partial(load_annotated, load_official=checkpoint_names.load_official, layers=checkpoint_names.LAYERS),
    task=Segmentation,
    carry_out=adjusting.carry_out,
    evaluation=scoring.evaluation,
    final=scoring.evaluation,
    fitted=facts.fitted,
    told=facts.balance_line,
    fingerprint=facts.fingerprint,
    counts=annotated.counts,
    classes="head.classes",
    hold_out="Name some with --val, or raise --val-share.",
)
