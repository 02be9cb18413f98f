"""What `convnext audit` finds of labels that were made wrong and of images that were copied, beside `cleanlab`.

    python benchmarks/audit.py labels DATA [--weights FILE] [--images 2000] [--seeds 0,1,2] [--out runs/audit]
    python benchmarks/audit.py copies DATA [--images 3000] [--seeds 0]

DATA is a zip or folder with train/<class>/* and test/<class>/* or val/<class>/*. `labels` gives --share of the training
labels (5 %) another class, at random or the one that networks confuse most with the right one, audits them and scores the
ranking: average precision of the wrong ones, beside cleanlab's on the same probabilities; precision and recall of those
that are told. Then it learns from the noisy labels, from those without the ones that are told, and from the right ones;
top-1 on the held-out part. `--weights`: by linear heads on features of this network, which must not have learnt from these
labels; without, small networks are trained, a fifth of the noisy images held out of each, and one for each top-1.
`copies` plants images that are smaller, compressed again, mirrored, grey or cut at the edge, and scores what is found.
Every line of results/audit.jsonl is one trial, and is not made again.
"""

import argparse
import io
import json
import random
import statistics
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from convnext.config import RunOptions
from convnext.data.labelled import Dataset, Entry, Splits
from convnext.data.opening import open_labelled, recognise
from convnext.data.store import Store
from convnext.data.whole import Whole
from convnext.engine.distributed import World
from convnext.engine.environment import environment
from convnext.studies.audit.confident import doubts
from convnext.studies.audit.copies import copies
from convnext.studies.audit.looks import Looks, look_at
from convnext.studies.audit.networks import Asked, Said, said
from convnext.studies.folds.parts import parts
from convnext.tasks.classification.probe import fit_head
from convnext.tasks.opening import look
from convnext.tasks.train import Examined, Request, trained

RESULTS = Path(__file__).parent / "results" / "audit.jsonl"
SMALL = {  # a network that two busy cores train in minutes
    "model.depths": (1, 1, 2, 1),
    "model.widths": (24, 48, 96, 192),
    "input.progressive": (),
}
KINDS = ("resized", "compressed", "cropped", "mirrored", "grey")


def main() -> None:
    """Make the trials that are not yet in the results, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("labels", "copies"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=2000, help="of the training part, the same number of each class")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--px", type=int, default=64, help="of the images that small networks are trained on")
    parser.add_argument("--noise", default="random,similar")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/audit"))
    args = parser.parse_args()
    source = recognise(args.data)
    train = open_labelled(source, split="train")
    for seed in map(int, args.seeds.split(",")):
        some = drawn(train, args.images, seed)
        if args.what == "copies":
            where = {"what": "copies", "data": args.data.stem, "images": len(some.entries), "seed": seed}
            trial(where, partial(planted, some, seed))
            continue
        held = open_labelled(source, classes=train.classes)
        for noise in args.noise.split(","):
            where = {
                "what": "labels",
                "data": args.data.stem,
                "images": len(some.entries),
                "seed": seed,
                "noise": noise,
            }
            where |= {"share": args.share, "weights": args.weights and args.weights.name}
            where |= {} if args.weights else {"epochs": args.epochs, "px": args.px}
            trial(where, partial(labels, some, held, noise, seed, args))


def drawn(train: Dataset, images: int, seed: int) -> Dataset:
    """As many of each class, or all that there are."""
    found = []
    for label in range(len(train.classes)):
        own = [entry for entry in train.entries if entry.label == label]
        found += random.Random(f"{seed} {label}").sample(own, min(len(own), images // len(train.classes)))
    return Dataset(train.classes, sorted(found, key=lambda entry: entry.path), train.store)


def trial(where: dict[str, Any], make: Any) -> None:
    """One line of the results."""
    known = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    row = next((row for row in known if all(row.get(key) == value for key, value in where.items())), None)
    if row is None:
        machine = environment(torch.device("cpu"))
        row = where | make() | {key: machine[key] for key in ("device_name", "cores", "torch", "convnext")}
        with open(RESULTS, "a") as file:
            file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


# Labels


def labels(some: Dataset, held: Dataset, noise: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The ranking of wrong labels, and what leaving them out is worth."""
    right = np.array([entry.label for entry in some.entries])
    listed = zlib.crc32("\n".join(entry.path for entry in some.entries).encode())
    name = f"{args.data.stem}_{len(right)}_{seed}_{noise}_small"
    if args.weights:  # features, which labels do not change
        name = f"{args.data.stem}_{listed:08x}_{args.weights.stem}"
    asked = Asked(
        out=args.out / name, known=name, weights=None if args.weights is None else str(args.weights), seed=seed, workers=0,
        changes={} if args.weights else small(args), progress=False,
    )  # fmt: skip
    given = flipped(right, noise, args.share, seed, some, asked)
    noisy = Dataset(some.classes, [Entry(e.path, int(y)) for e, y in zip(some.entries, given, strict=True)], some.store)
    found = judged(noisy, seed, asked)
    assert len(found.places) == len(given)
    wrong = given != right
    ours = doubts(found.probabilities, given)
    told = ours.wrong
    row: dict[str, Any] = {
        "wrong": int(wrong.sum()),
        "top1_out_of_fold": float((found.probabilities.argmax(1) == given).mean()),
        "average_precision": average_precision_score(wrong, ours.score),
        "average_precision_self_confidence": average_precision_score(
            wrong, -found.probabilities[np.arange(len(given)), given]
        ),
        "told": int(told.sum()),
        "precision": float(wrong[told].mean()) if told.any() else None,
        "recall": float(told[wrong].mean()),
        "suggested_right": float((ours.suggested == right)[told & wrong].mean()),
        **beside_cleanlab(found.probabilities, given, wrong),
    }
    if asked.weights is None:
        return row | worth_to_networks(some, given, right, told, held, seed, args, asked)
    return row | worth_to_heads(found, given, right, told, held, seed, asked)


def small(args: argparse.Namespace) -> dict[str, Any]:
    """What the small networks change about their recipe."""
    return SMALL | {"schedule.epochs": args.epochs, "input.size_px": args.px, "input.eval_size_px": args.px}


def judged(noisy: Dataset, seed: int, asked: Asked) -> Said:
    """What networks say that have not seen an image."""
    count = len(noisy.entries)
    whole = Whole(noisy, np.zeros(count, np.int8))
    looks = Looks(np.zeros((count, 1, 1), np.uint8), *np.zeros((3, count), np.uint64), ("",) * count)
    fold_of = parts([entry.path for entry in noisy.entries], whole.labels.tolist(), (), 5, seed=seed)
    return said(whole, looks, fold_of, asked)


def flipped(right: np.ndarray, noise: str, share: float, seed: int, some: Dataset, asked: Asked) -> np.ndarray:
    """The labels with a share of them changed: to any other class, or to the one that is likeliest beside the right one."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(right), round(share * len(right)), replace=False)
    given = right.copy()
    classes = len(some.classes)
    if noise == "random":
        given[chosen] = (right[chosen] + generator.integers(1, classes, len(chosen))) % classes
        return given
    before = Asked(**{**vars(asked), "out": asked.out / "before", "known": f"{asked.known} before"})
    p = judged(some, seed, before).probabilities
    confused = np.stack([p[right == label].mean(0) for label in range(classes)])
    np.fill_diagonal(confused, 0)
    given[chosen] = confused.argmax(1)[right[chosen]]
    return given


def beside_cleanlab(p: np.ndarray, given: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """The same figures of cleanlab's ranking and of what it tells, on the same probabilities."""
    import cleanlab
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    row: dict[str, Any] = {"cleanlab": cleanlab.__version__}
    for method in ("normalized_margin", "self_confidence", "confidence_weighted_entropy"):
        row[f"cleanlab_average_precision_{method}"] = average_precision_score(
            wrong, -get_label_quality_scores(given, p, method=method)
        )
    for by in ("prune_by_noise_rate", "both", "confident_learning"):
        told = find_label_issues(given, p, filter_by=by, n_jobs=1)
        row |= {f"cleanlab_precision_{by}": float(wrong[told].mean()) if told.any() else None}
        row |= {f"cleanlab_recall_{by}": float(told[wrong].mean())}
    return row


def worth_to_heads(
    found: Said, given: np.ndarray, right: np.ndarray, told: np.ndarray, held: Dataset, seed: int, asked: Asked
) -> dict[str, Any]:
    """Top-1 on the held-out part of linear heads on the audit's features, by the labels that they learn from."""
    from convnext.deploy.started import load_features

    cache = asked.out.parent / f"held_{Path(asked.weights).stem}_{len(held.entries)}.npy"
    if not cache.exists():
        predictor = load_features(asked.weights, device="cpu")
        np.save(cache, np.stack(list(predictor.embed(held))))
    features = torch.from_numpy(np.load(cache))
    truth = torch.tensor([entry.label for entry in held.entries])
    values = torch.from_numpy(found.features)[None]

    def top1(labels: np.ndarray, kept: np.ndarray) -> float:
        head = fit_head(values[:, torch.from_numpy(kept)], torch.from_numpy(labels[kept]), len(held.classes), seed=seed)
        return float((head(features).argmax(1) == truth).double().mean())

    every = np.ones(len(given), bool)
    return {"top1_noisy": top1(given, every), "top1_left_out": top1(given, ~told), "top1_right": top1(right, every)}


def worth_to_networks(
    some: Dataset, given: np.ndarray, right: np.ndarray, told: np.ndarray, held: Dataset, seed: int,
    args: argparse.Namespace, asked: Asked,
) -> dict[str, Any]:  # fmt: skip
    """Top-1 on the held-out part of the last weights of small networks, by the labels that they learn from."""
    every = np.ones(len(given), bool)
    row = {}
    for name, (labels, kept) in {"noisy": (given, every), "left_out": (given, ~told), "right": (right, every)}.items():
        paths = [entry.path for entry in some.entries]
        entries = [Entry(paths[place], int(labels[place])) for place in np.flatnonzero(kept).tolist()]
        splits = Splits(Dataset(some.classes, entries, some.store), held)
        changes = small(args) | {"schedule.eval_epochs": 1000}
        request = Request(data=args.data, seed=seed, changes=changes)
        options = RunOptions(out=str(asked.out / name), workers=0, progress=False)
        data = Examined("classification", splits, look(splits, workers=1))
        done = trained(request, None, data, options, None, device=torch.device("cpu"), world=World())
        rows = map(json.loads, (done.out / "metrics.jsonl").read_text().splitlines())
        row[f"top1_{name}"] = [each["top1"] for each in rows if each.get("weights") == "ema"][-1]
    return row


# Copies


class _Planted:
    """The images of a store, and some more."""

    def __init__(self, store: Store):
        self.store, self.more = store, dict[str, bytes]()

    def read(self, path: str) -> bytes:
        return self.more.get(path) or self.store.read(path)


def planted(some: Dataset, seed: int, share: float = 0.1) -> dict[str, Any]:
    """Precision and recall of the pairs that are found; copies that were there before count as false."""
    store = _Planted(some.store)
    paths = [entry.path for entry in some.entries]
    chosen = random.Random(seed).sample(range(len(paths)), round(share * len(paths)))
    kinds = {}
    for number, place in enumerate(chosen):
        kind = KINDS[number % len(KINDS)]
        store.more[f"copy{number}"] = changed(store.store.read(paths[place]), kind, random.Random(f"{seed} {number}"))
        kinds[place, len(paths) + number] = kind
    looks = look_at(store, [*paths, *store.more], workers=1)
    pairs = set(map(tuple, copies(looks).pairs.tolist()))
    right = pairs & set(kinds)
    row: dict[str, Any] = {"planted": len(kinds), "found": len(pairs), "precision": len(right) / max(1, len(pairs))}
    row["recall"] = len(right) / len(kinds)
    for kind in KINDS:
        own = [pair for pair, each in kinds.items() if each == kind]
        row[f"recall_{kind}"] = statistics.fmean(pair in pairs for pair in own)
    row["others"] = [
        [paths[place] if place < len(paths) else f"copy{place}" for place in pair] for pair in sorted(pairs - right)
    ][:20]
    return row


def changed(data: bytes, kind: str, chance: random.Random) -> bytes:
    """The file of a copy."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    if kind == "resized":
        image = image.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    elif kind == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif kind == "grey":
        image = image.convert("L").convert("RGB")
    elif kind == "cropped":
        across, down = round(0.95 * width), round(0.95 * height)
        left, top = chance.randint(0, width - across), chance.randint(0, height - down)
        image = image.crop((left, top, left + across, top + down))
    made = io.BytesIO()
    image.save(made, "JPEG", quality=40 if kind == "compressed" else 85)
    return made.getvalue()


if __name__ == "__main__":
    main()
