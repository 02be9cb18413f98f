"""`convnext train DATA --folds K`: a run for each fold, each image held out once, and what they come to together.

Each fold is a run of its own in RUN/fold1, ...; the recipe is that of the first. The same call goes on with what was stopped.
"""

import contextlib
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from convnext.config import Bands, Recipe, RunOptions, parse
from convnext.data.annotated import AnnotatedImage
from convnext.data.dataset import DenseDataset
from convnext.data.drawn import Units
from convnext.data.formats.folders import listed
from convnext.data.labelled import Dataset, Splits, present, rarest
from convnext.data.opening import DenseSplits, open_parts
from convnext.data.source import Source
from convnext.deploy.output import refuse_among
from convnext.engine.claim import Claim
from convnext.engine.distributed import World
from convnext.engine.records import info
from convnext.errors import ConvNeXtError, DataError, number_of
from convnext.files import from_json, to_json, write_text
from convnext.reports.predictions import watching
from convnext.reports.report import write_page_of
from convnext.studies.audit.copies import copies
from convnext.studies.audit.looks import Looks, known_as, look_at, read_looks
from convnext.studies.folds.parts import parts, require_folds, together
from convnext.studies.folds.report import write_report
from convnext.tasks.arguments import TrainArguments, requested
from convnext.tasks.budget import budget_of
from convnext.tasks.opening import bands_of, source_of
from convnext.tasks.splits import corrected_splits
from convnext.tasks.train import Done, Request, examined, started, trained
from convnext.tasks.workplace import workplace

SUMMARY = "folds.json"
MOST_TOP5 = 5  # classes of which top-5 is always 100 %
_LOOKS = "looks.npz"


@dataclass(frozen=True)
class CrossValidated:
    """What the runs of all folds came to."""

    out: Path
    task: str
    n: int  # images, each held out once
    metric: str  # that chose the weights of each
    runs: tuple[Mapping[str, Any], ...]  # 'run', 'n' and the scores, a fold each

    @property
    def mean(self) -> dict[str, float]:
        """Of each score over the folds."""
        return {name: statistics.fmean(values) for name, values in self._scores().items()}

    @property
    def se(self) -> dict[str, float]:
        """The standard error of each mean: the spread of the folds over the root of how many there are."""
        return {name: statistics.stdev(values) / math.sqrt(len(values)) for name, values in self._scores().items()}

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.out / "report.html"

    def to_dict(self) -> dict[str, Any]:
        """What folds.json holds and `convnext train --folds --json` prints."""
        about = {
            "run": str(self.out),
            "report": str(self.report),
            "task": self.task,
            "n": self.n,
            "metric": self.metric,
        }
        return {**about, "mean": self.mean, "se": self.se, "folds": list(map(dict, self.runs))}

    def lines(self) -> list[str]:
        """What `convnext train --folds` prints."""
        mean, se = self.mean, self.se
        told = [f"{name} {mean[name]:.4f} ± {se[name]:.4f}" for name in mean]
        way = (
            f"Mean and standard error of {len(self.runs)} folds, {number_of(self.n, 'image')} held out once: {self.out}"
        )
        return [*told, way]

    def _scores(self) -> dict[str, list[float]]:
        """Those that every fold has."""
        known = [run["scores"] for run in self.runs]
        names = [name for name in known[0] if all(scores.get(name) is not None for scores in known)]
        return {name: [scores[name] for scores in known] for name in names}


def cross_validate(data: str | Path, folds: int = 5, **how: Unpack[TrainArguments]) -> CrossValidated:
    """Train a run for each of `folds` parts of `data`, which it holds out, into `out`/fold1, ...; what they come to.

    `how`: the arguments of `convnext.train`; `minutes` are those of all folds together. The same call goes on with what was
    stopped. Raises ConvNeXtError for everything that the caller can mend.
    """
    request, options = requested(data, **how)
    images = how.get("images")
    refuse_among(options.out, [data] if images is None else [data, images])
    found = cross_validated(request, options, folds)
    if found is None:
        raise ConvNeXtError("Of several processes the first alone has the result. Call convnext.cross_validate in one.")
    return found


def cross_validated(request: Request, options: RunOptions, folds: int) -> CrossValidated | None:
    """Train and evaluate once for each fold into `options.out`; None in processes that are not the first.

    Raises what `train` raises, and ConvNeXtError where the images cannot be cut into so many parts.
    """
    require_folds(folds, folds)
    if request.val is not None:
        raise ConvNeXtError(
            "Held-out images of their own are named, and --folds holds out every image once. Leave one out."
        )
    out, minutes = Path(options.out), request.minutes
    if minutes is not None:
        budget = budget_of(minutes, request.changes, sized=bool(request.size_px), weights=request.weights is not None)
        minutes = None if budget is None else budget.minutes / folds
    with workplace(options) as (device, world):
        source = source_of(request.data, request.task)
        source = replace(source, bands=request.bands) if request.bands else source
        pool, groups = _pool(source, request.corrections)
        fold_of = world.from_first(_parts(pool, groups, folds, request, options) if world.first else None)
        if world.first:
            held = np.bincount(fold_of, minlength=folds)
            info(
                f"{folds} runs, each on all images but one part of {held.min():,} to {held.max():,}; they are the parts of "
                f"{number_of(len(fold_of), 'image')}. {_together(groups)}"
            )
            if minutes is not None:
                info(f"--minutes {request.minutes} are {minutes:g} for each fold.")
        runs, task = [], source.task
        for fold in range(folds):
            own = options.model_copy(update={"out": str(out / f"fold{fold + 1}")})
            asked = replace(request, minutes=minutes) if fold == 0 else _as_first(request, out / "fold1")
            if world.first:
                info(f"Fold {fold + 1} of {folds}:")
            with Claim(Path(own.out)) if world.first else contextlib.nullcontext() as claim:
                own_world, splits = replace(world, claim=claim), _splits(pool, fold_of, fold, folds, source)
                done = _one(source, asked, splits, own, device, own_world)
            if world.first:
                page = write_page_of(done.out, task, done.splits.val)
                many = len(done.evaluation.classes) > MOST_TOP5
                scores = {name: value for name, value in done.evaluation.scores.items() if many or name != "top5"}
                about = {"fold": fold + 1, "run": str(done.out), "report": str(page)}
                runs.append({**about, "n": done.evaluation.n, "step": done.finished.step, "scores": scores})
        if not world.first:
            return None
        found = CrossValidated(out, task, len(fold_of), done.finished.metric, tuple(runs))
        write_text(out / SUMMARY, to_json(found.to_dict(), indent=1) + "\n")
        write_report(found.to_dict(), found.report)
        return found


def _together(groups: Units | None) -> str:
    """What is said of images that stay in one part."""
    if groups is None:
        return "Copies and series, such as frames of a video, are in one part."
    return f"Copies, and each of the {number_of(len(np.unique(groups[groups > 0])), 'group')}, are in one part."


def _one(source: Source, request: Request, splits: Any, options: RunOptions, device: Any, world: World) -> Done:
    """The run of one fold."""
    budget = budget_of(
        request.minutes, request.changes, sized=bool(request.size_px), weights=request.weights is not None
    )
    request, start = started(request, options)
    data = examined(source, splits, request, options, world)
    return trained(request, start, data, options, budget, device=device, world=world, watch=watching)


def _as_first(request: Request, first: Path) -> Request:
    """The same with the recipe of the first fold, as it was resolved: a few images more or less decide nothing."""
    recipe: Recipe = parse(Recipe, from_json((first / "recipe.json").read_text()), where=f"'{first}'")
    return replace(request, recipe=recipe, model=None, changes={}, minutes=None, size_px=None)


def _pool(source: Source, corrections: str | None) -> tuple[Dataset | DenseDataset, Units | None]:
    """The images of the train and val parts, or all where there are none, and the groups of them that a person names.

    Raises DataError where they do not fit together.
    """
    if source.task == "classification":
        listing = listed(source, only=True)
        kept = ~listing.in_part("test")
        pool, groups = listing.dataset(kept), None if listing.groups is None else listing.groups[kept]
        if not pool.several and len(present(pool.labels())) < 2:
            raise DataError(f"'{source.name}' has images of one class only; training needs two or more.", listing.said)
        if corrections is None:
            return pool, groups
        whole = Splits(pool, replace(pool, entries=()), units=groups)
        splits: Splits = corrected_splits(source, whole, corrections)
        info(splits.notes[-1])
        return splits.train, splits.units
    if corrections is not None:
        return corrected_splits(source, None, corrections), None
    found = open_parts(source)
    own = [found[part] for part in ("train", "all", "val") if part in found]
    if not own:
        raise DataError(f"'{source.name}' has a test part alone. Name the images to train on.")
    first = own[0]
    for other in own[1:]:
        if (other.values, other.colours, other.ignored) != (first.values, first.colours, first.ignored):
            raise DataError(f"The masks of '{source.name}' have other values in train than in val. Name one part.")
    entries = [entry for part in own for entry in part.entries]
    return replace(first, entries=tuple(_renumbered(entries) if len(own) > 1 else entries)), None


def _renumbered(entries: Sequence[AnnotatedImage]) -> Iterator[AnnotatedImage]:
    """The same with numbers of images and objects that are unique in all parts together."""
    first = 1
    for number, entry in enumerate(entries, 1):
        objects = entry.objects
        if objects is not None:
            objects = replace(objects, ids=np.arange(first, first + len(objects)))
            first += len(objects)
        yield replace(entry, image_id=number, objects=objects)


def _parts(
    pool: Dataset | DenseDataset, groups: Units | None, folds: int, request: Request, options: RunOptions
) -> np.ndarray:
    """(N,): the fold that holds out each image; `groups`: of images that a person keeps together."""
    paths = [entry.path for entry in pool.entries]
    labels = np.zeros(len(paths), np.int64)
    marks = None
    if isinstance(pool, Dataset) and pool.several:
        marks = pool.labels()
    elif isinstance(pool, Dataset):
        labels = pool.labels()
    require_folds(folds, len(paths))
    known, file = known_as(paths, labels.tolist(), pool.classes or ("",)), Path(options.out) / _LOOKS
    looks: Looks | None = read_looks(file, known)
    if looks is None:
        looks = look_at(pool.store, paths, workers=options.workers, bands=_bands(pool, request, options.workers))
        looks.write(file, known)
    alone = labels if marks is None else rarest(marks)
    whole = together(copies(looks), looks, paths, alone, groups, folds)
    return parts(paths, labels if marks is None else marks, whole, folds, seed=request.seed)


def _bands(pool: Dataset | DenseDataset, request: Request, workers: int) -> Bands | None:
    """How the images are read where they are of bands. Raises DataError where nothing fits."""
    if not isinstance(pool, Dataset):
        return None
    facts = bands_of(Splits(pool, pool), asked=request.bands, channels=request.channels, workers=workers)
    return facts.bands if facts else None


def _splits(
    pool: Dataset | DenseDataset, fold_of: np.ndarray, fold: int, folds: int, source: Source
) -> Splits | DenseSplits:
    held = fold_of == fold

    def part(which: np.ndarray) -> Any:
        places = np.flatnonzero(which).tolist()
        if isinstance(pool, Dataset):
            return replace(pool, entries=tuple(pool.entries[place] for place in places))
        return replace(pool, entries=tuple(pool.entries[place] for place in places))

    about: dict[str, Any] = {"fold": (fold + 1, folds)}
    if not isinstance(pool, Dataset):
        return DenseSplits(part(~held), part(held), **about)
    return Splits(part(~held), part(held), **about, columns=source.columns.kept_by_run)
