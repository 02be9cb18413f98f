"""Error under corruption and attack: a grid of cells, one evaluation each, that goes on where it was interrupted.

mCE and relative mCE: Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4.1. Results are in OUT/robustness.json,
written whole after every cell and the same for the same network, data and seed; the clock is in
OUT/robustness_timings.jsonl.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from convnext.config import ClassificationRecipe, Recipe
from convnext.data.labelled import Dataset
from convnext.engine.claim import Claim
from convnext.engine.records import Log, Meter, info
from convnext.errors import ConvNeXtError, nearest
from convnext.files import to_json, write_text
from convnext.studies.robustness.attacks import Attack
from convnext.studies.robustness.corruptions import IMAGENET_C, IMAGENET_C_BAR, SEVERITIES, Corruption
from convnext.studies.robustness.measured import ERRORS, Measure, Scorer, measure_of, measured
from convnext.studies.robustness.scores import ALEXNET, Reference, reference_of, refuse_unlike, summarise
from convnext.tasks.classification import facts
from convnext.tasks.classification.passing import Pass
from convnext.tasks.digest import digest

RESULTS, TIMINGS = "robustness.json", "robustness_timings.jsonl"
VERSION = 1  # of the file and of what the corruptions sample: results of another version are not continued
SUITES = {
    "corruptions": "the 15 corruptions of ImageNet-C (frost synthetic)",
    "c-bar": "the 10 corruptions of ImageNet-C-bar",
    "attacks": "FGSM and PGD",
}


@dataclass(frozen=True)
class Cell:
    """One evaluation: row and column in the table, and what is done to the images."""

    row: str
    column: str
    how: Corruption | Attack


@dataclass(frozen=True)
class Suite:
    """Cells in the order in which they run."""

    name: str
    seed: int
    cells: tuple[Cell, ...]


def suite(
    name: str,
    *,
    seed: int = 0,
    severities: Sequence[int] = SEVERITIES,
    names: Sequence[str] = (),
    stored: bool = False,
    eps: Sequence[float] = (1, 2, 4, 8),
    steps: int = 10,
) -> Suite:
    """The suite called `name`. `names` and `severities` choose corruptions; `stored` saves each image as JPEG of quality
    85, as the published files are; `eps` (grey levels of 255) and `steps` are for attacks, PGD's step is 2.5 eps / steps.
    """
    if name not in SUITES:
        raise ConvNeXtError(f"There is no suite '{name}'.{nearest(name, SUITES)} There are {', '.join(SUITES)}.")
    if name == "attacks":
        pairs = [(kind, Attack(kind, e, steps, 2.5 * e / steps, seed=seed)) for kind in ("fgsm", "pgd") for e in eps]
        return Suite(name, seed, tuple(Cell(kind, f"{attack.eps:g}", attack) for kind, attack in pairs))
    known = IMAGENET_C if name == "corruptions" else IMAGENET_C_BAR
    for chosen in names:
        if chosen not in known:
            raise ConvNeXtError(f"'{chosen}' is no corruption of suite '{name}'.{nearest(chosen, known)}")
    rows = [kind for kind in known if not names or kind in names]
    cells = [Cell(kind, str(level), Corruption(kind, level, seed, stored)) for kind in rows for level in severities]
    return Suite(name, seed, tuple(cells))


def require_colours(recipe: Recipe) -> None:
    """Raise ConvNeXtError for a network of bands: corruptions and attacks are defined for pixels of 8 bit, grey or RGB."""
    if isinstance(recipe, ClassificationRecipe) and (recipe.input.wide or len(recipe.input.mean) not in (1, 3)):
        raise ConvNeXtError(
            f"Corruptions and attacks are defined for images in colour or grey, and this network reads "
            f"{len(recipe.input.mean)} bands. Leave out --suite."
        )


def choose_reference(name: str, chosen: Suite, measure: Measure = "top1") -> Reference | None:
    """What mCE is relative to: 'auto' (AlexNet for the whole of ImageNet-C by top-1, else nothing), 'none', 'alexnet', or
    the robustness.json of another network.

    Raises ConvNeXtError when it does not have the cells of `chosen`, or other errors than those of `measure`.
    """
    whole = {row: frozenset(cells) for row, cells in _shape(chosen).items()}
    fits = set(whole) == set(ALEXNET.means) and set(whole.values()) == {ALEXNET.severities}
    if name == "none" or (name == "auto" and not (fits and measure == "top1")):
        return None
    reference = ALEXNET if name in ("auto", "alexnet") else reference_of(read_results(name), name)
    if reference.measure != measure:
        raise ConvNeXtError(
            f"Reference '{reference.name}' measures {ERRORS[reference.measure]}, and this run is judged by "
            f"{ERRORS[measure]}. Take none, or another run."
        )
    refuse_unlike(_shape(chosen), reference)
    return reference


def _shape(chosen: Suite) -> dict[str, list[str]]:
    """Row -> its columns."""
    rows: dict[str, list[str]] = {}
    for cell in chosen.cells:
        rows.setdefault(cell.row, []).append(cell.column)
    return rows


def run_suite(
    scorer: Scorer,
    dataset: Dataset,
    chosen: Suite,
    out: str | Path,
    *,
    reference: Reference | None = None,
    only: Sequence[int] = (),
    workers: int = 0,
    batch: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate every cell of `chosen` that OUT/robustness.json does not hold yet; the suite's results with a summary.

    `only`: see `tasks.subsets`. Raises ConvNeXtError when OUT holds results of another network, data or seed.
    """
    require_colours(scorer.recipe)
    if reference:
        refuse_unlike(_shape(chosen), reference)  # now, not after hours
    folder = Path(out)
    with Claim(folder) as claim:
        results = _Results(folder, fingerprint(scorer, dataset, chosen.seed, only))
        log = Log(folder / TIMINGS, claim=claim)
        run = _Run(scorer, dataset, results, log, tuple(only), workers, batch)
        left = [cell for cell in chosen.cells if not run.has(cell)]
        total = len(chosen.cells) + 1
        meter = Meter(total, total - len(left) - 1, label=chosen.name, shown=progress)
        try:
            clean = run.clean()
            for number, cell in enumerate(left):
                meter.advance(f"{cell.row} {cell.column}", total - len(left) + number)
                run.cell(cell)
            meter.advance("done", total)
        finally:
            meter.close()
            log.close()
        errors: dict[str, dict[str, float]] = {}
        for cell in chosen.cells:
            error = results.value["cells"][cell.row][cell.column]["error"]
            errors.setdefault(cell.row, {})[cell.column] = error
        summary = summarise(errors, clean["error"], reference)
        results.value["summary"] = results.value.get("summary", {}) | {chosen.name: summary}
        results.write()
    return {
        "suite": chosen.name,
        "measure": measure_of(scorer.recipe),
        "about": SUITES[chosen.name],
        "seed": chosen.seed,
        "n": clean["n"],
        "classes": len(only) or len(dataset.classes),
        "clean": clean,
        "images_per_s": _clean_rate(folder / TIMINGS),
        "errors": errors,
        "summary": summary,
        "skipped": run.skipped,
    }


class _Run:
    """Evaluations that are kept as they are made."""

    def __init__(
        self,
        scorer: Scorer,
        dataset: Dataset,
        results: "_Results",
        log: Log,
        only: tuple[int, ...],
        workers: int,
        batch: int,
    ):
        self.scorer, self.dataset, self.results, self.log = scorer, dataset, results, log
        self.only, self.skipped = only, dict[str, str]()
        self.how = Pass(workers, batch, skipped=self.skipped)

    def clean(self) -> dict[str, Any]:
        """Error on the images as they are."""
        if "clean" not in self.results.value:
            self.results.value["clean"] = self._measure("clean", self.how)
            self.results.write()
        kept: dict[str, Any] = self.results.value["clean"]
        return kept

    def has(self, cell: Cell) -> bool:
        """Whether it was measured before, with the same settings."""
        kept = self.results.value["cells"].get(cell.row, {}).get(cell.column, {})
        return bool(kept.get("settings") == asdict(cell.how))

    def cell(self, cell: Cell) -> None:
        """Measure and keep one cell."""
        asked = cell.how
        how = replace(self.how, change=asked) if isinstance(asked, Corruption) else replace(self.how, attack=asked)
        measured = {**self._measure(f"{cell.row} {cell.column}", how), "settings": asdict(cell.how)}
        self.results.value["cells"].setdefault(cell.row, {})[cell.column] = measured
        self.results.write()

    def _measure(self, name: str, how: Pass) -> dict[str, Any]:
        start = time.monotonic()
        error, count = measured(self.scorer, self.dataset, how, only=self.only)
        seconds = time.monotonic() - start
        self.log.write(cell=name, seconds=seconds, images_per_s=count / max(seconds, 1e-9))
        return {"error": error, "n": count}


class _Results:
    """robustness.json: read when it belongs to this network and data, written whole."""

    def __init__(self, folder: Path, expected: dict[str, Any]):
        self.path = folder / RESULTS
        self.value: dict[str, Any] = {"fingerprint": expected, "cells": {}}
        if not self.path.exists():
            return
        found = read_results(self.path)
        differ = [name for name, value in expected.items() if found["fingerprint"].get(name) != value]
        if differ:
            raise ConvNeXtError(
                f"'{self.path}' holds results of other settings (its {', '.join(differ)} differ). "
                "Choose another --out, or remove that file."
            )
        self.value = found
        info(f"Going on with '{self.path}': {sum(map(len, found['cells'].values()))} cells are done.")

    def write(self) -> None:
        write_text(self.path, to_json(self.value, indent=1) + "\n")


def read_results(path: str | Path) -> dict[str, Any]:
    """A robustness.json. Raises ConvNeXtError when it is missing or something else."""
    try:
        value = json.loads(Path(path).read_text("utf-8"))
        if not (
            isinstance(value, dict) and isinstance(value["cells"], dict) and isinstance(value["fingerprint"], dict)
        ):
            raise ValueError("it holds something else")
    except (OSError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no {RESULTS} ({error})"
        raise ConvNeXtError(f"'{path}' cannot be read: {reason}. Name the {RESULTS} of an evaluation.") from None
    return value


def fingerprint(scorer: Scorer, dataset: Dataset, seed: int, only: Sequence[int]) -> dict[str, Any]:
    """What results depend on: weights, images with labels, preprocessing, precision, seed; and what an error is, where it
    is not that of top-1."""
    with open(scorer.source, "rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    preparation = scorer.recipe.input.model_dump_json() + scorer.recipe.precision + to_json(list(only))
    measure = measure_of(scorer.recipe)
    return {
        "version": VERSION,
        "checkpoint": weights[:16],
        "data": facts.fingerprint(dataset),
        "input": digest(preparation),
        "seed": seed,
        **({} if measure == "top1" else {"measure": measure}),
    }


def _clean_rate(path: Path) -> float | None:
    """Images per second of the clean pass, reading included, as it was measured last."""
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return None
    rates = [row["images_per_s"] for row in rows if row.get("cell") == "clean"]
    return float(rates[-1]) if rates else None
