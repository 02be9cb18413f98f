"""Does training give the same bits before and after a change of the code? Small runs on two checkouts, compared bit by bit.

    python benchmarks/same_bits.py [--old f972bdf] [--new CHECKOUT] [--only NAME ...] [--data DIR] [--json OUT]

A checkout is a commit or a folder; the new one is the working tree of this script unless `--new` names another. Each run is a
process whose PYTHONPATH is the `src` of its checkout, so one installed environment serves both. Every value of metrics.jsonl
and every tensor of the safetensors files is compared; the exit status is 1 if any differs. The two may spell arguments and
names differently: the tables below hold both. If their sources are equal, as with `--new f972bdf`, which shows that the old
code reproduces itself, the old spelling serves both. Without a C++ compiler no run uses the compiled kernels.
"""

import argparse
import io
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2

# Parts of the runs: name -> (old arguments, new arguments). A part may hold those above it; a repeated option overrides.
PARTS = {
    "common": (
        "--out {out} --device cpu --workers 0 --json --precision fp32",
        "--out {out} --device cpu --workers 0 --json --precision fp32",
    ),
    "classify": (
        "train {classes} {common} --epochs 2 --batch 8 --size 32",
        "train {classes} {common} --epochs 2 --batch 8 --size 32",
    ),
    "net": ("--model.depths 1,1,2,1 --model.widths 40,48,64,96", "--model.depths 1,1,2,1 --model.widths 40,48,64,96"),
    "small": (
        "{classify} --recipe small {net} --input.progressive [[0.5,24]]",
        "{classify} --recipe small {net} --input.progressive [[0.5,24]]",
    ),
    "detect": (
        "train {coco}/train.json --images {coco}/train --val {coco}/val.json --val-images {coco}/val {common} {net} "
        "--recipe small_detection --epochs 2 --batch 2 --size 64 --head.channels 16 --head.hidden 32 --head.most 10 "
        "--head.roi_samples 16 --head.candidates_train 60 --head.proposals_train 30 --head.proposals_test 30",
        "train {coco}/train.json --images {coco}/train --val {coco}/val.json --val-images {coco}/val {common} {net} "
        "--recipe small_detection --epochs 2 --batch 2 --size 64 --head.channels 16 --head.hidden 32 --head.most 10 "
        "--head.roi_samples 16 --head.candidates_train 60 --head.proposals_train 30 --head.proposals_test 30 "
        "--schedule.eval_epochs 2",  # the old code took the interval of a longer run: once, at the end
    ),
    "segment": (
        "train {masks} {common} {net} --epochs 2 --batch 4 --size 64 --head.width 16 --head.aux_width 8",
        "train {masks} {common} {net} --epochs 2 --batch 4 --size 64 --head.width 16 --head.aux_width 8 "
        "--schedule.eval_epochs 2",
    ),
}
# The runs: name -> (old arguments, new arguments)
RUNS = {
    "small": ("{small}", "{small}"),
    "small_plain": ("{small} --kernels plain", "{small} --kernels plain"),
    "small_bf16": ("{small} --precision bf16", "{small} --precision bf16"),
    "small_workers": ("{small} --workers 2 --cache off", "{small} --workers 2 --cache off"),
    "small_v2": ("{small} --model v2_atto", "{small} --model v2_atto"),
    "imagenet1k": (
        "{classify} --recipe imagenet1k {net} --lr 1e-3 --size 48 --model.drop_path 0.1 --optim.ema 0.9",
        "{classify} --recipe imagenet1k {net} --lr 1e-3 --size 48 --model.drop_path 0.1 --optim.ema 0.9",
    ),
    "finetune": (
        "{classify} --recipe finetune {net} --weights {weights} --lr 5e-4 --size 48 --micro-batch 4",
        "{classify} --recipe finetune {net} --weights {weights} --lr 5e-4 --size 48 --micro-batch 4",
    ),
    "roadmap": (
        "{classify} --model roadmap_t:gelu --model.width 8 --model.depths 1,1,1,1",
        "{classify} --model roadmap_t:gelu --model.width 8 --model.depths 1,1,1,1",
    ),
    "mask_rcnn": ("{detect} --strict-pictures", "{detect} --strict-images"),
    "cascade": (
        "{detect} --head.kind cascade --head.box_head convolutional --head.box_loss giou --workers 2",
        "{detect} --head.kind cascade --head.box_head convolutional --head.box_loss giou --workers 2",
    ),
    "upernet": ("{segment} --kind semantic", "{segment} --form masks"),
    "upernet_weights": (
        "{segment} --model.stem patch --weights {weights} --workers 2",
        "{segment} --model.stem patch --weights {weights} --workers 2",
    ),
}
# Regular expression in an old name -> what stands in its place in the new one
RENAMED_METRICS = {"picture": "image"}  # keys of metrics.jsonl; those inside 'parts' are written 'parts.NAME'
RENAMED_TENSORS = {"picture": "image"}  # names of tensors; in `last` they begin with model/, ema/ or optimizer/


def main() -> int:
    """Make the data, train every run on both checkouts, print a line for each; 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", default="f972bdf", help="commit or folder (f972bdf)")
    parser.add_argument("--new", default=str(ROOT), help="commit or folder (the working tree of this script)")
    parser.add_argument("--only", nargs="+", choices=RUNS, metavar="NAME", help=f"some of {', '.join(RUNS)} (all)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the data sets here (a temporary folder)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results into this file as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="same-bits-") as temporary:
        place = Path(temporary)
        sources = [checkout(what, place / f"source_{i}") for i, what in enumerate((args.old, args.new))]
        same_source = tree(sources[0]) == tree(sources[1])
        data = make_data(args.data.resolve() if args.data else place / "data")
        print(f"old: {args.old}, new: {args.new}{', the same source' if same_source else ''}", flush=True)
        rows = []
        for run in args.only or RUNS:
            rows.append(compare(run, sources, data, place / run, respelt=not same_source))
            line = "{name:<15} {steps:>3} steps {keys:>4} keys {tensors:>4} tensors  {result}"
            print(line.format_map(rows[-1]), flush=True)
    if args.json:
        about = {"old": args.old, "new": args.new, "threads": THREADS, "torch": torch.__version__, "runs": rows}
        args.json.write_text(json.dumps(about, indent=1) + "\n")
    return int(any(row["result"] != "same bits" for row in rows))


def checkout(what: str, folder: Path) -> Path:
    """The `src` of a folder, or of a commit that is unpacked into `folder`; it is what `import convnext` finds."""
    source = Path(what).resolve() / "src"
    if not source.is_dir():
        packed = subprocess.run(["git", "-C", ROOT, "archive", what, "src"], capture_output=True)
        if packed.returncode:
            sys.exit(f"'{what}' is neither a checkout nor a commit: {packed.stderr.decode().strip()}")
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        source = folder / "src"
    command = [sys.executable, "-c", "import convnext; print(convnext.__file__)"]
    found = subprocess.run(command, env=environment(source), cwd="/", capture_output=True, text=True).stdout.strip()
    if not Path(found).resolve().is_relative_to(source.resolve()):
        sys.exit(f"`import convnext` finds '{found}' and not the package in '{source}'.")
    return source


def environment(source: Path) -> dict[str, str]:
    """Variables of a run: the package of `source`, a fixed number of threads, no settings of the user's own."""
    settings = ("CONVNEXT_", "PYTHON", "OMP_", "MKL_")
    own = {key: value for key, value in os.environ.items() if not key.startswith(settings)}
    return own | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "passive"}


def tree(source: Path) -> dict[Path, bytes]:
    """Every file of a source folder, to see whether two are the same."""
    return {f.relative_to(source): f.read_bytes() for f in source.rglob("*") if f.is_file() and f.suffix != ".pyc"}


def compare(run: str, sources: list[Path], data: dict[str, Path], folder: Path, *, respelt: bool) -> dict[str, Any]:
    """Train `run` on both sides and look for a difference; one row of the results. `respelt`: the sides spell differently."""
    row: dict[str, Any] = {"name": run, "steps": 0, "keys": 0, "tensors": 0, "seconds": []}
    folder.mkdir()
    sides = []
    for i, (side, source) in enumerate(zip(("old", "new"), sources, strict=True)):
        start = time.monotonic()
        failure = train(arguments(run, i if respelt else 0, {**data, "out": folder / side}), source, folder)
        row["seconds"].append(round(time.monotonic() - start, 1))
        if failure:
            return row | {"result": f"{side} failed: {failure}"}
        sides.append(contents(folder / side, renaming=respelt and side == "old"))
    row["steps"] = max((value for name, value in sides[0].items() if name.endswith(": step")), default=0)
    row["tensors"] = sum(isinstance(value, torch.Tensor) for value in sides[0].values())
    row["keys"] = len(sides[0]) - row["tensors"]
    return row | {"result": difference(*sides) or ("same bits" if row["steps"] else "nothing to compare")}


def arguments(run: str, column: int, places: dict[str, Path]) -> list[str]:
    """The arguments of a run in the spelling of a column, with the data and the output in their places."""
    text = RUNS[run][column]
    for part, spellings in reversed(PARTS.items()):
        text = text.replace(f"{{{part}}}", spellings[column])
    return [each.format_map(places) for each in shlex.split(text)]


def train(options: list[str], source: Path, folder: Path) -> str | None:
    """Run `convnext` of `source` in a process of its own. Returns the last line of its stderr if it fails."""
    command = [sys.executable, "-m", "convnext", *options]
    done = subprocess.run(command, env=environment(source), cwd=folder, capture_output=True, text=True)
    return (done.stderr.splitlines() or [f"status {done.returncode}"])[-1] if done.returncode else None


def contents(out: Path, *, renaming: bool) -> dict[str, Any]:
    """All that a run left: 'metrics.jsonl, line 3: loss' -> value, 'last.safetensors: model/head.bias' -> tensor."""
    found: dict[str, Any] = {}
    for number, line in enumerate((out / "metrics.jsonl").read_text().splitlines(), 1):
        for key, value in flat(json.loads(line)).items():
            found[f"metrics.jsonl, line {number}: {renamed(key, RENAMED_METRICS) if renaming else key}"] = value
    for file in (out / f"{name}.safetensors" for name in ("best", "best_ema", "last")):
        for name, tensor in (load_file(file) if file.exists() else {}).items():
            found[f"{file.name}: {renamed(name, RENAMED_TENSORS) if renaming else name}"] = tensor
    return found


def flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested row with dotted names."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def renamed(name: str, table: dict[str, str]) -> str:
    """An old name as the new code spells it."""
    for pattern, replacement in table.items():
        name = re.sub(pattern, replacement, name)
    return name


def difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first name that one side lacks, or whose bits differ: in the log, else in the files of tensors."""
    for name in [*old, *new]:
        if name not in old or name not in new:
            return f"{name} is only in {'new' if name in new else 'old'}"
        if told := between(old[name], new[name]):
            return f"{name}: {told}"
    return None


def between(old: Any, new: Any) -> str | None:
    """How two values or tensors differ: nan equals nan, and 0.0 is neither -0.0 nor 0."""
    if not isinstance(old, torch.Tensor):  # repr and json write all bits of a float
        return None if repr(old) == repr(new) else f"{old!r} in old, {new!r} in new"
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return f"{old.dtype} {tuple(old.shape)} in old, {new.dtype} {tuple(new.shape)} in new"
    if torch.equal(old.reshape(-1).view(torch.uint8), new.reshape(-1).view(torch.uint8)):
        return None
    apart = (old.double() - new.double()).abs()
    return f"{int((apart != 0).sum())} of {old.numel()} values differ, by {float(apart.max()):.2g} at most"


def make_data(folder: Path) -> dict[str, Path]:
    """Name -> place of each data set; those that are there already are kept."""
    makers = {"classes": write_classes, "coco": write_coco, "masks": write_masks, "weights": write_weights}
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, make) in enumerate(makers.items()):
        if not (folder / name).exists():
            make(folder / f"unfinished_{name}", np.random.default_rng(seed))
            (folder / f"unfinished_{name}").rename(folder / name)
    return {name: folder / name for name in makers}


def scene(generator: np.random.Generator) -> tuple[Image.Image, Image.Image, list[tuple[int, list[float]]]]:
    """Noise with a square and a twelve-sided disc, the mask of their classes 1 and 2, and (class, polygon) of each."""
    height, width = (int(side) for side in generator.integers(52, 84, 2))
    image = Image.fromarray(generator.integers(0, 80, (height, width, 3)).astype(np.uint8))
    mask, objects = Image.new("L", (width, height)), []
    for label, corners in ((1, 4), (2, 12)):
        radius = float(generator.uniform(8, 16))
        x, y = (float(generator.uniform(radius, side - radius)) for side in (width, height))
        angles = [2 * math.pi * (k + 0.5) / corners for k in range(corners)]
        polygon = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
        ImageDraw.Draw(image).polygon(polygon, fill=tuple(generator.integers(120, 255, 3).tolist()))
        ImageDraw.Draw(mask).polygon(polygon, fill=label)
        objects.append((label, [round(part, 2) for corner in polygon for part in corner]))
    return image, mask, objects


def write_classes(folder: Path, generator: np.random.Generator) -> None:
    """train/<class>/* and val/<class>/*: tinted scenes in several modes and EXIF rotations, one broken file in train."""
    modes = ("RGB", "RGB", "L", "RGB", "CMYK", "RGB", "RGBA", "P")
    for part, count in {"train": 12, "val": 4}.items():
        for channel, label in enumerate(("red", "green", "blue")):
            (folder / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.array(scene(generator)[0])
                pixels[..., channel] = np.minimum(pixels[..., channel], 165) + 90
                mode, exif = modes[i % len(modes)], Image.Exif()
                exif[0x0112] = 1 + i % 8  # orientation
                name = f"{i:02d}.png" if mode in ("RGBA", "P") else f"{i:02d}.jpg"
                Image.fromarray(pixels).convert(mode).save(folder / part / label / name, exif=exif)
    broken = folder / "train" / "red" / "00.jpg"
    broken.write_bytes(broken.read_bytes()[:600])


def write_coco(folder: Path, generator: np.random.Generator) -> None:
    """train.json and val.json with polygons, their images in train/ and val/."""
    for part, count in {"train": 10, "val": 4}.items():
        (folder / part).mkdir(parents=True)
        categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
        content: dict[str, list[Any]] = {"categories": categories, "images": [], "annotations": []}
        for i in range(1, count + 1):
            image, _, objects = scene(generator)
            name = f"{i:02d}.jpg"
            image.save(folder / part / name)
            content["images"].append({"id": i, "file_name": name, "height": image.height, "width": image.width})
            for label, polygon in objects:
                left, top = min(polygon[::2]), min(polygon[1::2])
                box = [left, top, max(polygon[::2]) - left, max(polygon[1::2]) - top]
                row = {"id": len(content["annotations"]) + 1, "image_id": i, "category_id": label, "iscrowd": 0}
                content["annotations"].append(row | {"segmentation": [polygon], "bbox": box, "area": box[2] * box[3]})
        (folder / f"{part}.json").write_text(json.dumps(content))


def write_masks(folder: Path, generator: np.random.Generator) -> None:
    """train/ and val/, each with images/*.png and labels/*.png, whose two upper rows do not count, and classes.json."""
    for part, count in {"train": 12, "val": 4}.items():
        (folder / part / "images").mkdir(parents=True)
        (folder / part / "labels").mkdir()
        for i in range(count):
            image, mask, _ = scene(generator)
            image.save(folder / part / "images" / f"{i:02d}.png")
            ImageDraw.Draw(mask).rectangle((0, 0, mask.width, 1), fill=255)
            mask.save(folder / part / "labels" / f"{i:02d}.png")
    (folder / "classes.json").write_text('{"classes": ["ground", "square", "disc"], "ignore_index": 255}')


def write_weights(file: Path, generator: np.random.Generator) -> None:
    """Random weights of PARTS['net'] with 7 classes in the form of another library, so that no side makes its own."""
    import timm  # takes seconds

    torch.manual_seed(int(generator.integers(2**31)))
    sizes: dict[str, Any] = {"depths": (1, 1, 2, 1), "dims": (40, 48, 64, 96)}
    save_file(timm.create_model("convnext_tiny", num_classes=7, ls_init_value=0.5, **sizes).state_dict(), file)


if __name__ == "__main__":
    sys.exit(main())
