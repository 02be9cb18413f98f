"""Which ranking finds wrong labels best? Many settings, each some minutes: out-of-fold probabilities are made once and kept.

    python benchmarks/audit_ranking.py --zips IMAGENETTE CLOTHING --cifar CIFAR --weights FILE [--out runs/ranking]

A setting is a data set with its features, what judges by them, a kind of mistakes and a seed. Features: of `--weights`, which
must not have learnt from these labels (Clothing, CIFAR-10), or histograms of gradients (Imagenette, CIFAR-10), or pixels
(digits). What judges: a linear head, as the audit fits it, or a network of 64 hidden units, which is too sure. 5 % of labels
get any other class (`random`), or the one that is confused most with theirs (`similar`). Average precision of the wrong ones.
The constants of `studies/audit/confident.py` were chosen on TUNED alone; the other settings confirm them.
Every line of results/audit_ranking.jsonl is one setting, and is not made again.
"""

import argparse
import io
import json
import warnings
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from sklearn.neural_network import MLPClassifier

import convnext
from convnext.engine.environment import environment
from convnext.studies.audit.confident import doubts
from convnext.tasks.classification.probe import fit_head, fitted

RESULTS = Path(__file__).parent / "results" / "audit_ranking.jsonl"
TUNED = ("digits", "cifar_hog", "imagenette_hog")
SETS = (*TUNED, "clothing", "cifar")
SHARE, FOLDS = 0.05, 5
RANKINGS = ("ours", "roots", "normalized_margin", "self_confidence", "confidence_weighted_entropy")


def main() -> None:
    """Make the settings that are not yet in the results, and print means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zips", nargs=2, type=Path, metavar=("IMAGENETTE", "CLOTHING"), required=True)
    parser.add_argument("--cifar", type=Path, required=True, help="train_jpeg, train_offsets and train_labels")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for folder in ("features", "probs"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    for seed in map(int, args.seeds.split(",")):
        for name in SETS:
            for judge in ("head", "mlp"):
                for noise in ("random", "similar"):
                    setting({"data": name, "judge": judge, "noise": noise, "seed": seed}, args)
    table()


def setting(where: dict[str, Any], args: argparse.Namespace) -> None:
    """One line of the results."""
    if any(where.items() <= row.items() for row in rows()):
        return
    file = args.out / "probs" / f"{where['data']}-{where['judge']}-{where['noise']}-{where['seed']}-{SHARE}.npz"
    if not file.exists():
        x, right = features(where["data"], args)
        given = flipped(x, right, where, args.out)
        np.savez(file, p=judged(x, given, where["seed"], where["judge"]).astype(np.float32), given=given, right=right)
    held = np.load(file)
    p, given, wrong = held["p"], held["given"], held["given"] != held["right"]
    found = doubts(p, given)
    row: dict[str, Any] = {"n": len(given), "wrong": int(wrong.sum()), "top1": float((p.argmax(1) == given).mean())}
    row |= {name: average_precision_score(wrong, score) for name, score in scores(p, given).items()}
    row |= {
        "told": int(found.wrong.sum()),
        "precision": float(wrong[found.wrong].mean()) if found.wrong.any() else None,
    }
    row |= {"recall": float(found.wrong[wrong].mean())}
    machine = environment(torch.device("cpu"))
    row |= {key: machine[key] for key in ("device_name", "cores", "torch", "convnext")}
    with open(RESULTS, "a") as opened:
        opened.write(json.dumps(where | row) + "\n")
    print(json.dumps(where | row), flush=True)


def scores(p: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    """Ours, what it was before (the difference of roots), and those of cleanlab; the higher the more suspicious."""
    from cleanlab.rank import get_label_quality_scores

    own = p[np.arange(len(given)), given]
    others = p.copy()
    others[np.arange(len(given)), given] = 0
    found = {"ours": doubts(p, given).score, "roots": np.sqrt(others.max(1)) - np.sqrt(own)}
    return found | {name: -get_label_quality_scores(given, p, method=name) for name in RANKINGS[2:]}


def flipped(x: np.ndarray, right: np.ndarray, where: dict[str, Any], out: Path) -> np.ndarray:
    """The labels with some of them changed."""
    classes, rng = int(right.max()) + 1, np.random.default_rng(100 * where["seed"] + 3)
    chosen, given = rng.choice(len(right), round(SHARE * len(right)), replace=False), right.copy()
    if where["noise"] == "random":
        given[chosen] = (right[chosen] + rng.integers(1, classes, len(chosen))) % classes
        return given
    file = out / "probs" / f"{where['data']}-{where['judge']}-clean.npz"
    if not file.exists():
        np.savez(file, p=judged(x, right, 0, where["judge"]))
    p = np.load(file)["p"]
    confused = np.stack([p[right == label].mean(0) for label in range(classes)])
    np.fill_diagonal(confused, 0)
    given[chosen] = confused.argmax(1)[right[chosen]]
    return given


def judged(x: np.ndarray, given: np.ndarray, seed: int, judge: str) -> np.ndarray:
    """(N, K) probabilities of what has not learnt from the image."""
    classes = int(given.max()) + 1
    p, fold, rng = np.zeros((len(x), classes)), np.zeros(len(given), int), np.random.default_rng(seed)
    for label in np.unique(given):
        own = rng.permutation(np.flatnonzero(given == label))
        fold[own] = np.arange(len(own)) % FOLDS
    values, labels = torch.from_numpy(x.astype(np.float32))[None], torch.from_numpy(given)
    penalty = fit_head(values, labels, classes, seed=seed).penalty if judge == "head" else 0.0
    unit = (x - x.mean(0)) / (x.std(0) + 1e-3)
    for part in range(FOLDS):
        held = fold == part
        if judge == "head":
            head = fitted(values[:, ~held].double(), labels[~held], classes, penalty)
            p[held] = head(values[0, held]).softmax(1).numpy()
        else:
            network = MLPClassifier((64,), alpha=1e-2, max_iter=25, random_state=seed)
            p[held] = network.fit(unit[~held], given[~held]).predict_proba(unit[held])
    return p


def features(name: str, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) features and (N,) right labels, kept."""
    file = args.out / "features" / f"{name}.npz"
    if not file.exists():
        if name == "digits":
            found = load_digits()
            x, labels = found.data / 16, found.target
        elif name.startswith("cifar"):
            images, labels = cifar(args.cifar, 2000 if name == "cifar_hog" else 2500)
            large = [image.resize((96, 96), Image.Resampling.BICUBIC) for image in images]
            x = gradients(images, 32, 4) if name == "cifar_hog" else embedded(large, args.weights)
        else:
            images, labels = zipped(args.zips[name == "clothing"], 200 if name == "imagenette_hog" else 10**6)
            x = gradients(images, 64, 8) if name == "imagenette_hog" else embedded(images, args.weights)
        np.savez(file, x=np.asarray(x, np.float32), y=labels)
    held = np.load(file)
    return held["x"], held["y"]


def embedded(images: list[Image.Image], weights: Path) -> np.ndarray:
    """(N, C) of a network."""
    return np.stack(list(convnext.load(weights, device="cpu").embed([np.asarray(image) for image in images])))


def gradients(images: list[Image.Image], px: int, cell: int) -> np.ndarray:
    """(N, C): histograms of nine directions in cells, by blocks of two by two, and 6 x 6 colours."""
    found, n = [], px // cell
    rows, columns = np.mgrid[:px, :px] // cell
    for image in images:
        grey = np.asarray(image.resize((px, px), Image.Resampling.BILINEAR), np.float32).mean(2) / 255
        down, across = np.gradient(grey)
        turn = np.minimum((np.arctan2(down, across) % np.pi / np.pi * 9).astype(int), 8)
        cells = np.zeros((n, n, 9), np.float32)
        np.add.at(cells, (rows, columns, turn), np.hypot(across, down))
        blocks = [cells[i : i + 2, j : j + 2].ravel() for i in range(n - 1) for j in range(n - 1)]
        colours = np.asarray(image.resize((6, 6), Image.Resampling.BOX), np.float32).ravel() / 255
        found.append(np.concatenate([*(block / (np.linalg.norm(block) + 1e-3) for block in blocks), 2 * colours]))
    return np.stack(found)


def zipped(file: Path, each: int) -> tuple[list[Image.Image], np.ndarray]:
    """Images of train/<class>/*, at most `each` of a class."""
    with zipfile.ZipFile(file) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/") and not name.endswith("/"))
        found: list[tuple[str, int]] = []
        rng = np.random.default_rng(7)
        for label, group in enumerate(sorted({name.split("/")[1] for name in names})):
            own = [name for name in names if name.split("/")[1] == group]
            found += [(own[place], label) for place in sorted(rng.permutation(len(own))[:each])]
        images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name, _ in found]
    return images, np.array([label for _, label in found])


def cifar(file: Path, count: int) -> tuple[list[Image.Image], np.ndarray]:
    """The first `count` training images."""
    held = np.load(file)
    data, ends = held["train_jpeg"], held["train_offsets"]
    cut = [data[ends[place] : ends[place + 1]].tobytes() for place in range(count)]
    return [Image.open(io.BytesIO(each)).convert("RGB") for each in cut], held["train_labels"][:count].astype(int)


def rows() -> list[dict[str, Any]]:
    """All results."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table() -> None:
    """Means over the seeds, then over the settings that the constants were chosen on and over the others."""
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows():
        tuned = "chosen on" if row["data"] in TUNED else "confirmed on"
        for place in (f"{row['data']} {row['judge']} {row['noise']}", tuned, "all"):
            for name in (*RANKINGS, "precision", "recall"):
                groups[place][name].append(row[name])
    print(f"{'':28}", *(f"{name[:17]:>17}" for name in (*RANKINGS, "precision", "recall")))
    for place, found in groups.items():
        print(f"{place:28}", *(f"{np.mean(found[name]):17.3f}" for name in (*RANKINGS, "precision", "recall")))


if __name__ == "__main__":
    main()
