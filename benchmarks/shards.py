"""Reading from shards beside class folders, webdataset and timm's reader; and what 1.3 million entries take in memory.

    python benchmarks/shards.py [FOLDER] [--images 400] [--batch 64] [--workers N] [--rounds 5] [--seconds 6]
    python benchmarks/shards.py --memory [--entries 1300000] [--readers 8]

The first writes FOLDER (class folders of JPEGs; without it photograph-like images of about 500 x 375 px are made) as shards
of 100 images, and lets everyone make the same of the same images: random resized crop to 224 px, flip, normalised batches.
Turns, rounds and columns are those of benchmarks/loader.py; only ratios of the same round are worth comparing. webdataset
and timm's reader go through the tar files from the front and shuffle in a buffer; we read each image at its place.

The second opens so many entries, starts so many processes as a DataLoader does, lets each of them go through its share in
random order, asking for name, label and place, and adds up what all of them hold (PSS: shared pages once). Beside it the
usual form: a Python list of (path, label, shard, place, size).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convnext.config import Recipe
from convnext.data.labelled import Entries
from convnext.data.loader import train_batches
from convnext.data.opening import open_labelled, recognise
from convnext.data.shards.index import Member, files_of, packed, unpacked
from convnext.data.stores.place import mapped
from convnext.data.transforms import normalise
from convnext.engine.environment import environment
from convnext.engine.memory import keep_freed_memory
from convnext.files import to_json
from loader import asked_for, quotients, rate, torchvision_transforms, write_images

RESULTS = Path(__file__).parent / "results" / "shards.jsonl"
SIDE_PX = 224
BUFFER = 100  # images that webdataset shuffles among


def main() -> None:
    """Measure one of both and append a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn, after its first batch")
    parser.add_argument("--only", choices=(*READERS, *HOLDERS), help="one turn: print what it says")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--entries", type=int, default=1_300_000)
    parser.add_argument("--readers", type=int, default=8)
    args = parser.parse_args()
    if args.only in HOLDERS:
        print(held_mb(HOLDERS[args.only](args.entries), args))
    elif args.only:
        print(*rate(READERS[args.only](args.folder, args), args.seconds))
    elif args.memory:
        memory(args)
    else:
        throughput(args)


def throughput(args: argparse.Namespace) -> None:
    """Everyone in turn, forwards and backwards, `rounds` times."""
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "images" / "train"
        made.mkdir(parents=True)
        folder = args.folder or write_images(made, args.images).parent
        shards = Path(place) / "shards"
        command = [sys.executable, "-m", "convnext", "shard", str(folder), str(shards), "--images-per-shard", "100"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in READERS}
        for number in range(args.rounds):
            for name in list(READERS) if number % 2 == 0 else reversed(READERS):
                source = folder if name in ("folders", "timm folders") else shards
                images_per_s, cpu_ms = turn(name, args, str(source)).split()
                turns[name].append((float(images_per_s), float(cpu_ms)))
                print(f"{name:<14} {float(images_per_s):7.1f} images/s {float(cpu_ms):6.3f} ms", file=sys.stderr)
    rates = {name: [each[0] for each in found] for name, found in turns.items()}
    times = {name: [each[1] for each in found] for name, found in turns.items()}
    others = [name for name in turns if name != "shards"]
    row = {
        "question": "throughput",
        "images_per_s": {name: round(statistics.median(found), 1) for name, found in rates.items()},
        "cpu_ms_per_image": {name: round(statistics.median(found), 3) for name, found in times.items()},
        "as_fast_as": {name: quotients(rates["shards"], rates[name]) for name in others},
        "as_little_cpu_as": {name: quotients(times[name], times["shards"]) for name in others},
        "images": str(args.folder.name) if args.folder else f"{args.images} made",
    }
    keep(row | {"size_px": SIDE_PX, "batch": args.batch, "workers": args.workers, "rounds": args.rounds})


def memory(args: argparse.Namespace) -> None:
    """Ours and a list, each in processes of their own."""
    found = {name: float(turn(name, args)) for name in HOLDERS}
    own = {name: found[name] - found["nothing"] for name in ("ours", "list")}  # without Python and its packages
    row = {"question": "memory", "mb": found, "of_a_list": round(own["ours"] / own["list"], 3)}
    keep(row | {"entries": args.entries, "readers": args.readers})


def turn(name: str, args: argparse.Namespace, *more: str) -> str:
    """What one turn in a new process prints."""
    names = ("batch", "workers", "seconds", "entries", "readers")
    options = [word for key in names for word in (f"--{key}", str(getattr(args, key)))]
    command = [sys.executable, __file__, *more, *options, "--only", name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def keep(row: dict[str, Any]) -> None:
    """Print a row and append it, with the machine."""
    facts = environment(torch.device("cpu"))
    row |= {key: facts[key] for key in ("processor", "cores", "torch", "git") if key in facts}
    row["command"] = " ".join(["python", *sys.argv])
    print(to_json(row))
    with RESULTS.open("a") as file:
        file.write(to_json(row) + "\n")


def plain(batch: int) -> Recipe:
    """Crop and flip alone: what is compared is the reading."""
    made = asked_for(batch)
    return made.model_copy(update={"augment": made.augment.model_copy(update={"rand_augment": ""})})


def ours(folder: Path, args: argparse.Namespace) -> Iterator[torch.Tensor]:
    """As `convnext train` reads class folders, or shards; no cache."""
    keep_freed_memory()
    made, dataset = plain(args.batch), open_labelled(recognise(folder, annotated=False), split="train")
    per_epoch = max(1, len(dataset.entries) // args.batch)
    how: dict[str, Any] = {"steps": range(1_000_000), "steps_per_epoch": per_epoch, "size_at": lambda _: SIDE_PX}
    for batch in train_batches(dataset, made, **how, workers=args.workers, cache="off"):
        yield normalise(batch.images, made.input)


def webdataset_loader(folder: Path, args: argparse.Namespace) -> Iterator[torch.Tensor]:
    """webdataset's pipeline with torchvision's transforms, as its documentation has it."""
    import webdataset
    from torchvision.transforms import v2

    transform = v2.Compose(torchvision_transforms(plain(args.batch)))
    names = sorted(str(file) for file in folder.glob("train-*.tar"))
    images = webdataset.WebDataset(names, resampled=True, shardshuffle=False).shuffle(BUFFER).decode("pil")
    images = images.to_tuple("jpg", "cls").map_tuple(transform, int).batched(args.batch)
    for x, _ in webdataset.WebLoader(images, batch_size=None, num_workers=args.workers):
        yield x


def timm_loader(folder: Path, args: argparse.Namespace) -> Iterator[torch.Tensor]:
    """timm.data.create_loader over class folders, or over tar files by its own reader."""
    from timm.data import create_dataset, create_loader

    made, tars = plain(args.batch), (folder / "_info.json").exists()
    how = {"is_training": True, "batch_size": args.batch}
    root = str(folder) if tars else str(folder / "train")
    images = create_dataset("wds/" if tars else "", root=root, split="train", **how)
    loader = create_loader(
        images,
        input_size=(3, SIDE_PX, SIDE_PX),
        **how,
        interpolation="bicubic",
        color_jitter=0.0,
        mean=made.input.mean,
        std=made.input.std,
        num_workers=args.workers,
        device=torch.device("cpu"),
        persistent_workers=args.workers > 0,
    )
    while True:
        for x, _ in loader:
            yield x


READERS: dict[str, Callable[[Path, argparse.Namespace], Iterator[torch.Tensor]]] = {
    "shards": ours,
    "folders": ours,
    "webdataset": webdataset_loader,
    "timm tar": timm_loader,
    "timm folders": timm_loader,
}


def names_of(count: int) -> Iterator[str]:
    """Names as ImageNet-1k has them."""
    for number in range(count):
        label = number * 1000 // count
        yield f"train/n{label:08d}/n{label:08d}_{number:06d}.JPEG"


def in_arrays(count: int) -> Callable[[int], object]:
    """Ours: the index of shards, and the entries of a data set."""
    members = {name: Member(n // 2000, 110_000 * n, 110_000, n) for n, name in enumerate(names_of(count))}
    with tempfile.TemporaryFile() as made:  # as a run maps it; what it took to make it is not counted
        made.write(packed([files_of(members, count, (), members)]))
        made.flush()
        (files,) = unpacked(mapped(made))
    del members
    entries = Entries(files.names, np.arange(count, dtype=np.int64) * 1000 // count)

    def look(place: int) -> object:
        entry = entries[place]
        row = files.find(entry.path)
        assert row is not None
        return entry.label, files.member(row)

    return look


def in_a_list(count: int) -> Callable[[int], object]:
    """A tuple for each."""
    rows = [
        (name, n * 1000 // count, f"train-{n // 2000:06d}.tar", 110_000 * n, 110_000)
        for n, name in enumerate(names_of(count))
    ]
    return lambda place: [len(str(part)) for part in rows[place]]


HOLDERS: dict[str, Callable[[int], Callable[[int], object]]] = {
    "ours": in_arrays,
    "list": in_a_list,
    "nothing": lambda _: lambda place: place,
}


def held_mb(look: Callable[[int], object], args: argparse.Namespace) -> float:
    """MB that this process and `readers` forked ones hold together, once each has looked at its share."""
    shares = np.array_split(np.random.default_rng(0).permutation(args.entries), args.readers)
    pipes = []
    for share in shares:
        ours_end, theirs = os.pipe(), os.pipe()
        if not os.fork():
            for place in share.tolist():
                look(place)
            os.write(ours_end[1], b"1")
            os.read(theirs[0], 1)  # all are asked while all are there
            os.write(ours_end[1], f"{pss_mb():.1f}".encode().ljust(16))
            os.read(theirs[0], 1)
            os._exit(0)
        pipes.append((ours_end[0], theirs[1]))
    for read, _ in pipes:
        os.read(read, 1)
    for _, write in pipes:
        os.write(write, b"1")
    total = pss_mb() + sum(float(os.read(read, 16)) for read, _ in pipes)
    for _, write in pipes:
        os.write(write, b"1")
    for _ in pipes:
        os.wait()
    return round(total, 1)


def pss_mb() -> float:
    """What this process holds, shared pages divided among those that share them."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    main()
