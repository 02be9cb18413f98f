"""Whole detectors and segmenters on ConvNeXt and other backbones, at the input of arXiv 2201.03545's Tables 3 and 4.

Images are noise and weights are fresh, which speed depends on in one place: how many boxes a detector suppresses, and how
many masks it makes. So a detector keeps the BOXES best-scored boxes of its first image: 100 masks an image, as the paper's.
Axes: N images, H W rows and columns, R proposals, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import ConvNeXtConfig, ModelConfig, TimmConfig, UperNetConfig
from convnext.errors import ConvNeXtError
from convnext.kernels.dispatch import without_kernels
from convnext.models.fused import fuse
from convnext.recipes.architectures import architecture
from convnext.recipes.baselines import plain_name
from convnext.recipes.listing import listed_dense
from convnext.reports.columns import table
from convnext.studies.benchmark.jobs import Job, Settings
from convnext.studies.benchmark.networks import Call
from convnext.studies.benchmark.text import batches_of, rate, rows_of
from convnext.studies.paper import published
from convnext.tasks.convolution import accelerate
from convnext.tasks.detection.box_head import BoxHead
from convnext.tasks.detection.build import detector_values
from convnext.tasks.detection.detector import Detector
from convnext.tasks.detection.types import Images
from convnext.tasks.segmentation.segmenter import Segmenter

KINDS = {"detection": ("mask_rcnn", "cascade"), "segmentation": ("upernet",)}
SIZES_PX = {"detection": 800, "segmentation": 512}  # the paper's shorter side
OTHERS = ("swin_tiny", "resnet50")
_PRINTED = {"Mask R-CNN": "mask_rcnn", "Cascade": "cascade"}
BOXES = 1000  # of an image that go into suppression, all classes together
CLASSES = {"detection": 80, "segmentation": 150}  # COCO, ADE20K


def jobs_of(settings: Settings, others: Sequence[str]) -> list[Job]:
    """For each head ConvNeXt on its kernels and plain, then `others`. Raises ConvNeXtError for an unknown backbone."""
    jobs = []
    for kind in KINDS[settings.task]:
        ours = f"{kind}_{settings.config.name}"
        jobs.append(Job(ours, "ours", "convnext", "fused", settings, ours))
        jobs.append(Job(f"{ours}:eager", "ours", "convnext", "eager", settings, ours))
        for other in map(plain_name, others):
            config: ModelConfig = architecture(other)  # refuses
            if other == settings.config.name:
                raise ConvNeXtError(f"'{other}' is --model already. Leave it out of --others.")
            form = "fused" if isinstance(config, ConvNeXtConfig) else "eager"
            library = "timm" if isinstance(config, TimmConfig) else "convnext"
            jobs.append(Job(f"{kind}_{other}", "other", library, form, settings, f"{kind}_{other}"))
    if len({job.name for job in jobs}) < len(jobs):
        raise ConvNeXtError(f"--others {','.join(others)} names a network twice. Name each once.")
    return jobs


def network(job: Job) -> nn.Module:
    """The contender's detector or segmenter on its device, in evaluation mode. Raises ConvNeXtError without its kernels."""
    settings = job.settings
    torch.manual_seed(0)
    model: Any = _made(job.network, settings)
    model = model.eval().requires_grad_(False).to(settings.device, memory_format=torch.channels_last)
    if job.form == "fused" and not fuse(model):
        raise ConvNeXtError(
            f"the fused blocks do not run here: {without_kernels(torch.device(settings.device)) or 'it has none'}"
        )
    if job.form == "fused":
        accelerate(model)
    if isinstance(model, Detector):
        _keep_boxes(model, _images(settings, 1))
    return model


def inference(job: Job, model: nn.Module) -> Callable[[int], Call]:
    """batch -> the call that answers for it: detections with masks, or logits of every pixel; bf16 by autocast."""
    settings = job.settings
    answer: Any = model.detect if isinstance(model, Detector) else model
    cast, kind = settings.dtype == "bf16", torch.device(settings.device).type

    def of(batch: int) -> Call:
        x = _images(settings, batch)
        given = Images(x, ((x.shape[2], x.shape[3]),) * batch) if isinstance(model, Detector) else x

        def call() -> None:
            with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=cast):
                answer(given)

        return call

    return of


def shape_px(settings: Settings) -> tuple[int, int]:
    """(H, W) for the shorter side that is asked for: 800 x 1280 and 512 x 2048 in the paper."""
    wide = 1.6 if settings.task == "detection" else 4
    return settings.size_px, 32 * max(1, round(settings.size_px * wide / 32))


def with_printed(rows: Sequence[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """The rows with what is counted and printed: 'kind', 'gmacs' (None at another size) and 'paper_fps' of an A100."""
    printed = {
        f"{_PRINTED[str(row.values['detector'])]}_{row.model}": row.values["fps_a100"]
        for row in published.table("3").rows
        if row.trained_on == "1K"
    }
    made = []
    for row in rows:
        if row["kind"] == "contender":
            head = next(each for each in KINDS[settings.task] if row["model"].startswith(f"{each}_"))
            cost = listed_dense(head, row["model"].removeprefix(f"{head}_"), settings.size_px)
            height, width = shape_px(settings)
            row = row | {"head": head, "height_px": height, "width_px": width, "paper_fps": printed.get(row["model"])}
            row["gmacs"] = None if cost is None else round(cost[1] / 1e9, 1)
        made.append(row)
    return made


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each batch and head, each beside ConvNeXt on its kernels, and beside what the paper printed."""
    head = ("network", "img/s", "of it", "lowest", "highest", "ms", "MB", "GMACs", "paper FPS", "of it")
    parts = []
    for batch in batches_of(rows):
        here = rows_of(rows, batch)
        for kind in dict.fromkeys(row["head"] for row in here):
            ours = next((row for row in rows if row.get("head") == kind and row["batch"] == batch), None)
            assert ours is not None
            lines = [_line(row, ours) for row in here if row["head"] == kind]
            parts.append(f"{kind}, batch {batch}, 'of it': of {ours['name']}\n" + table(head, lines))
    return "\n\n".join(parts)


def _line(row: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    pairs = sorted(a / b for a, b in zip(row["rates"], ours["rates"], strict=False))
    ratios = [f"{value:.2f}" for value in (pairs[len(pairs) // 2], pairs[0], pairs[-1])]
    fps, other = row["paper_fps"], ours["paper_fps"]
    printed = [f"{fps:.1f}" if fps else "–", f"{fps / other:.2f}" if fps and other else "–"]
    cost = "–" if row["gmacs"] is None else f"{row['gmacs']:.0f}"
    times = [f"{row['latency_ms']:.0f}", f"{row['peak_mb']:,.0f}"]
    return [row["name"], rate(row["images_per_s"]), *ratios, *times, cost, *printed]


def _made(name: str, settings: Settings) -> nn.Module:
    """'mask_rcnn_', 'cascade_' or 'upernet_', then the backbone: that of the settings, or another by its name."""
    kind = next(each for each in KINDS[settings.task] if name.startswith(f"{each}_"))
    backbone, classes = name.removeprefix(f"{kind}_"), CLASSES[settings.task]
    config = settings.config if backbone == settings.config.name else architecture(backbone)
    config = config.model_copy(update={"classes": 0, "drop_path": 0.0})
    if settings.task == "segmentation":
        return Segmenter(config, UperNetConfig(classes=classes))
    return Detector(config, detector_values(f"{kind}_tiny", classes)[1])


def _images(settings: Settings, batch: int) -> Tensor:
    """(N, 3, H, W) normal noise."""
    x = torch.randn(batch, settings.config.in_channels, *shape_px(settings)).to(settings.device)
    return x.contiguous(memory_format=torch.channels_last)


def _keep_boxes(model: Detector, x: Tensor) -> None:
    """Set the least score to that of the BOXES best boxes of (1, 3, H, W); of a cascade its stages' mean."""
    seen: list[Tensor] = []
    heads = [module for module in model.modules() if isinstance(module, BoxHead)]
    hooks = [head.register_forward_hook(lambda _, __, out: seen.append(out[0])) for head in heads]
    heads_config = model.heads.config
    model.heads.config = heads_config.model_copy(update={"score": 1.0})  # nothing is kept meanwhile
    with torch.inference_mode():
        model.detect(Images(x, ((x.shape[2], x.shape[3]),)))
    for hook in hooks:
        hook.remove()
    scores = (sum(seen[1:], seen[0]) / len(seen)).softmax(-1)[:, :-1].flatten()  # (R * K,)
    least = scores.topk(min(BOXES, len(scores))).values[-1].item()
    model.heads.config = heads_config.model_copy(update={"score": least})
