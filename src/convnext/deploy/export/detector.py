"""A detector as one .onnx file: an image as decoded in; boxes in its own pixels, scores, labels and masks out.

Backbone, pyramid and proposal network, each box head and the mask heads are traced by torch, for any size of image and any
number of boxes; `detector_graph` joins them. Axes: P boxes, C channels, S side of a pooled map, K classes.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from convnext import __version__
from convnext.config import DetectionRecipe
from convnext.deploy.detector import DetectionPredictor
from convnext.deploy.export import detector_graph as between
from convnext.deploy.export.description import KEPT, numbers, promised, read_as
from convnext.deploy.export.nodes import Nodes, floats, halve, wholes
from convnext.deploy.export.onnx import describe
from convnext.deploy.exported.detector import BOXES, FINITE, IMAGES, LABELS, MASKS, SCORES
from convnext.deploy.exported.opened import VERSION
from convnext.deploy.forms.table import SEALED
from convnext.deploy.verify.promises import KEY
from convnext.errors import ConvNeXtError
from convnext.models.fused import unfuse
from convnext.tasks.detection import box_head, mask_head
from convnext.tasks.detection.box_head import BoxHead
from convnext.tasks.detection.boxes import decode
from convnext.tasks.detection.detector import Detector
from convnext.tasks.detection.mask_head import MaskHead, own_masks
from convnext.tasks.detection.rpn import STDS

_MOST_PX, _MOST_BOXES = 2**14, 2**20
_TRACED_PX = 256  # a side of the image that is traced; the graph takes any
_TRACED = 3  # boxes


def write(predictor: DetectionPredictor, path: Path, *, half: bool) -> None:
    """Write the detector of `predictor` to `path`; `half`: its weights in 16 bits.

    Raises ConvNeXtError where torch cannot trace its network.
    """
    proto = detector_model(predictor.model, predictor.recipe)
    if half:
        halve(proto)
    describe(proto, described(predictor, half=half))
    save(proto, path)


def save(proto: Any, path: Path) -> None:
    """Write an onnx.ModelProto to `path`. Raises ConvNeXtError where it is too large."""
    try:
        path.write_bytes(proto.SerializeToString())
    except ValueError:  # what a protocol buffer of more than 2 GB raises
        raise ConvNeXtError("The network does not fit in one ONNX file of 2 GB. Serve the run itself.") from None


def described(predictor: DetectionPredictor, *, half: bool) -> dict[str, Any]:
    """What travels in the file: enough to predict and evaluate as the run does, and for people to use it without us."""
    recipe, metadata = predictor.recipe, predictor.metadata
    config, precision = recipe.input, "fp16" if half else "fp32"
    made, type_ = numbers(config)
    sides = f"shorter side to {config.eval_short_px} px, longer to {config.eval_long_px} px at most"
    masks = {MASKS: "(D, S, S) probabilities inside each box"} if recipe.head.masks else {}
    return {
        "version": VERSION,
        "written_by": f"convnext {__version__}, torch {torch.__version__}",
        "digest": SEALED,
        "precision": precision,
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(predictor.classes),
        "category_ids": list(predictor.category_ids),
        "preprocessing": {
            "input": f"(1, H, W, C) {type_}, {read_as(config)}, as decoded and upright, of any size",
            "inside": f"{sides}, bilinear; {made}; zeros up to multiples of {config.multiple} px",
            "mean": list(config.mean),
            "std": list(config.std),
        },
        "outputs": {
            BOXES: "(D, 4) left, top, right and bottom in pixels of the image",
            SCORES: f"(D,) the best first, above {recipe.head.score:g}",
            LABELS: "(D,) into classes",
            **masks,
            FINITE: "() false where the network answers inf or nan, which finds nothing",
        },
        **{name: metadata[name] for name in KEPT if name in metadata},
        KEY: promised(predictor, precision).to_dict(),
    }


def detector_model(model: Detector, recipe: DetectionRecipe, *, products: bool = False) -> Any:
    """An onnx.ModelProto of `model`, which is left as it is. Raises ConvNeXtError where torch cannot trace it.

    `products`: images are resized by two products, which is slower, and right where a runtime's Resize is not.
    """
    head, network = recipe.head, _plain(model)
    parts: Any = network.heads
    boxes: list[BoxHead] = [parts.box] if head.kind == "mask_rcnn" else list(parts.box)
    strides: tuple[int, ...] = parts.strides
    graph = Nodes()
    least = _whole(max(strides), recipe.input.multiple)
    x, borders, original = between.shown(graph, IMAGES, recipe, least, products=products)
    seen = graph.graft(_seen(network, recipe, least), [x], "network/")
    levels = len(strides) + 1
    maps, scores, moved = seen[: len(strides)], seen[len(strides) : -levels], seen[-levels:]
    places = between.proposals(graph, scores, moved, borders, head)
    checked, logits, found = [*scores, *moved], list[str](), ""
    for number, (each, stage) in enumerate(zip(boxes, head.stages, strict=True)):
        if found:  # the stage before moves them, each by the deltas of its likeliest class
            likely = graph("Slice", logits[-1], wholes(0), wholes(-1), wholes(1))
            chosen = graph("GatherND", found, graph("ArgMax", likely, axis=1, keepdims=1), batch_dims=1)
            places = between.clipped(graph, chosen, borders)
        pooled = between.pooled(graph, maps, strides, places, box_head.POOLED)
        answer, found = graph.graft(_stage(each, stage.stds, head.channels), [pooled, places], f"boxes{number}/")
        logits.append(answer)
        checked += [answer, found]
    mean = logits[0] if len(logits) == 1 else graph("Div", graph("Sum", *logits), floats(len(logits)))
    shown, likely, labels = between.selected(graph, mean, found, borders, head)
    back = between.clipped(graph, graph("Mul", shown, graph("Div", original, borders)), original)
    outputs = {BOXES: back, SCORES: likely, LABELS: labels}
    if head.masks:
        heads: list[MaskHead] = [parts.mask] if head.kind == "mask_rcnn" else list(parts.mask)
        pooled = between.pooled(graph, maps, strides, shown, mask_head.POOLED)
        (outputs[MASKS],) = graph.graft(_masks(heads, head.channels), [pooled, labels], "masks/")
        checked.append(outputs[MASKS])
    outputs[FINITE] = between.finite(graph, checked)
    return _closed(graph, outputs, recipe)


def _closed(graph: Nodes, outputs: dict[str, str], recipe: DetectionRecipe) -> Any:
    kinds, value = graph.onnx.TensorProto, graph.onnx.helper.make_tensor_value_info
    side = 2 * mask_head.POOLED
    types = {
        BOXES: (kinds.FLOAT, ["detections", 4]),
        SCORES: (kinds.FLOAT, ["detections"]),
        LABELS: (kinds.INT64, ["detections"]),
        MASKS: (kinds.FLOAT, ["detections", side, side]),
        FINITE: (kinds.BOOL, []),
    }
    pixel = kinds.FLOAT if recipe.input.wide else kinds.UINT8
    given = [value(IMAGES, pixel, [1, "height", "width", len(recipe.input.mean)])]
    return graph.model(given, [(name, value(called, *types[called])) for called, name in outputs.items()])


def _plain(model: Detector) -> Detector:
    """A copy on the CPU, in float32, without kernels, with plain memory for its weights, which the file is written from."""
    network = copy.deepcopy(model).to("cpu", torch.float32).eval()
    unfuse(network)
    for parameter in network.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return network.requires_grad_(False)


class _Seen(nn.Module):
    """Maps of the pyramid that heads read; of each level logits of its anchors, and the boxes that they become."""

    def __init__(self, model: Detector):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # (1, C, H, W) -> maps, (A,) each, (A, 4) each
        levels = self.model.fpn(self.model.backbone(x))
        scores, deltas = self.model.rpn(levels)
        shapes = [(level.shape[-2], level.shape[-1]) for level in levels]
        anchors = self.model.rpn.anchors.grid(shapes, x.device)
        boxes = [decode(places, moves[0], STDS) for places, moves in zip(anchors, deltas, strict=True)]
        return (*levels[: len(self.model.heads.strides)], *(each[0] for each in scores), *boxes)


class _Stage(nn.Module):
    """One box head: logits, and the box of every class."""

    def __init__(self, head: BoxHead, stds: Sequence[float]):
        super().__init__()
        self.head, self.stds = head, tuple(stds)

    def forward(
        self, pooled: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:  # (P, C, S, S), (P, 4) -> (P, K + 1), (P, K, 4)
        logits, deltas = self.head(pooled)
        return logits, decode(boxes, deltas, self.stds)


class _Masks(nn.Module):
    """The mean of the mask heads' probabilities, each box's of its own class."""

    def __init__(self, heads: Sequence[MaskHead]):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:  # (P, C, S, S), (P,) -> (P, 2S, 2S)
        return torch.stack([own_masks(head(pooled), labels) for head in self.heads]).mean(0)


def _seen(network: Detector, recipe: DetectionRecipe, least: int) -> Any:
    multiple = recipe.input.multiple
    side = _whole(_TRACED_PX, multiple)
    x = torch.zeros(1, len(recipe.input.mean), side, side + multiple)
    how = {"min": least // multiple, "max": _MOST_PX // multiple}
    free = {2: multiple * Dim("rows", **how), 3: multiple * Dim("columns", **how)}
    return _exported(_Seen(network), (x,), ({**free},))


def _stage(head: BoxHead, stds: Sequence[float], channels: int) -> Any:
    some = {0: Dim("boxes", min=1, max=_MOST_BOXES)}
    given = torch.zeros(_TRACED, channels, box_head.POOLED, box_head.POOLED), torch.ones(_TRACED, 4)
    return _exported(_Stage(head, stds), given, (some, some))


def _masks(heads: Sequence[MaskHead], channels: int) -> Any:
    some = {0: Dim("boxes", min=0, max=_MOST_BOXES)}
    given = torch.zeros(_TRACED, channels, mask_head.POOLED, mask_head.POOLED), torch.zeros(_TRACED, dtype=torch.int64)
    return _exported(_Masks(heads), given, (some, some))


def _exported(module: nn.Module, given: tuple[Tensor, ...], free: tuple[dict[int, Any], ...]) -> Any:
    """An onnx.ModelProto of a part whose axes `free` may have any length. Raises ConvNeXtError where torch cannot trace it."""
    try:
        with torch.no_grad():
            program = torch.export.export(module.eval(), given, dynamic_shapes=free)
        made = torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:  # noqa: BLE001 - what torch raises for a network that it cannot trace is of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConvNeXtError(
            f"torch cannot trace this network for images of any size: {reason} Serve the run itself: `convnext serve`."
        ) from None
    assert made is not None
    proto = made.model_proto
    del proto.graph.value_info[:]  # their shapes would keep the names of torch's symbols
    return proto


def _whole(px: int, multiple: int) -> int:
    return -(-px // multiple) * multiple
