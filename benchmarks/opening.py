"""What opening large data costs: a COCO file of the size of train2017, and class folders of ImageNet's size; old beside new.

    python benchmarks/opening.py coco folders [--old f972bdf] [--data DIR] [--repeats 3]

The data are made once below --data, by a fixed seed: 118,000 images with 860,000 annotations in 350 MB of JSON, and 1,300,000
images in 1,000 folders. The images are empty files: opening lists them and never reads one. Each figure is a process of its
own, whose PYTHONPATH is the `src` of its checkout, the two by turns: the processor's and the clock's seconds from the path to
the two parts, as training asks for them, and the highest memory of the process. A digest of all that was opened must be equal.
A line of results/opening.jsonl each.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "opening.jsonl"
SEED, IMAGES, ANNOTATIONS, CLASSES = 0, 118_000, 860_000, 80
FOLDERS, IN_FOLDER = 1_000, 1_300
CROWDS = 0.012  # of annotations, with run lengths in place of polygons


def main() -> int:
    """Make what is missing, measure, append a line for each kind of data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["coco", "folders"])
    parser.add_argument("--old", default="f972bdf", help="commit, or folder of a checkout")
    parser.add_argument("--data", type=Path, default=Path("opening_data"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(opened(args.kinds[0], args.child)))
        return 0
    old = Path(args.old) if Path(args.old).is_dir() else checkout(args.old, args.data)
    for kind in args.kinds:
        place = {"coco": write_coco, "folders": write_folders}[kind](args.data / kind)
        rows: dict[str, list[dict[str, Any]]] = {"old": [], "new": []}
        for _ in range(args.repeats):
            for name, tree in (("old", old), ("new", ROOT)):
                rows[name].append(measured(kind, place, tree))
                print(kind, name, json.dumps(rows[name][-1]), flush=True)
        line = summary(kind, rows, args.old)
        print(json.dumps(line))
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if not line["equal"]:
            return 1
    return 0


def checkout(commit: str, below: Path) -> Path:
    """The files of a commit in a folder of their own."""
    folder = below / f"checkout_{commit}"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "src"], check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def measured(kind: str, place: Path, tree: Path) -> dict[str, Any]:
    """What one process says that opened `place` with the code of `tree`."""
    command = [sys.executable, __file__, kind, "--child", str(place)]
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def opened(kind: str, place: Path) -> dict[str, Any]:
    """In a process of its own: open, then say what it took, then look at all that was opened."""
    opener = {"coco": coco_opener, "folders": folders_opener}[kind]()
    before = memory_mb()
    start, worked = time.perf_counter(), time.process_time()
    splits = opener(place)
    taken = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - worked}
    taken |= {"peak_mb": memory_mb(), "before_mb": before, "held_mb": held_mb()}
    return {key: round(value, 3) for key, value in taken.items()} | {"digest": digest(splits)}


def coco_opener() -> Any:
    """Path -> train and val: by a Source, or as it was before there was one."""
    try:
        from convnext.data.opening import open_dense_splits, recognise
    except ImportError:
        from convnext.data.dense import opening

        return opening.open_dense_splits  # once: a run recognised it twice before
    return lambda place: open_dense_splits(recognise(place))


def folders_opener() -> Any:
    """The same for class folders."""
    try:
        from convnext.data.opening import open_splits, recognise
    except ImportError:
        from convnext.data import source

        return source.open_splits
    return lambda place: open_splits(recognise(place, annotated=False))


def memory_mb() -> float:
    """The most that this process held so far."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 if sys.platform == "linux" else 1024**2)


def held_mb() -> float:
    """What this process holds now, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def digest(splits: Any) -> str:
    """Of every path, label, box, outline and number of both parts."""
    found = hashlib.sha256()
    for part in (splits.train, splits.val):
        found.update(repr(part.classes).encode())
        for entry in part.entries:
            found.update(entry.path.encode())
            objects = getattr(entry, "objects", None)
            if objects is None:
                found.update(str(getattr(entry, "label", "")).encode())
                continue
            found.update(repr((entry.image_id, entry.size)).encode())
            for column in (objects.boxes, objects.labels, objects.crowd, objects.area, objects.ids):
                found.update(column.tobytes())
            for shape in objects.shapes:
                polygons = (
                    ()
                    if shape is None
                    else shape
                    if isinstance(shape, tuple) and not hasattr(shape, "counts")
                    else None
                )
                found.update(shape.counts if polygons is None else b"".join(points.tobytes() for points in polygons))
    return found.hexdigest()[:16]


def write_coco(folder: Path) -> Path:
    """annotations/instances_train2017.json and train2017/*.jpg, empty. The JSON lies in the folder that is opened."""
    file = folder / "annotations" / "instances_train2017.json"
    if file.is_file():
        return folder
    chance = random.Random(SEED)
    (folder / "train2017").mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    images = []
    for number in range(1, IMAGES + 1):
        name = f"{5 * number:012d}.jpg"
        (folder / "train2017" / name).touch()
        size = {"height": chance.randrange(320, 641), "width": chance.randrange(320, 641)}
        images.append(
            {"license": 3, "file_name": name, "coco_url": f"http://example.org/{name}", **size, "id": 5 * number}
        )
    categories = [
        {"supercategory": "thing", "id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)
    ]
    with file.with_suffix(".part").open("w") as out:
        out.write('{"info": {"description": "made by benchmarks/opening.py"}, "images": ')
        json.dump(images, out)
        out.write(', "annotations": [')
        for number in range(1, ANNOTATIONS + 1):
            out.write((", " if number > 1 else "") + json.dumps(annotation(number, chance.choice(images), chance)))
        out.write(f'], "categories": {json.dumps(categories)}}}')
    file.with_suffix(".part").rename(file)
    return folder


def annotation(number: int, image: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A polygon with as many points as makes 350 MB of all; a few crowds."""
    height, width = image["height"], image["width"]
    x, y = chance.uniform(0, width - 40), chance.uniform(0, height - 40)
    w, h = chance.uniform(8, width - x), chance.uniform(8, height - y)
    crowd = chance.random() < CROWDS
    if crowd:
        runs = [chance.randrange(1, height) for _ in range(40)]
        outline: Any = {"counts": [*runs, height * width - sum(runs)], "size": [height, width]}
    else:
        count = min(60, max(4, round(chance.lognormvariate(2.65, 0.5))))
        outline = [[round(v, 2) for _ in range(count) for v in (x + w * chance.random(), y + h * chance.random())]]
    return {
        "segmentation": outline, "area": round(w * h * 0.6, 4), "iscrowd": int(crowd), "image_id": image["id"],
        "bbox": [round(x, 2), round(y, 2), round(w, 2), round(h, 2)], "category_id": chance.randrange(1, CLASSES + 1),
        "id": 100_000 + number,
    }  # fmt: skip


def write_folders(folder: Path) -> Path:
    """train/<class>/*.JPEG, empty, named as ImageNet's are."""
    done = folder / ".complete"
    if not done.is_file():
        for number in range(FOLDERS):
            name = f"n{1_440_764 + 17 * number:08d}"
            (folder / "train" / name).mkdir(parents=True, exist_ok=True)
            for image in range(IN_FOLDER):
                os.close(os.open(folder / "train" / name / f"{name}_{image}.JPEG", os.O_CREAT))
        done.touch()
    return folder / "train"


def summary(kind: str, rows: dict[str, list[dict[str, Any]]], old: str) -> dict[str, Any]:
    """Medians of both, their ratio, and the spread of the ratios of pairs."""
    line: dict[str, Any] = {"kind": kind, "seed": SEED, "n": len(rows["new"]), "old_commit": old, "commit": commit()}
    line |= {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    for key in ("cpu_s", "wall_s", "peak_mb", "held_mb"):
        pairs = [(a[key], b[key]) for a, b in zip(rows["old"], rows["new"], strict=True)]
        line[key] = {
            "old": statistics.median(a for a, _ in pairs),
            "new": statistics.median(b for _, b in pairs),
            "ratio": [round(b / a, 3) for a, b in pairs],
        }
    digests = {row["digest"] for each in rows.values() for row in each}
    return line | {"equal": len(digests) == 1}


def commit() -> str:
    """The commit of the new code."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
