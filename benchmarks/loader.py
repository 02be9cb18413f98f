"""Images per second that reach the network: our loader beside timm's and torchvision's, the same JPEGs, the same workers.

    python benchmarks/loader.py [FOLDER] [--images 400] [--batch 64] [--workers N] [--rounds 5] [--seconds 6]

Everyone reads the same files and makes of each what the recipe `imagenet1k` asks for: random resized crop to 224 px with
bicubic interpolation, flip, RandAugment 'rand-m9-mstd0.5-inc1', normalised float32 batches with random erasing 0.25. The
loaders take turns, forwards and backwards, each turn in a process of its own, and only ratios of the same round are worth
comparing. Beside the rate stands the processor's time an image, of all processes, which suffers less from neighbours.
Without FOLDER (class folders of JPEGs), photograph-like images of about 500 x 375 px are made first, in a temporary folder.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convnext.config import Recipe
from convnext.data.augment import posterize
from convnext.data.loader import train_batches
from convnext.data.mix import mix
from convnext.data.opening import open_labelled, recognise
from convnext.data.transforms import normalise
from convnext.engine.environment import environment
from convnext.engine.memory import keep_freed_memory
from convnext.recipes import PUBLISHED

RESULTS = Path(__file__).parent / "results" / "loader.jsonl"
SIDE_PX = 224
CLASSES = 10


def main() -> None:
    """Run every loader `rounds` times in turn and append one line with medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn, after its first batch")
    parser.add_argument("--only", choices=LOADERS, help="one turn of this loader: print its images per second")
    args = parser.parse_args()
    if args.only:
        print(*rate(LOADERS[args.only](args.folder, args), args.seconds))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = args.folder or write_images(Path(place), args.images)
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADERS}
        for number in range(args.rounds):
            for name in list(LOADERS) if number % 2 == 0 else reversed(LOADERS):
                turns[name].append(turn(name, folder, args))
                print(f"{name:<12} {turns[name][-1][0]:7.1f} images/s {turns[name][-1][1]:6.3f} ms", file=sys.stderr)
        record(args, turns)


def turn(name: str, folder: Path, args: argparse.Namespace) -> tuple[float, float]:
    """What `rate` says of one loader in a new process: nobody gains by what another left behind."""
    arguments = {"--batch": args.batch, "--workers": args.workers, "--seconds": args.seconds, "--only": name}
    command = [sys.executable, __file__, str(folder), *(str(part) for pair in arguments.items() for part in pair)]
    images_per_s, cpu_ms = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(images_per_s), float(cpu_ms)


def rate(batches: Iterator[torch.Tensor], seconds: float) -> tuple[float, float]:
    """Images per second after the first batch, whole batches, for at least `seconds`; ms of processor time an image.

    The processes that read are counted from their start to their end, with the first batch and what they read ahead.
    """
    first = len(next(batches))
    started, own, seen = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        seen += len(next(batches))
    took, own = time.perf_counter() - started, time.process_time() - own
    batches.close()  # type: ignore[attr-defined] # ends its workers
    gc.collect()
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seen / took, (own / seen + (times.ru_utime + times.ru_stime) / (seen + first)) * 1e3


def ours(folder: Path, args: argparse.Namespace) -> Iterator[torch.Tensor]:
    """As `convnext train` reads; no cache, so that every image is decoded each time as in the other two."""
    keep_freed_memory()  # as the loop does
    made, dataset = asked_for(args.batch), open_labelled(recognise(folder, annotated=False), split="train")
    steps, per_epoch = range(1_000_000), max(1, len(dataset.entries) // args.batch)
    batches = train_batches(
        dataset,
        made,
        steps=steps,
        steps_per_epoch=per_epoch,
        size_at=lambda _: SIDE_PX,
        workers=args.workers,
        cache="off",
    )
    augment = made.augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0})
    for step, batch in enumerate(batches):
        x, _ = mix(normalise(batch.images, made.input), batch.labels, CLASSES, augment, (0, step))
        yield x


def asked_for(batch: int) -> Recipe:
    """The recipe whose transform everyone makes."""
    made = PUBLISHED["classification"]["imagenet1k"]("tiny")
    return made.model_copy(update={"optim": made.optim.model_copy(update={"batch": batch})})


def timm_loader(folder: Path, args: argparse.Namespace) -> Iterator[torch.Tensor]:
    """timm.data.create_loader, as its training script calls it for this recipe."""
    from timm.data import create_dataset, create_loader

    made = asked_for(args.batch)
    mend_posterize()
    loader = create_loader(
        create_dataset("", root=str(folder)),
        input_size=(3, SIDE_PX, SIDE_PX),
        batch_size=args.batch,
        is_training=True,
        re_prob=made.augment.erasing,
        re_mode="pixel",
        auto_augment=made.augment.rand_augment,
        interpolation="bicubic",
        mean=made.input.mean,
        std=made.input.std,
        num_workers=args.workers,
        device=torch.device("cpu"),
        persistent_workers=args.workers > 0,
    )
    while True:
        for x, _ in loader:
            yield x


def mend_posterize() -> None:
    """timm's Posterize down to 0 bits, which Pillow 13 refuses, as in ours: it would end the run."""
    from timm.data import auto_augment

    changed = {name: posterize for name in auto_augment.NAME_TO_OP if name.startswith("Posterize")}
    auto_augment.NAME_TO_OP.update(changed)


def torchvision_transforms(made: Recipe) -> list[Any]:
    """torchvision's transforms of PIL images for this recipe, but for erasing."""
    from torchvision.transforms import InterpolationMode, v2

    randomly = [v2.RandAugment(magnitude=9, interpolation=InterpolationMode.BILINEAR)]
    return [
        v2.RandomResizedCrop(SIDE_PX, interpolation=InterpolationMode.BICUBIC, antialias=True),
        v2.RandomHorizontalFlip(),
        *(randomly if made.augment.rand_augment else []),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(made.input.mean, made.input.std),
    ]


def torchvision_loader(folder: Path, args: argparse.Namespace) -> Iterator[torch.Tensor]:
    """torchvision.transforms.v2 on PIL images, as its reference scripts for classification do; torch's DataLoader."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    made = asked_for(args.batch)
    transform = v2.Compose([*torchvision_transforms(made), v2.RandomErasing(made.augment.erasing)])
    loader = torch.utils.data.DataLoader(
        ImageFolder(str(folder), transform),
        args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )
    while True:
        for x, _ in loader:
            yield x


LOADERS: dict[str, Callable[[Path, argparse.Namespace], Iterator[torch.Tensor]]] = {
    "convnext": ours,
    "timm": timm_loader,
    "torchvision": torchvision_loader,
}


def write_images(folder: Path, count: int) -> Path:
    """JPEGs with the detail of photographs: noise whose strength falls with its frequency, edges, and a sensor's grain."""
    for number in range(count):
        rng = np.random.default_rng(number)
        height, width = (375, 500) if number % 4 else (500, 375)
        planes = np.stack([spectrum(rng, height, width) for _ in range(3)], 2)
        shared = spectrum(rng, height, width)[:, :, None]
        pixels = 128 + 45 * shared + 18 * planes + rng.normal(0, 3, planes.shape)
        for _ in range(12):
            top, left = rng.integers(height - 40), rng.integers(width - 40)
            tall, wide = rng.integers(20, 160, 2)
            pixels[top : top + tall, left : left + wide] += rng.normal(0, 35, 3)
        place = folder / f"{number % CLASSES:02d}"
        place.mkdir(exist_ok=True)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(place / f"{number:05d}.jpg", quality=92)
    return folder


def spectrum(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width) of variance 1 whose amplitude falls as 1 / frequency, as in natural scenes."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    shown = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) * fall, (height, width))
    return (shown - shown.mean()) / shown.std()


def record(args: argparse.Namespace, turns: dict[str, list[tuple[float, float]]]) -> None:
    """Print and keep the medians, and ours as a ratio to each of the others, round by round."""
    rates = {name: [each[0] for each in found] for name, found in turns.items()}
    times = {name: [each[1] for each in found] for name, found in turns.items()}
    others = [name for name in turns if name != "convnext"]
    faster = {name: quotients(rates["convnext"], rates[name]) for name in others}
    lighter = {name: quotients(times[name], times["convnext"]) for name in others}
    facts = environment(torch.device("cpu"))
    row = {
        "images_per_s": {name: round(statistics.median(found), 1) for name, found in rates.items()},
        "cpu_ms_per_image": {name: round(statistics.median(found), 3) for name, found in times.items()},
        "faster_than": {name: statistics.median(found) for name, found in faster.items()},
        "less_cpu_than": {name: statistics.median(found) for name, found in lighter.items()},
        "rounds": {"faster_than": faster, "less_cpu_than": lighter},
        "images": f"{args.images} made" if args.folder is None else args.folder.name,
        "size_px": SIDE_PX,
        "batch": args.batch,
        "workers": args.workers,
        **{name: facts[name] for name in ("processor", "cores", "torch", "torchvision", "timm", "pillow")},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


def quotients(above: list[float], below: list[float]) -> list[float]:
    """Round by round."""
    return [round(a / b, 3) for a, b in zip(above, below, strict=True)]


if __name__ == "__main__":
    main()
