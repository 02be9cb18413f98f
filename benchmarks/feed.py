"""Processor time of reading and augmenting an image, and the cores that feed a network of so many images per second.

    python benchmarks/feed.py [--images 96] [--sizes 500 1000 2000] [--needs 1000 2500 5000 8000] [--rounds 3]

Only what the processes that read do is counted: open, decode, random resized crop to 224 px, flip and RandAugment of the
recipe `imagenet1k`, up to the batch that they hand over; ours and timm's hand over uint8 and leave the normalisation to the
device, torchvision's transforms normalise. Each turn reads every image once in a process of its own, with one worker, and the
loaders take turns, forwards and backwards. Processor time suffers less from neighbours than rates do, and ratios of a
round least. The images are made: photograph-like JPEGs, `--sizes` pixels wide and three quarters of that high.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convnext.data.loader import train_batches
from convnext.data.opening import open_labelled, recognise
from convnext.engine.environment import environment
from loader import CLASSES, SIDE_PX, asked_for, mend_posterize, quotients, torchvision_transforms, write_images

RESULTS = Path(__file__).parent / "results" / "feed.jsonl"
BATCH = 16
MADE_PX = 500  # the width of what `write_images` makes


def main() -> None:
    """Measure every loader on every size, and append a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000], help="multiples of 500 px wide")
    parser.add_argument("--needs", type=int, nargs="+", default=[1000, 2500, 5000, 8000], help="images per second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=READERS, help="one turn of this loader: print its ms an image")
    args = parser.parse_args()
    if args.only:
        print(read_ms(READERS[args.only](args.folder)))
        return
    for width in args.sizes:
        with tempfile.TemporaryDirectory() as place:
            folder = write_images(Path(place), args.images)
            enlarge(folder, width // MADE_PX)
            found: dict[str, list[float]] = {name: [] for name in READERS}
            for number in range(args.rounds):
                for name in list(READERS) if number % 2 == 0 else reversed(READERS):
                    command = [sys.executable, __file__, str(folder), "--only", name]
                    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    found[name].append(float(told.split()[-1]))
                    print(f"{width:5} px {name:<12} {found[name][-1]:7.2f} ms an image", file=sys.stderr)
            record(args, width, found)


def read_ms(batches: Iterator[Any]) -> float:
    """Milliseconds of processor time of the processes that read, an image: from their start to their end."""
    images = sum(len(batch) for batch in batches)
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (times.ru_utime + times.ru_stime) / images * 1e3


def enlarge(folder: Path, times: int) -> None:
    """Every image so many times as wide and as high, with as much detail in each of its pixels."""
    for file in sorted(folder.rglob("*.jpg")) if times > 1 else []:
        pixels = np.asarray(Image.open(file))
        Image.fromarray(np.tile(pixels, (times, times, 1))).save(file, quality=92)


def ours(folder: Path) -> Iterator[Any]:
    """As `convnext train` reads, without its cache: every image is decoded as in the other two."""
    made, dataset = asked_for(BATCH), open_labelled(recognise(folder, annotated=False), split="train")
    steps = len(dataset.entries) // BATCH
    how: dict[str, Any] = {"steps": range(steps), "steps_per_epoch": steps, "size_at": lambda _: SIDE_PX}
    for batch in train_batches(dataset, made, **how, workers=1, cache="off"):
        yield batch.images


def timm_reader(folder: Path) -> Iterator[Any]:
    """timm's transform and collation for its prefetching loader, which normalises on the device."""
    from timm.data import create_dataset, create_transform
    from timm.data.loader import fast_collate

    made = asked_for(BATCH)
    mend_posterize()
    dataset = create_dataset("", root=str(folder))
    dataset.transform = create_transform(
        (3, SIDE_PX, SIDE_PX),
        is_training=True,
        use_prefetcher=True,
        auto_augment=made.augment.rand_augment,
        interpolation="bicubic",
        mean=made.input.mean,
        std=made.input.std,
    )
    yield from _images(dataset, fast_collate)


def torchvision_reader(folder: Path) -> Iterator[Any]:
    """ImageFolder and torchvision.transforms.v2, as its reference scripts for classification have them."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose(torchvision_transforms(asked_for(BATCH)))
    yield from _images(ImageFolder(str(folder), transform), None)


def _images(dataset: Any, collate: Callable[..., Any] | None) -> Iterator[Any]:
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, drop_last=True, num_workers=1, collate_fn=collate
    )
    for images, _ in loader:
        yield images


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    "convnext": ours,
    "timm": timm_reader,
    "torchvision": torchvision_reader,
}


def record(args: argparse.Namespace, width: int, found: dict[str, list[float]]) -> None:
    """Print and keep medians, ours as a ratio to each of the others by round, and the cores that each need would take."""
    middle = {name: statistics.median(times) for name, times in found.items()}
    others = [name for name in found if name != "convnext"]
    facts = environment(torch.device("cpu"))
    row = {
        "width_px": width,
        "ms_per_image": {name: round(ms, 3) for name, ms in middle.items()},
        "images_per_s_and_core": {name: round(1e3 / ms, 1) for name, ms in middle.items()},
        "less_than": {name: quotients(found[name], found["convnext"]) for name in others},
        "cores_for": {
            f"{need}/s": {name: math.ceil(need * ms / 1e3) for name, ms in middle.items()} for need in args.needs
        },
        "rounds": args.rounds,
        "images": args.images,
        "classes": CLASSES,
        "load": round(os.getloadavg()[0], 1),
        **{name: facts[name] for name in ("processor", "cores", "torch", "torchvision", "timm", "pillow", "command")},
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
