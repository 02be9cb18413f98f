"""`audit`: labelled images looked at, judged by networks that have not learnt from them, and told in tables and a page.

Each step ends in a file of the folder, so that the same call goes on with what was stopped.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convnext.config import Bands
from convnext.data.bands import shown_to_eyes
from convnext.data.labelled import Splits
from convnext.data.source import NamedColumns
from convnext.data.store import printable
from convnext.data.whole import Whole, open_whole
from convnext.deploy.output import refuse_among
from convnext.engine.claim import LOCK, Claim
from convnext.engine.records import Meter, info, warn
from convnext.errors import ConvNeXtError, DataError, number_of
from convnext.files import appearing, to_json, told, write_bytes, write_text
from convnext.recipes.shorter import require_minutes
from convnext.studies.audit.copies import Copies, copies
from convnext.studies.audit.findings import Audit, groups, outliers, suspects
from convnext.studies.audit.looks import Looks, known_as, look_at, read_looks
from convnext.studies.audit.neighbours import neighbours
from convnext.studies.audit.networks import Asked, Said, said
from convnext.studies.audit.page import audit_page
from convnext.studies.audit.tables import write_tables
from convnext.studies.folds.parts import parts, require_folds, together
from convnext.tasks.classification.facts import fingerprint
from convnext.tasks.opening import bands_of, source_of

RECORD = "audit.json"  # what the folder is the audit of, and digests of its tables
_PROPOSED = 3  # nearest images by features that are compared with each


def audit(
    data: str | os.PathLike[str],
    out: str | Path,
    *,
    weights: str | os.PathLike[str] | None = None,
    folds: int = 5,
    model: str | None = None,
    epochs: float | str | None = None,
    size_px: int | None = None,
    minutes: float | str | None = None,
    bands: Sequence[str | int] = (),
    images: str | os.PathLike[str] | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    group_column: str | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = -1,
    progress: bool = True,
) -> Audit:
    """Audit `data`, class folders or a table, into the folder `out`; the same call again goes on with what was stopped.

    `weights`: a run, a folder, a file or 'hub:OWNER/NAME', whose network is frozen and judges by its features. Without, a
    small `model` ('atto') is trained for each of `folds`, for `epochs` on images of `size_px`, or in `minutes` altogether.
    `bands`: the channels of images of many bands, in order, as of `train`; those of `weights` are their own.
    `images`: where those of a table are, if not beside it; `label_column`, `path_column`: which of its columns are meant,
    `group_column`: what images have in common that keeps them in one fold.
    Raises ConvNeXtError for everything that the caller can mend.
    """
    changes = {"schedule.epochs": epochs, "input.size_px": size_px}
    changes = {field: value for field, value in changes.items() if value is not None}
    refuse_among(str(out), [os.fspath(data)])
    require_folds(folds, folds)
    if weights is not None and (model or minutes or changes):
        raise ConvNeXtError(
            f"The weights '{weights}' are frozen: nothing is trained, so a model, epochs, a size or minutes say nothing. "
            "Leave them out."
        )
    if minutes is not None:
        minutes = require_minutes(minutes)
    columns = NamedColumns.of(label_column, path_column, group_column)
    source = source_of(os.fspath(data), images=None if images is None else os.fspath(images), columns=columns)
    source = replace(source, bands=tuple(map(str, bands))) if bands else source
    folder = Path(out)
    with Claim(folder):
        whole = open_whole(source)
        known = " ".join([_known(whole), str(folds), str(seed), *map(str, bands)])
        before = _record(folder, known)
        for note in whole.notes:
            info(note)
        asked = Asked(
            out=folder,
            known=known,
            weights=None if weights is None else os.fspath(weights),
            model=model,
            seed=seed,
            minutes=minutes,
            changes=changes,
            bands=_bands(whole, bands, workers),
            device=device,
            workers=workers,
            progress=progress,
        )
        _write_record(folder, {"known": known, "tables": before})
        looks = _looks(whole, asked)
        hashed = copies(looks)
        fold_of = _folds(whole, looks, hashed, folds, seed)
        if weights is None:
            info(
                f"No weights are given, so {folds} small networks are trained, each to judge the images that it has not "
                "seen; each tells how long it takes. `--minutes` fits them to a time, `--weights` needs none of them."
            )
            if minutes is not None:
                info(f"{float(minutes):g} minutes are {float(minutes) / folds:g} for each fold.")
        judged = said(whole, looks, fold_of, asked)
        found = _found(whole, looks, hashed, judged, folder)
        written = write_tables(found, before)
        for name in ("audit.csv", "duplicates.csv", "outliers.csv", "pairs.csv"):
            if name not in written:
                warn(f"'{folder / name}' was changed since it was written, and stays. Move it away for a new one.")
        _write_record(folder, {"known": known, "tables": {**before, **written}})
        with told(found.page):
            shown = partial(shown_to_eyes, config=asked.bands)
            write_bytes(found.page, str(audit_page(found, whole.dataset.store, source.name, shown)).encode())
    return found


def _known(whole: Whole) -> str:
    """What tells these images and labels from others."""
    paths = [entry.path for entry in whole.dataset.entries]
    if not whole.dataset.several:
        return known_as(paths, whole.labels.tolist(), whole.dataset.classes)
    return f"{known_as(paths, [0] * len(paths), ('',))} {fingerprint(whole.dataset)}"


def _bands(whole: Whole, asked: Sequence[str | int], workers: int) -> Bands | None:
    """How the images are read where they are of bands. Raises DataError where nothing fits."""
    facts = bands_of(Splits(whole.dataset, whole.dataset), asked=tuple(map(str, asked)), channels=None, workers=workers)
    for line in facts.lines if facts else ():
        info(line)
    return facts.bands if facts else None


def _record(folder: Path, known: str) -> dict[str, str]:
    """Digests of the tables that an earlier call wrote. Raises ConvNeXtError where the folder is of something else."""
    file = folder / RECORD
    others = sorted(each.name for each in folder.iterdir() if each.name not in (LOCK, RECORD))
    if not file.exists():
        if others:
            raise ConvNeXtError(f"'{folder}' holds other files ('{printable(others[0])}'). Name a new folder.")
        return {}
    try:
        held = json.loads(file.read_text())
        same, tables = held["known"] == known, dict(held["tables"])
    except (OSError, ValueError, TypeError, LookupError):
        raise ConvNeXtError(f"'{file}' is damaged. Name a new folder, or remove this one.") from None
    if not same:
        raise ConvNeXtError(
            f"'{folder}' holds an audit of other images, labels, folds or seed. Name a new folder, or give the same."
        )
    return tables


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_text(folder / RECORD, to_json(record, indent=1) + "\n")


def _looks(whole: Whole, asked: Asked) -> Looks:
    """A look at every image, kept. Raises DataError where there are fewer than two that can be read."""
    file = asked.work / "looks.npz"
    looks = read_looks(file, asked.known)
    if looks is None:
        total = len(whole.dataset.entries)
        with closing(Meter(total, 0, label="looking at images", shown=asked.progress)) as meter:
            looks = look_at(
                whole.dataset.store,
                [entry.path for entry in whole.dataset.entries],
                workers=asked.workers,
                bands=asked.bands,
                seen=lambda done: meter.advance("", done),
            )
        with told(file):
            looks.write(file, asked.known)
    for entry, reason in zip(whole.dataset.entries, looks.reasons, strict=True):
        if reason:
            warn(f"Skipped '{printable(entry.path)}': {reason}")
    if not whole.dataset.several and len(np.unique(whole.labels[looks.read])) < 2:
        raise DataError("The images that can be read are of one class only. Mend or add some of another class.")
    return looks


def _folds(whole: Whole, looks: Looks, hashed: Copies, folds: int, seed: int) -> np.ndarray:
    """(N,): the fold of each image, -1 of those that cannot be read. Copies are in one fold."""
    places = np.flatnonzero(looks.read)
    row = {int(place): number for number, place in enumerate(places)}
    paths = [entry.path for entry in whole.dataset.entries]
    kept = together(hashed, looks, paths, whole.labels, whole.groups, folds)
    read = [[row[place] for place in group if place in row] for group in kept]
    found = np.full(len(whole.dataset.entries), -1, np.int64)
    said = whole.dataset.labels() if whole.dataset.several else whole.labels
    found[places] = parts(
        [paths[place] for place in places.tolist()], said[places], [*filter(None, read)], folds, seed=seed
    )
    return found


def _found(whole: Whole, looks: Looks, hashed: Copies, judged: Said, folder: Path) -> Audit:
    """Everything that follows from looks, features and probabilities."""
    near = neighbours(judged.features, kinds=looks.digests[judged.places])
    pairs = judged.places[near.proposed(_PROPOSED)]
    wrong, mixed = suspects(whole, judged)
    entries = whole.dataset.entries
    unjudged = judged.places[~np.isfinite(judged.probabilities).any(1)].tolist()
    if unjudged:
        warn(f"{number_of(len(unjudged), 'label')} cannot be judged: no other fold holds an image of the class.")
    _keep(whole, judged, near.distances, folder)
    skipped = {printable(entry.path): why for entry, why in zip(entries, looks.reasons, strict=True) if why}
    return Audit(
        out=folder,
        n=len(judged.places),
        classes=whole.dataset.classes,
        wrong=wrong,
        groups=groups(whole, hashed.with_(copies(looks, pairs), len(entries))),
        outliers=outliers(whole, judged, near),
        pairs=mixed,
        several=whole.dataset.several,
        skipped=skipped,
        unjudged=tuple(entries[place].path for place in unjudged),
    )


def _keep(whole: Whole, judged: Said, distances: np.ndarray, folder: Path) -> None:
    """probabilities.npz: what other tools can go on from."""
    file = folder / "probabilities.npz"
    entries = whole.dataset.entries
    with told(file), appearing(file) as made, open(made, "wb") as opened:
        np.savez_compressed(
            opened,
            paths=np.array([printable(entries[place].path) for place in judged.places.tolist()], str),
            labels=whole.dataset.labels()[judged.places],
            classes=np.array(whole.dataset.classes, str),
            probabilities=judged.probabilities,
            distances=distances,
        )
