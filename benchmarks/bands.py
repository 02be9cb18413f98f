"""Do more than three channels help, and does their order in the file matter? Synthetic bands, and photographs turned round.

    python benchmarks/bands.py DATA [--out runs/bands] [--seeds 0,1,2]

`signal`: 16-bit TIFF of six bands in four classes, which only the fifth band tells apart, by its pattern; trained on all bands,
on the fifth, and on the first three as a reader of colours would take them. `permuted`: photographs of DATA, a zip with
train/<class>/*, as 8-bit TIFF in the order red, green, blue, and in the order blue, red, green with --bands that undo it. The
network that has learnt from the former is then scored on held-out files of the other order, with and without --bands.
Every line of results/bands.jsonl is one run, and is not made again.
"""

import argparse
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file

import convnext
from convnext.engine.environment import environment

RESULTS = Path(__file__).parent / "results" / "bands.jsonl"
FIELDS = {"model.depths": (1, 1, 2), "model.widths": (16, 32, 64), "model.patch": 2, "optim.batch": 16}
SIDE, CLASSES, TRAIN, TEST = 32, 4, 40, 40  # pixels; images of each class
SIGNAL, BANDS = 5, 6
WAYS = {"all bands": (), "band 5 alone": (5,), "bands 1, 2, 3": (1, 2, 3)}


def main() -> None:
    """Make the runs that are not yet in the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/bands"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    synthetic(args.out / "signal")
    photographs(args.data, args.out)
    for seed in map(int, args.seeds.split(",")):
        for way, bands in WAYS.items():
            where = {"what": "signal", "way": way, "seed": seed, "epochs": args.epochs}
            if not known(where):
                run = trained(args.out / "signal", args.out / f"{way} {seed}", bands, seed, args.epochs)
                record(where | {"top1": run.scores["top1"], "n": run.evaluation.n})
        where = {"what": "permuted", "seed": seed, "epochs": args.epochs}
        if not known(where):
            record(where | permuted(args.out, seed, args.epochs))


def permuted(out: Path, seed: int, epochs: int) -> dict[str, Any]:
    """Whether both orders give the same weights, and what the one network says of the other files."""
    one = trained(out / "rgb", out / f"rgb {seed}", (1, 2, 3), seed, epochs)
    two = trained(out / "brg", out / f"brg {seed}", (2, 3, 1), seed, epochs)
    tensors = [load_file(run.path / "last.safetensors") for run in (one, two)]
    same = all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    held = out / "brg" / "val"
    undone = one.load(device="cpu").with_bands((2, 3, 1)).evaluate(held)["top1"]
    return {
        "same_weights": same,
        "top1": one.scores["top1"],
        "top1_other_files_with_bands": undone,
        "top1_other_files_without": one.load(device="cpu").evaluate(held)["top1"],
        "n": one.evaluation.n,
    }


def trained(data: Path, out: Path, bands: tuple[int, ...], seed: int, epochs: int) -> Any:
    """A small run."""
    how: dict[str, Any] = {"epochs": epochs, "seed": seed, "workers": 0, "progress": False, "device": "cpu"}
    changes = {**FIELDS, "input.size_px": SIDE, "input.eval_size_px": SIDE, "input.eval_crop": 1.0}
    return convnext.train(data, out=out, bands=bands, overrides=changes, **how)


def synthetic(folder: Path) -> None:
    """Six bands of smooth noise; the fifth also has stripes of the class's direction."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    for part, count in {"train": TRAIN, "val": TEST}.items():
        for label in range(CLASSES):
            place = folder / part / f"class{label}"
            if place.exists():
                continue
            place.mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng([label, number, part == "val"])
                coarse = rng.normal(size=(BANDS, SIDE // 4, SIDE // 4)).repeat(4, 1).repeat(4, 2)
                values = 2000 + 300 * coarse + 100 * rng.normal(size=(BANDS, SIDE, SIDE))
                turn = np.pi * label / CLASSES
                phase = 2 * np.pi * (4 * (rows * np.cos(turn) + columns * np.sin(turn)) + rng.random())
                values[SIGNAL - 1] += 250 * np.sin(phase)
                tifffile.imwrite(place / f"{number}.tif", values.clip(0, 65535).astype(np.uint16), planarconfig="separate",
                                 photometric="minisblack", metadata=None)  # fmt: skip


def photographs(data: Path, out: Path) -> None:
    """Of the first classes, in both orders."""
    with zipfile.ZipFile(data) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/") and not name.endswith("/"))
        for group in sorted({name.split("/")[1] for name in names})[:CLASSES]:
            own = [name for name in names if name.split("/")[1] == group][: TRAIN + TEST]
            for number, name in enumerate(own):
                image = Image.open(io.BytesIO(archive.read(name))).convert("RGB").resize((SIDE, SIDE))
                for folder, order in {"rgb": (0, 1, 2), "brg": (2, 0, 1)}.items():
                    file = out / folder / ("train" if number < TRAIN else "val") / group / f"{number}.tif"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    if not file.exists():
                        tifffile.imwrite(file, np.asarray(image)[:, :, order], photometric="rgb", metadata=None)


def known(where: dict[str, Any]) -> bool:
    """Whether a run is in the results."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return any(where.items() <= json.loads(line).items() for line in lines)


def record(row: dict[str, Any]) -> None:
    """One more line."""
    machine = environment(torch.device("cpu"))
    row = row | {key: machine[key] for key in ("device_name", "cores", "torch", "convnext")}
    with open(RESULTS, "a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
