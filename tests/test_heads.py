"""A head is chosen by its `kind`: its own fields, its name for people, its place on the backbone; here with a second one."""

from typing import Annotated, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from commands import convnext
from convnext.cli import VERBS, train
from convnext.cli.options import fields_apart, parser_of
from convnext.config import (
    TASKS,
    ConvNeXtConfig,
    DetectorHeadConfig,
    SegmentationHeadConfig,
    SegmentationRecipe,
    UperNetConfig,
    fields_of,
    override,
    title_of,
)
from convnext.config.base import Whole, about
from convnext.errors import ConvNeXtError
from convnext.recipes import FITTED, recipe
from convnext.tasks.detection import detector
from convnext.tasks.segmentation import segmenter
from convnext.tasks.segmentation.parts import Classify, ConvNorm
from convnext.tasks.segmentation.segmenter import Segmenter

DATA = {"images": 12, "image_px": 40, "classes": 3}
TINY = ConvNeXtConfig(depths=(1, 1, 1, 1), widths=(8, 12, 16, 24), layer_scale=0.5, classes=0)


class PlainConfig(SegmentationHeadConfig):
    """Convolutions on the last stage."""

    title = "Plain"
    kind: Annotated[Literal["plain"], about("name", "which head stands on the backbone")] = "plain"
    convolutions: Annotated[Whole, about("layers", "3x3 convolutions on the last stage")] = 2


class EitherRecipe(SegmentationRecipe):
    """A segmenter of one of two kinds."""

    head: Annotated[UperNetConfig | PlainConfig, Field(discriminator="kind")] = UperNetConfig()


class PlainHead(nn.Module):
    """What `PlainConfig` means, with one convolution."""

    stages = (-1,)

    def __init__(self, widths: tuple[int, ...], config: PlainConfig):
        super().__init__()
        self.conv = ConvNorm(widths[-1], config.width, 3, config.norm)
        self.classify = Classify(config.width, config)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.classify(self.conv(maps[-1]))


def small() -> EitherRecipe:
    return EitherRecipe(**recipe("small_segmentation", "atto", **DATA).model_dump())


@pytest.fixture
def either(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line, with both kinds."""
    monkeypatch.setitem(TASKS, "segmentation", EitherRecipe)
    whole = FITTED["segmentation"]["small_segmentation"]
    monkeypatch.setitem(
        FITTED["segmentation"],
        "small_segmentation",
        lambda *names, **facts: EitherRecipe(**whole(*names, **facts).model_dump()),
    )


def test_another_kind_keeps_what_both_heads_have_and_takes_its_own_fields():
    made = override(small(), {"head.norm": "none", "head.aux_weight": 0.25})
    head = override(made, {"head.convolutions": "1", "head.kind": "plain", "head.width": 24}).head
    shared = made.head.model_dump(exclude={"kind", "pool_scales"})
    assert head == PlainConfig(**shared | {"convolutions": 1, "width": 24}) and head.aux_weight == 0.25
    again = override(override(made, {"head.kind": "plain"}), {"head.kind": "upernet"})
    assert again == made and isinstance(again.head, UperNetConfig)
    own = override(made, {"head.pool_scales": "1,2"})
    assert override(own, {"head.kind": "upernet"}) == own  # the same kind: nothing is dropped


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"head.kind": "plian", "head.convolutions": 1},
            "recipe 'small_segmentation': head.kind = 'plian' is refused: it must be one of upernet, plain. "
            "Did you mean 'plain'?",
        ),
        ({"head.kind": None}, "head.kind = None is refused: it must be one of upernet, plain."),
        (
            {"head.kind": "plain", "head.pool_scales": "1,2"},
            "'head.pool_scales' is for head.kind upernet, and this is plain. Did you mean 'head.",
        ),
        ({"head.convolutions": 1}, "'head.convolutions' is for head.kind plain, and this is upernet. Did you mean '"),
        (
            {"head.kind": "plain", "head.convolution": 1},
            "No recipe field is called 'head.convolution'. Did you mean 'head.convolutions'?",
        ),
        ({"head.kind": "plain", "head.convolutions": 0}, "head.convolutions = 0 is refused: it must be 1 or more."),
    ],
)
def test_a_wrong_kind_or_a_field_of_the_other_is_refused_by_name(changes, message):
    with pytest.raises(ConvNeXtError) as error:
        override(small(), changes)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_kinds_with_the_same_fields_keep_all_of_them():
    made = override(recipe("small_detection", "atto", **DATA), {"head.score": 0.2, "head.kind": "cascade"})
    assert made.head.kind == "cascade" and made.head.score == 0.2
    with pytest.raises(ConvNeXtError, match=r"head\.kind = 'upernet' is refused: it must be one of mask_rcnn, cascade"):
        override(made, {"head.kind": "upernet"})


@pytest.mark.parametrize("task", [None, "segmentation"])
def test_the_command_line_takes_the_fields_of_the_kind_that_it_names(either, task):
    line = ["train", "MASKS", "--head.kind", "plain", "--head.convolutions", "1"]
    fields, others = fields_apart(line)
    args, rest = parser_of(VERBS).parse_known_args(others)
    assert train.check(args, fields + rest, task) == {"head.kind": "plain", "head.convolutions": "1"}
    wrong = convnext(*line, "--head.pool_scales", "1,2").line
    assert wrong.startswith("'head.pool_scales' is for head.kind upernet, and this is plain. Did you mean 'head.")
    assert convnext(*line[:-2], "--head.convolution", "1").line == (
        "No option or recipe field is called '--head.convolution'. Did you mean '--head.convolutions'?"
    )


def test_a_field_of_the_other_kind_is_refused_before_the_data_are_read(either, tmp_path):
    wrong = convnext("train", tmp_path / "none", "--head.convolutions", "1").line
    assert wrong.startswith("'head.convolutions' is for head.kind plain, and this is upernet. Did you mean '")


def test_a_head_has_norms_on_the_stages_that_it_reads_and_every_parameter_gets_a_gradient(monkeypatch):
    monkeypatch.setitem(segmenter.HEADS, "plain", PlainHead)
    for weight, read in ((0.4, {2, 3}), (0.0, {3})):
        model = Segmenter(TINY, PlainConfig(classes=5, width=8, aux_width=4, norm="none", aux_weight=weight))
        assert {i for i, norm in enumerate(model.backbone.norms) if list(norm.parameters())} == read
        logits = model(torch.randn(2, 3, 64, 96))
        assert logits.main.shape == (2, 5, 2, 3) and (logits.aux is None) == (not weight)
        sum(each.square().sum() for each in logits if each is not None).backward()
        assert all(value.grad is not None for value in model.parameters())
        assert model.eval()(torch.randn(1, 3, 64, 96)).shape == (1, 5, 64, 96)
    whole = Segmenter(TINY, UperNetConfig(classes=5, width=8, aux_width=4, norm="none"))
    assert {f"backbone.norms.{i}.weight" for i in range(4)} < set(whole.state_dict())


def test_every_head_has_a_field_kind_for_its_line_and_a_name_for_people():
    for heads, task in ((detector.HEADS, "detection"), (segmenter.HEADS, "segmentation")):
        kinds = {kind: title_of({"kind": kind}) for kind in heads}
        assert all(title and title != kind for kind, title in kinds.items())
        made = recipe(f"small_{task}", "atto", **DATA)
        assert {override(made, {"head.kind": kind}).head.kind for kind in heads} == set(heads)


@pytest.mark.parametrize(
    ("kind", "masks", "title"),
    [
        ("mask_rcnn", True, "Mask R-CNN"),
        ("mask_rcnn", False, "Faster R-CNN"),
        ("cascade", True, "Cascade Mask R-CNN"),
        ("cascade", False, "Cascade R-CNN"),
    ],
)
def test_a_detector_without_masks_is_called_what_its_paper_started_from(kind, masks, title):
    head = DetectorHeadConfig(kind=kind, masks=masks)
    assert head.title == title == title_of(head.model_dump(mode="json"))


def test_a_head_that_is_not_known_is_called_by_its_kind(either):
    assert title_of({"kind": "of_later"}) == "of_later" and title_of({}) == ""
    assert title_of({"kind": "plain", "of_later": 1}) == "Plain"
    assert fields_of(small())["head.kind"] == "upernet"
