"""What a training step of our Mask R-CNN and UperNet costs beside others': its time, and the most memory a process held.

    python benchmarks/dense_cost.py detection [--px 320 448] [--images 2] [--objects 12] [--samples 512] ...
    python benchmarks/dense_cost.py segmentation [--px 512 512] [--images 2] [--precision bf16] ...

Detection: Mask R-CNN beside torchvision's. Both have a ResNet-50 from random weights, a pyramid of 256 channels, the same
anchors, the same numbers of candidates, proposals and samples, 80 classes, and see the same images with the same boxes and
masks. Segmentation: UperNet on ConvNeXt-T with its auxiliary head, 150 classes, beside that of transformers. All take plain
SGD, each in a process of its own, in turn (ours, theirs, ours, theirs, ...): `--rounds` times, `--steps` steps each. Only the
ratios are worth comparing. `cpu_s` is the time that the cores worked, which neighbours on a busy machine disturb less than
the clock. `start_mb` is what a process holds before its first step; what a step adds is the peak less that.
"""

import argparse
import importlib
import importlib.metadata
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext import __version__
from convnext.config import UperNetConfig
from convnext.engine.machine import processor
from convnext.engine.memory import keep_freed_memory
from convnext.engine.update import autocast
from convnext.models.fused import fuse
from convnext.recipes.architectures import architecture
from convnext.tasks.detection.build import detector
from convnext.tasks.detection.types import Targets
from convnext.tasks.segmentation.parts import resized
from convnext.tasks.segmentation.segmenter import Segmenter

RESULTS = Path(__file__).parent / "results" / "dense_cost.jsonl"
CLASSES, CANDIDATES, PROPOSALS = 80, 2000, 1000
LABELS = 150  # of a pixel
_UNIT = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss in a MiB


def main() -> None:
    """Run both `rounds` times in turn and add one line to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=CONTESTANTS)
    parser.add_argument("--px", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--objects", type=int, default=12, help="of each image")
    parser.add_argument("--samples", type=int, default=512, help="proposals of an image that the heads learn from")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: by autocast, for both")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.px = args.px or ((320, 448) if args.task == "detection" else (512, 512))
    if args.contestant:
        print(json.dumps(measure(args)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS[args.task]}
    for _ in range(args.rounds):
        for name, runs in found.items():
            runs.append(alone(name))
            print(f"{name:<12} {json.dumps(runs[-1])}", file=sys.stderr)
    record(args, found)


def alone(name: str) -> dict[str, float]:
    """One contestant in a fresh process."""
    arguments = [sys.executable, *sys.argv, "--contestant", name]
    answer: dict[str, float] = json.loads(
        subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
    )
    return answer


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of the fastest training step, after one that is not counted, and the process's memory in MiB."""
    torch.manual_seed(0)
    keep_freed_memory()  # for both, as the training loop has it
    model, loss = CONTESTANTS[args.task][args.contestant](args)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    seen = scene(args) if args.task == "detection" else labelled(args)
    start_mb = peak_mb()
    wall_s, cpu_s = [], []
    for _ in range(args.steps + 1):
        clock, worked = time.perf_counter(), time.process_time()
        with autocast(args.precision, "cpu"):
            total = loss(*seen)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        wall_s.append(time.perf_counter() - clock)
        cpu_s.append(time.process_time() - worked)
    return {
        "wall_s": round(min(wall_s[1:]), 3),
        "cpu_s": round(min(cpu_s[1:]), 3),
        "peak_mb": round(peak_mb(), 1),
        "start_mb": round(start_mb, 1),
        "params": sum(weight.numel() for weight in model.parameters()),
    }


def peak_mb() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNIT


Contestant = tuple[nn.Module, Callable[..., Tensor]]  # a network, and the loss of what is seen by it


def our_detector(args: argparse.Namespace) -> Contestant:
    """This package's detector, and how it is asked for its losses."""
    model = detector(
        "mask_rcnn_resnet50",
        CLASSES,
        candidates_train=CANDIDATES,
        proposals_train=PROPOSALS,
        roi_samples=args.samples,
        match_low_quality=False,
    )
    model.to(memory_format=torch.channels_last)  # as the training loop has it

    def loss(images: list[Tensor], objects: list[dict[str, Tensor]]) -> Tensor:
        targets = [Targets(each["boxes"], each["labels"], each["masks"]) for each in objects]
        return torch.stack(list(model.losses(images, targets).values())).sum()

    return model.train(), loss


def torchvision_detector(args: argparse.Namespace) -> Contestant:
    """torchvision's, with labels that begin with its background."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=min(args.px),  # it resizes by itself: to what it gets
        max_size=max(args.px),
        rpn_pre_nms_top_n_train=CANDIDATES,
        rpn_post_nms_top_n_train=PROPOSALS,
        box_batch_size_per_image=args.samples,
    )

    def loss(images: list[Tensor], objects: list[dict[str, Tensor]]) -> Tensor:
        found: dict[str, Tensor] = model(images, [{**each, "labels": each["labels"] + 1} for each in objects])
        return torch.stack(list(found.values())).sum()

    return model.train(), loss


def our_segmenter(args: argparse.Namespace) -> Contestant:
    """UperNet on ConvNeXt-T as training has it: the blocks on the kernels, both heads' cross-entropy."""
    head = UperNetConfig(classes=LABELS, norm="batch")
    model = Segmenter(architecture("tiny"), head).to(memory_format=torch.channels_last)
    fuse(model)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits = model(images)
        main, auxiliary = (F.cross_entropy(resized(each.float(), args.px), labels) for each in logits)
        total: Tensor = main + head.aux_weight * auxiliary
        return total

    return model.train(), loss


def transformers_segmenter(args: argparse.Namespace) -> Contestant:
    """The same network of transformers, its images and weights in the memory format that ours have."""
    transformers: Any = importlib.import_module("transformers")  # its own types refuse what its documentation shows
    stages = [f"stage{stage}" for stage in range(1, 5)]
    backbone = transformers.ConvNextConfig(depths=[3, 3, 9, 3], hidden_sizes=[96, 192, 384, 768], out_features=stages)
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=512, num_labels=LABELS, auxiliary_in_channels=384, auxiliary_channels=256
    )
    model = transformers.UperNetForSemanticSegmentation(config).to(memory_format=torch.channels_last)
    return model.train(), lambda images, labels: model(pixel_values=images, labels=labels).loss


CONTESTANTS: dict[str, dict[str, Callable[[argparse.Namespace], Contestant]]] = {
    "detection": {"ours": our_detector, "torchvision": torchvision_detector},
    "segmentation": {"ours": our_segmenter, "transformers": transformers_segmenter},
}


def labelled(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Images of noise and a label for each pixel, (N, 3, H, W) and (N, H, W); the same for both."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(args.images, 3, *args.px, generator=random).to(memory_format=torch.channels_last)
    return images, torch.randint(0, LABELS, (args.images, *args.px), generator=random)


def scene(args: argparse.Namespace) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of noise with objects that are ellipses of many sizes; the same for both."""
    random = torch.Generator().manual_seed(0)
    height, width = args.px
    images = [torch.rand(3, height, width, generator=random) for _ in range(args.images)]
    return images, [_objects(args.objects, height, width, random) for _ in images]


def _objects(count: int, height: int, width: int, random: torch.Generator) -> dict[str, Tensor]:
    sampled = torch.rand(count, 4, generator=random)
    sides = (sampled[:, 2:] * 0.45 + 0.05) * min(height, width)  # (count, 2) width, height
    corners = sampled[:, :2] * (torch.tensor([width, height]) - sides)
    boxes = torch.cat([corners, corners + sides], 1)
    centre, half = corners + sides / 2, sides / 2
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    across = ((x - centre[:, :1]) / half[:, :1]) ** 2  # (count, width)
    down = ((y - centre[:, 1:]) / half[:, 1:]) ** 2  # (count, height)
    masks = (across[:, None] + down[:, :, None] <= 1).to(torch.uint8)
    return {"boxes": boxes, "labels": torch.randint(0, CLASSES, (count,), generator=random), "masks": masks}


def record(args: argparse.Namespace, found: dict[str, list[dict[str, float]]]) -> None:
    """Print and keep the fastest step and the highest peak of each, and ours as a ratio to the other's."""
    chosen = {
        name: {key: (max if key.endswith("_mb") else min)(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    of_objects = ("objects", "samples") if args.task == "detection" else ()
    (peer,) = set(chosen) - {"ours"}
    row: dict[str, Any] = {
        "task": args.task,
        "px": list(args.px),
        "precision": args.precision,
        **{key: getattr(args, key) for key in ("images", *of_objects, "steps", "rounds")},
        **chosen,
        "ratio": {key: round(chosen["ours"][key] / chosen[peer][key], 3) for key in chosen["ours"]},
        "runs": found,
        "command": " ".join(["python", "benchmarks/dense_cost.py", *sys.argv[1:]]),
        "threads": torch.get_num_threads(),
        "device_name": processor(),
        "versions": {"torch": torch.__version__, peer: importlib.metadata.version(peer), "convnext": __version__},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
