"""Several labels an image: collages of one to four photos with known labels, ours beside binary cross-entropy written plainly.

    python benchmarks/several_labels.py DATA [--out runs/collages] [--seeds 0,1,2] [--ways plain,bce,asymmetric,focal]

DATA is a zip with train/<class>/* and val/<class>/*. A collage is a grid of 2 x 2 cells of 32 px, of which one to four hold a
photo; its labels are their classes. The network is the same for all, as are epochs, batch and images. `plain` is a few lines
of torch: AdamW, cosine, mirror images, `BCEWithLogitsLoss`, its last weights. The others are `convnext train` with
`--loss.kind`, whose best weights are chosen on a part of the training images. All are scored on the same test collages, by
scikit-learn's average precision. Every run ends as a line of results/several_labels.jsonl and is not made again.
"""

import argparse
import csv
import io
import json
import statistics
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import nn

import convnext
from convnext.engine.environment import environment

RESULTS = Path(__file__).parent / "results" / "several_labels.jsonl"
CELL, SIDE = 32, 64
FIELDS: dict[str, Any] = {"depths": [1, 1, 2, 1], "widths": [16, 32, 64, 128], "patch": 4}
LOSSES: dict[str, dict[str, Any]] = {
    "bce": {"loss.kind": "bce"},
    "focal": {"loss.kind": "focal", "loss.gamma": 2.0},
    "asymmetric": {"loss.kind": "asymmetric"},
}


def main() -> None:
    """Make the runs that are not yet in the results, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/collages"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default="plain,bce,asymmetric,focal")
    parser.add_argument("--train", type=int, default=1000, help="collages to train on")
    parser.add_argument("--test", type=int, default=500, help="collages to score on")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    train = collages(args.data, "train", args.out / "train", args.train)
    test = collages(args.data, "val", args.out / "test", args.test)
    for seed in (int(word) for word in args.seeds.split(",")):
        for way in args.ways.split(","):
            where = {"way": way, "seed": seed, "train": args.train, "test": args.test, "epochs": args.epochs}
            if known(where):
                continue
            started = time.perf_counter()
            made = plain if way == "plain" else ours
            scores = made(way, train, test, seed, args)
            record(where | scored(scores, test) | {"minutes": round((time.perf_counter() - started) / 60, 2)})
    table()


def collages(data: Path, part: str, folder: Path, count: int) -> Path:
    """`folder`/labels.csv and its images, from the photos of one part."""
    if (folder / "labels.csv").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([2021, part == "train"])
    with zipfile.ZipFile(data) as archive:
        names = [name for name in archive.namelist() if name.startswith(f"{part}/") and name.count("/") == 2]
        photos = [name for name in names if not name.endswith("/")]
        rows = []
        for number in range(count):
            pixels = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
            cells = rng.permutation(4)[: rng.integers(1, 5)]
            labels = set()
            for cell in cells.tolist():
                name = photos[int(rng.integers(len(photos)))]
                photo = (
                    Image.open(io.BytesIO(archive.read(name)))
                    .convert("RGB")
                    .resize((CELL, CELL), Image.Resampling.BICUBIC)
                )
                top, left = CELL * (cell // 2), CELL * (cell % 2)
                pixels[top : top + CELL, left : left + CELL] = np.asarray(photo)
                labels.add(name.split("/")[1])
            Image.fromarray(pixels).save(folder / f"{number:05d}.png")
            rows.append([f"{number:05d}.png", ";".join(sorted(labels))])
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "labels"], *rows])
    return folder


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """((N, H, W, 3) uint8, (N, K) marks) of collages."""
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    names = sorted({name for row in rows for name in row["labels"].split(";")})
    images = np.stack([np.asarray(Image.open(folder / row["path"])) for row in rows])
    return images, np.array([[name in row["labels"].split(";") for name in names] for row in rows])


def plain(way: str, train: Path, test: Path, seed: int, args: argparse.Namespace) -> np.ndarray:
    """(N, K) scores of the test collages by a few lines of torch."""
    torch.manual_seed(seed)
    images, marks = read(train)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    y = torch.from_numpy(marks).float()
    model = convnext.create("atto", classes=y.shape[1], layer_scale=0.1, **FIELDS)
    batch = 32
    steps = args.epochs * (len(x) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    loss_of = nn.BCEWithLogitsLoss()
    for _ in range(args.epochs):
        order = torch.randperm(len(x))
        for first in range(0, len(x) - batch + 1, batch):
            chosen = order[first : first + batch]
            shown = x[chosen].flip(-1) if torch.rand(()) < 0.5 else x[chosen]
            optimizer.zero_grad()
            loss_of(model(shown), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    images, _ = read(test)
    with torch.inference_mode():
        logits = model((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    return logits.sigmoid().numpy()


def ours(way: str, train: Path, test: Path, seed: int, args: argparse.Namespace) -> np.ndarray:
    """The same of `convnext train`."""
    out = args.out / f"{way}_{args.train}_{args.epochs}_{seed}"
    fields = {f"model.{name}": value for name, value in FIELDS.items()}
    changes = {**fields, **LOSSES[way], "schedule.epochs": args.epochs, "precision": "fp32"}  # as `plain` is computed
    run = convnext.train(train, model="atto", out=out, seed=seed, workers=0, progress=False, overrides=changes)
    predictor = run.load(device="cpu")
    found = list(predictor.predict(sorted(test.glob("*.png")), threshold=0.0))  # type: ignore[call-arg]
    return np.array([[dict(answer.predictions)[name] for name in predictor.classes] for answer in found])


def scored(scores: np.ndarray, test: Path) -> dict[str, float]:
    """Mean average precision."""
    _, marks = read(test)
    return {"map": float(np.mean([average_precision_score(marks[:, k], scores[:, k]) for k in range(marks.shape[1])]))}


def known(where: dict[str, Any]) -> bool:
    """Whether a run is in the results."""
    return any(where.items() <= row.items() for row in rows())


def rows() -> list[dict[str, Any]]:
    """All results."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def record(row: dict[str, Any]) -> None:
    """One more line."""
    made = environment(torch.device("cpu"))
    about = {name: made[name] for name in ("device_name", "cores", "torch", "convnext")}
    with open(RESULTS, "a") as file:
        file.write(json.dumps({**row, **about}) + "\n")
    print(json.dumps(row), flush=True)


def table() -> None:
    """Mean and spread of each way."""
    ways: dict[tuple[str, int, int], list[float]] = {}
    for row in rows():
        ways.setdefault((row["way"], row["train"], row["epochs"]), []).append(row["map"])
    for (way, train, epochs), found in ways.items():
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        print(
            f"{way:12} {train} collages {epochs} epochs: mAP {statistics.mean(found):.2%} +- {spread:.2%} (n {len(found)})"
        )


if __name__ == "__main__":
    main()
