"""What networks say of images that they have not learnt from: features of one network, probabilities of one a fold.

With weights the network is frozen, and a linear head is fitted for each fold; without, a small network is trained for each.
Every piece that is done is a file, so that an audit that was killed goes on. Axes: N images, C features, K classes.
"""

import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convnext.config import Bands, RunOptions, parse
from convnext.data.labelled import Dataset, Splits
from convnext.data.loader import eval_batches
from convnext.data.whole import Whole
from convnext.deploy.classifier import BATCH
from convnext.deploy.embed import about_of, named_features
from convnext.deploy.started import load_features
from convnext.deploy.trained.checkpoint import read_trained
from convnext.deploy.trained.classifier import TrainedClassifier
from convnext.engine import checkpoint
from convnext.engine.distributed import World, choose_device
from convnext.engine.records import Meter, info, warn
from convnext.engine.run import LAST
from convnext.files import appearing, to_json
from convnext.studies.audit.looks import Looks
from convnext.tasks.budget import budget_of
from convnext.tasks.classification.probe import fit_head, fitted, in_turns, room_for
from convnext.tasks.opening import look
from convnext.tasks.train import Examined, Request, started, trained

CHUNK = 1024  # images whose features are a file


@dataclass(frozen=True, kw_only=True)
class Asked:
    """By which networks the images are judged, and where their work is kept."""

    out: Path
    known: str  # tells these images, labels and folds from others
    weights: str | None = None
    model: str | None = None  # to train where there are no weights
    seed: int = 0
    minutes: float | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the recipe of the networks that are trained
    bands: Bands | None = None  # how the images are read, where they are not in grey or colour
    device: str = "auto"
    workers: int = -1
    progress: bool = True

    @property
    def work(self) -> Path:
        """The folder of the pieces."""
        return self.out / "work"


@dataclass(frozen=True)
class Said:
    """Of every image that can be read."""

    places: NDArray[np.int64]  # (N,) in the data set
    features: NDArray[np.float32]  # (N, C)
    probabilities: NDArray[
        np.float32
    ]  # (N, K) of networks that have not learnt from the image; NaN where there are none


def said(whole: Whole, looks: Looks, fold_of: NDArray[np.int64], asked: Asked) -> Said:
    """What the networks say, made or read from where it was kept.

    An image whose class no other fold holds cannot be judged: a network has not seen what it should be. Raises what loading,
    training and writing raise.
    """
    places = np.flatnonzero(looks.read)
    several = whole.dataset.several
    judged = places if several else places[_taught(whole.labels[places], fold_of[places])]
    if asked.weights is not None:
        predictor = load_features(asked.weights, device=asked.device)
        if set(predictor.classes) == set(whole.dataset.classes):
            warn(
                f"'{asked.weights}' has the classes of these data: where it has learnt from these labels, it knows the wrong "
                "ones as well, and they look right. Take other weights, or leave them out."
            )
        features = _features(predictor, whole.dataset, places, asked)
        found = _by_heads(features, whole, places, judged, fold_of, asked)
    else:
        found, features = _by_training(whole, places, judged, fold_of, asked)
    if several:
        found[~_taught_each(whole.dataset.labels()[places], fold_of[places])] = np.nan
    kept = np.isfinite(features).all(1)  # a look at reduced pixels can miss what breaks an image
    return Said(places[kept], features[kept], found[kept])


def _taught(labels: NDArray[np.int64], fold_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,): whether another fold than its own holds an image of its class."""
    counts = np.zeros((labels.max() + 1, fold_of.max() + 1), np.int64)
    np.add.at(counts, (labels, fold_of), 1)
    found: NDArray[np.bool_] = counts.sum(1)[labels] > counts[labels, fold_of]
    return found


def _taught_each(marks: NDArray[np.int8], fold_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N, K): whether other folds than an image's own hold one with the class and one without it."""
    found = np.ones(marks.shape, bool)
    for fold in np.unique(fold_of):
        others = marks[fold_of != fold]
        found[fold_of == fold] = (others == 1).any(0) & (others == 0).any(0)
    return found


def _features(predictor: Any, dataset: Dataset, places: NDArray[np.int64], asked: Asked) -> NDArray[np.float32]:
    """(N, C) of the images at `places`, a file a chunk."""
    known = f"{asked.known} {to_json(about_of(predictor))}"
    chunks = []
    with closing(Meter(len(places), 0, label="features", shown=asked.progress)) as meter:
        for number, first in enumerate(range(0, len(places), CHUNK)):
            own = places[first : first + CHUNK]
            file = asked.work / f"features-{number:05d}.npz"
            held = _held(file, known)
            if held is None:
                some = Dataset(dataset.classes, [dataset.entries[place] for place in own.tolist()], dataset.store)
                found = dict(named_features(predictor, some, {}, workers=max(0, asked.workers)))
                none = np.full(len(next(iter(found.values()))), np.nan, np.float32)
                held = {"features": np.stack([found.get(entry.path, none) for entry in some.entries])}
                _keep(file, known, held)
            chunks.append(held["features"])
            meter.advance("", first + len(own))
    return np.concatenate(chunks)


def _by_heads(
    features: NDArray[np.float32],
    whole: Whole,
    places: NDArray[np.int64],
    judged: NDArray[np.int64],
    fold_of: NDArray[np.int64],
    asked: Asked,
) -> NDArray[np.float32]:
    """Probabilities of linear heads, each fitted to the features of the other folds; seconds, so nothing is kept."""
    found = np.full((len(places), len(whole.dataset.classes)), np.nan, np.float32)
    said, several = whole.dataset.labels()[places], whole.dataset.several
    values, labels = torch.from_numpy(features)[None], torch.from_numpy(said)
    folds, classes = int(fold_of.max()) + 1, len(whole.dataset.classes)
    room = room_for(values, classes)
    penalty = fit_head(values, labels, classes, seed=asked.seed).penalty  # one number, chosen crosswise on all images
    with closing(Meter(folds, 0, label="heads", shown=asked.progress)) as meter:
        for fold in range(folds):
            held = torch.from_numpy(fold_of[places] == fold)
            others = torch.nonzero(~held)[:, 0]
            if len(others) > room:
                others = others[in_turns(labels[others], asked.seed)[:room]]
            head = fitted(values[:, others].double(), labels[others], classes, penalty)
            logits = head(values[0, held])
            found[held.numpy()] = (logits.sigmoid() if several else logits.softmax(1)).float().numpy()
            meter.advance("", fold + 1)
    found[~np.isin(places, judged)] = np.nan
    return found


def _by_training(
    whole: Whole, places: NDArray[np.int64], judged: NDArray[np.int64], fold_of: NDArray[np.int64], asked: Asked
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities of small networks, each trained on the other folds, and the features of the first of them."""
    folds = int(fold_of.max()) + 1
    found = np.full((len(places), len(whole.dataset.classes)), np.nan, np.float32)
    features: NDArray[np.float32] | None = None
    known = f"{asked.known} {asked.model} {asked.seed} {asked.minutes} {to_json(dict(asked.changes))}"
    for fold in range(folds):
        file = asked.work / f"fold{fold + 1}.npz"
        held = _held(file, known)
        if held is None:
            run = asked.work / f"fold{fold + 1}"
            predictor = _trained_without(fold, folds, whole, places, fold_of, asked, run)
            own = np.intersect1d(judged, places[fold_of[places] == fold])
            held = {"places": own, "probabilities": _probabilities(predictor, whole.dataset, own, asked)}
            if fold == 0:
                held["features"] = _features(predictor, whole.dataset, places, asked)
            _keep(file, known, held)
            shutil.rmtree(run, ignore_errors=True)
        found[np.searchsorted(places, held["places"])] = held["probabilities"]
        features = held.get("features", features)
    assert features is not None  # of the first fold
    return found, features


def _trained_without(
    fold: int,
    folds: int,
    whole: Whole,
    places: NDArray[np.int64],
    fold_of: NDArray[np.int64],
    asked: Asked,
    run: Path,
) -> TrainedClassifier:
    """A network that has learnt from the other folds; its last EMA weights, which no held-out image has chosen."""

    def part(which: NDArray[np.bool_]) -> Dataset:
        entries = tuple(whole.dataset.entries[place] for place in places[which].tolist())
        return Dataset(whole.dataset.classes, entries, whole.dataset.store)

    held = fold_of[places] == fold
    splits = Splits(part(~held), part(held))
    minutes = None if asked.minutes is None else asked.minutes / folds
    changes = dict(asked.changes)
    request = Request(
        data=run, model=asked.model, seed=asked.seed, changes={"schedule.eval_epochs": 1000, **changes}, minutes=minutes
    )
    words = {"out": str(run), "device": asked.device, "workers": asked.workers, "progress": asked.progress}
    options = parse(RunOptions, words, where="options")
    info(f"Fold {fold + 1} of {folds}:")
    budget = budget_of(minutes, changes, sized="input.size_px" in changes)
    data = Examined("classification", splits, look(splits, workers=asked.workers, bands=asked.bands), asked.bands)
    request, start = started(request, options)
    trained(request, start, data, options, budget, device=choose_device(asked.device), world=World())
    last = read_trained(run, "last")
    ema = checkpoint.of("ema", checkpoint.read(run / LAST)[0])
    return TrainedClassifier.of(replace(last, tensors=ema or last.tensors), choose_device(asked.device))


def _probabilities(
    predictor: TrainedClassifier, dataset: Dataset, places: NDArray[np.int64], asked: Asked
) -> NDArray[np.float32]:
    """(N, K) of the images at `places`, all of which can be read."""
    some = Dataset(dataset.classes, [dataset.entries[place] for place in places.tolist()], dataset.store)
    rows = np.zeros((len(places), len(dataset.classes)), np.float32)
    for raw in eval_batches(some, predictor.recipe.input, batch=BATCH, workers=asked.workers):
        if len(raw.labels):
            rows[raw.indices.numpy()] = predictor.probabilities(raw.images.numpy())
    return rows


def _held(file: Path, known: str) -> dict[str, NDArray[Any]] | None:
    """What a file holds, where it is whole and of the same images; else None, and it is made again."""
    try:
        with np.load(file) as held:
            return dict(held) if str(held["known"]) == known else None
    except Exception:  # noqa: BLE001 - missing or damaged, in whatever way
        return None


def _keep(file: Path, known: str, arrays: Mapping[str, Any]) -> None:
    with appearing(file) as made, open(made, "wb") as opened:
        np.savez(opened, known=np.array(known), **arrays)
