"""From a source to the images of a task: the only place of the tasks that opens data or looks at them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convnext.config import Bands, ClassificationRecipe, Recipe, Statistics
from convnext.data.annotated_preflight import DenseFindings, preflight_dense
from convnext.data.band_facts import BandFacts, band_facts
from convnext.data.band_store import BandStore, named
from convnext.data.dataset import DenseDataset
from convnext.data.labelled import Dataset
from convnext.data.opening import DenseSplits, open_dense, open_labelled, open_splits, recognise
from convnext.data.parts import PARTS
from convnext.data.preflight import Findings, preflight
from convnext.data.source import GUESSED, Labels, NamedColumns, Source
from convnext.data.store import printable
from convnext.data.tested import open_tested
from convnext.engine.records import info, warn
from convnext.errors import ConvNeXtError, DataError, nearest
from convnext.tasks.classification.conclusion import Wanted
from convnext.tasks.contents import learnt_line
from convnext.tasks.splits import Fingerprint, as_trained, held_out

_LOOKS = {  # how data of a task look
    "classification": "class folders or a table of classes",
    "detection": "boxes or outlines of objects",
    "segmentation": "masks of classes",
}
AnyFindings = Findings | DenseFindings
Named = Source | str | Path  # data, recognised or as a person names them


def source_of(
    data: Named,
    task: str | None = None,
    *,
    images: str | Path | None = None,
    form: str | None = None,
    apart: bool = False,
    colours: str | Path | None = None,
    labels: Labels | None = None,
    columns: NamedColumns = GUESSED,
) -> Source:
    """What a person names, recognised: of the task that they ask for, else of what it looks like.

    `images`: where the images are, when not beside the annotations; `form`: that of the annotations, when it is named;
    `apart`: held-out images are named elsewhere, so these are annotated; `colours`: a file that names the colours of
    masks; `labels`: whether an image has one or several, where they say so; `columns`: those of a
    table that they name. Raises DataError where they ask for another task.
    """
    if isinstance(data, Source):
        return data
    annotated = True if form or task or apart else None
    with _of_another_task(data, task, f"--task is {task}. Leave it out, or name other data."):
        if task == "classification":
            return recognise(data, images, annotated=False, labels=labels, columns=columns)
        how: dict[str, Any] = {"form": form, "colours": colours, "task": task}
        try:
            source = recognise(data, images, annotated=annotated, labels=labels, columns=columns, **how)
        except DataError:
            if task or form or colours or columns or not _has_classes(data):
                raise
            source = recognise(data, images, annotated=False, labels=labels)
    if task and source.task != task:
        raise DataError(
            f"--task {task} does not fit '{source.name}', whose annotations are for {source.task}. Leave it out, or name "
            "other data."
        )
    return source


@contextlib.contextmanager
def _of_another_task(data: Named, task: str | None, advice: str = "") -> Iterator[None]:
    """Inside, data that cannot be opened for `task` but for another say so, with `advice`; without, to score a run."""
    try:
        yield
    except DataError as error:
        other = _task_of(data) if task else None
        if other is None or other == task:
            raise
        name = data.name if isinstance(data, Source) else printable(str(data))
        advice = advice or f"the run is for {task}. {_instead(name, other)}"
        raise DataError(f"'{name}' has {_LOOKS[other]}, for {other}, and {advice}", error.findings) from None


def _task_of(data: Named) -> str | None:
    """What data look as if they were for; None where they look like nothing."""
    if isinstance(data, Source):
        return data.task
    with contextlib.suppress(DataError):
        source = recognise(data)
        if source.task != "classification" or len(open_splits(source).train.classes) > 1:
            return source.task
    return None


def _has_classes(data: str | Path) -> bool:
    """Whether data look like class folders, or like a table of classes, also one that cannot be read."""
    with contextlib.suppress(DataError):
        if Path(data).is_file() and recognise(data).form == "table":
            return True
    return _task_of(data) == "classification"


def scored_source(
    data: Named,
    task: str,
    *,
    images: str | Path | None = None,
    form: str | None = None,
    colours: str | Path | None = None,
    columns: NamedColumns = GUESSED,
) -> Source:
    """What a person names to score a run of `task` on, recognised; annotated images may turn out to be of another task."""
    if isinstance(data, Source):
        return data
    with _of_another_task(data, task):
        if task == "classification":
            return recognise(data, images, annotated=False, columns=columns)
        return recognise(data, images, form=form, annotated=True, colours=colours, task=task)


def _instead(name: str, task: str) -> str:
    """What to do with data of `task` and a run of another."""
    model = {"classification": "classifier", "detection": "detector", "segmentation": "segmenter"}[task]
    return f"Score a {model} on it: `convnext train {name}` makes one."


def part_of(source: Source, *, part: str | None, classes: tuple[str, ...]) -> Any:
    """The images of one part with labels that index `classes`; None: val where there is one, else test, else all."""
    if source.task != "classification":
        return open_dense(source, part=part, classes=classes)
    return open_labelled(source, classes=classes, split=part)


def measured_on(test: Any, chosen: Recipe, wanted: Wanted) -> dict[str, Any]:
    """What is `wanted` of the answers of a classifier, and its test part, which shall show it; nothing where nothing is.

    Raises ConvNeXtError where there are no answers that could be right, and for sets where an image may have several labels.
    """
    if not wanted:
        return {}
    if not isinstance(chosen, ClassificationRecipe):
        raise ConvNeXtError(
            f"A promise and sets are for classifiers; these data are for {chosen.task}. Leave them out."
        )
    wanted.require(several=chosen.labels == "multi")
    return {"wanted": wanted, "test": test}


def test_of(source: Source, classes: tuple[str, ...], *, val_apart: bool) -> Any:
    """The images of a test part that a run on `source` neither trains on nor chooses by, or None.

    `val_apart`: the held-out images are named elsewhere. A test part that cannot be scored is told of, and is None.
    """
    try:
        return open_tested(source, classes, val_apart=val_apart)
    except DataError as error:
        warn(f"The test part is not scored: {error}")
        return None


def open_scored(
    source: Source,
    recipe: Recipe,
    metadata: Mapping[str, Any],
    fingerprint: Fingerprint,
    *,
    part: str | None = None,
    run: Path | None = None,
    learnt: Callable[[str], None] = warn,
) -> Any:
    """The images to score a run on, with labels that index its classes; what is scored is logged where it surprises.

    `fingerprint` is that of the task's `facts`; `run`: the folder of its weights, which may know what it has learnt from;
    `learnt` is told where these are the images that it has learnt from.
    """
    return read_by(_scored(source, recipe, metadata, fingerprint, part, run, learnt), recipe.input)


def _scored(
    source: Source,
    recipe: Recipe,
    metadata: Mapping[str, Any],
    fingerprint: Fingerprint,
    part: str | None,
    run: Path | None,
    learnt: Callable[[str], None],
) -> Any:
    name = source.name
    source = source.with_bands(recipe.input.bands)
    if part not in (None, *PARTS):
        raise DataError(f"part = '{part}' is none of {', '.join(PARTS)}.{nearest(part, PARTS)}")
    if source.task != recipe.task:
        raise DataError(
            f"'{name}' is annotated for {source.task}, and the run is for {recipe.task}. {_instead(name, source.task)}"
        )
    if isinstance(recipe, ClassificationRecipe):
        source = as_trained(source, recipe.labels, metadata)
    held = held_out(source, recipe, metadata, fingerprint)
    if held is None:
        with _of_another_task(source.path, recipe.task if recipe.task == "classification" else None):
            dataset = part_of(source, part=part, classes=tuple(metadata["classes"]))
    elif metadata.get("crosswise"):
        figure, called = ("map", "mAP") if source.labels == "multi" else ("top1", "top-1")
        learnt(
            f"The run has learnt from all {len(held.train.entries) + len(held.val.entries):,} of these images, so these "
            f"figures say little about others: its {called} by cross-validation is {metadata['metrics'][figure]:.1%}."
        )
        return part_of(source, part=part, classes=tuple(metadata["classes"]))
    elif part == "test":
        tested = open_tested(source, tuple(metadata["classes"]), val_apart=False)
        if tested is None:
            raise DataError(f"'{name}' has no part 'test', only what the run was trained on and what it held out.")
        return tested
    else:
        dataset = held.train if part == "train" else held.val
    if held is not None and metadata.get("given"):
        info("The run learnt from corrected labels; these figures go by the labels as they are in the data.")
    if metadata.get("fold") and held is None:
        number, folds = metadata["fold"]
        warn(
            f"The run is fold {number} of {folds} of a cross-validation: where these are its images, it has learnt most of "
            "them. What it scores on those it held out is in its evaluation.json."
        )
    if fingerprint(dataset, recipe) == metadata.get("images"):
        learnt("The run was trained on these very images: the figures say little about others.")
        return dataset
    if held is not None:
        info(
            f"The run was trained on {len(held.train.entries):,} of these images: scoring the "
            f"{len(held.val.entries):,} that it held out."
        )
    if run is not None and recipe.task == "classification":  # elsewhere masks count in what is kept of an image
        line = learnt_line(run, dataset, everything=bool(metadata.get("crosswise")))
        if line:
            warn(line)
    return dataset


def bands_of(
    splits: Any, *, asked: Sequence[str], channels: int | None, workers: int, kept: Bands | None = None
) -> BandFacts | None:
    """How the images to train on are read where they are bands, not colours; raises DataError where nothing fits.

    `asked`: the bands that a person names, `channels`: how many they want, `kept`: how the run that goes on reads them.
    """
    _require_files(splits.train, asked)
    facts = band_facts(splits.train, asked=asked, channels=channels, workers=max(0, workers), kept=kept)
    if facts is None and channels not in (None, 1, 3):
        raise DataError(f"--channels {channels} does not fit: the images are in colour, or in grey with --channels 1.")
    return facts


def _require_files(data: Dataset | DenseDataset, bands: Sequence[str]) -> None:
    """Raise DataError where `bands` are ends of names, and each image is one file."""
    if named(bands) and not isinstance(data.store, BandStore):
        raise DataError(
            f"--bands {','.join(bands)} are ends of files' names, and these images have all bands in one file. Give numbers."
        )


def read_by(data: Any, config: Statistics | None) -> Any:
    """Splits or a data set of masks whose images are read as `config` has it, where that is of bands; others as they are."""
    bands = config if isinstance(config, Bands) and config.bands else None
    if bands and isinstance(data, DenseDataset):
        _require_files(data, bands.bands)
    if isinstance(data, DenseSplits):
        return replace(data, train=read_by(data.train, bands), val=read_by(data.val, bands))
    return replace(data, bands=bands) if isinstance(data, DenseDataset) else data


def look(data: Any, *, workers: int, bands: Bands | None = None) -> AnyFindings:
    """What a look at all images finds: `data` are splits or one data set; `bands`: how they are read, if they have any."""
    if isinstance(data, DenseSplits | DenseDataset):
        return preflight_dense(data, workers=max(0, workers))
    return preflight(data, workers=max(0, workers), bands=bands)


def image_px(findings: AnyFindings) -> int:
    """The shorter side of most images: what a fitted recipe follows."""
    return findings.median_px if isinstance(findings, Findings) else min(findings.median_size)
