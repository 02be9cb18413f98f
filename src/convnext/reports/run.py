"""report.html: a run on one page that needs nothing but itself, for the engineer and for whom they show it to."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from convnext import __version__
from convnext.errors import ConvNeXtError
from convnext.reports import charts, sections
from convnext.reports.files import RunFiles, read_run
from convnext.reports.markup import Html, clean, tag
from convnext.reports.numerals import GAP, NOTHING, count, duration, finite, percent, plain, short, wilson
from convnext.reports.page import page


def write_report(run: Path, *, read: Callable[[str], bytes] | None = None) -> Path:
    """Write `report.html` into the run's folder and return its path.

    `read` gives the bytes of a picture by its path in evaluation.json; without it, or where it fails, a picture is
    shown as its name. A file of the run that is missing or cut short costs its section, never the report. Raises
    ConvNeXtError when `run` is no folder or cannot be written to.
    """
    if not run.is_dir():
        raise ConvNeXtError(f"There is no run at '{clean(str(run))}'. Give the folder that `convnext train` wrote.")
    target = run / "report.html"
    written = str(_page(read_run(run), read)).encode()
    try:
        _replace(target, written)
    except OSError as error:
        raise ConvNeXtError(
            f"Cannot write '{clean(str(target))}': {error.strerror or error}. Make room or choose a folder of yours."
        ) from None
    return target


@dataclass(frozen=True)
class _Section:
    title: str
    needs: str  # the file without which there is nothing to say
    body: Callable[[RunFiles], Html]

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")

    def markup(self, files: RunFiles) -> Html:
        """The section; a note in its place where its file is missing or not what it should be."""
        there = {
            "recipe.json": files.recipe,
            "environment.json": files.environment,
            "data.json": files.data,
            "evaluation.json": files.evaluation,
            "metrics.jsonl": files.train or files.evals,
        }[self.needs]
        said = files.notes.get(self.needs)
        inside = None
        if there:
            try:
                inside = self.body(files)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError):
                said = f"{self.needs} does not hold what this version writes there, so this section is left out."
        elif not said:
            said = f"{self.needs} is still empty."
        return tag("section", tag("h2", self.title), inside, sections.note(said) if said else None, id=self.anchor)


def _page(files: RunFiles, read: Callable[[str], bytes] | None) -> Html:
    parts = [
        _Section("Curves", "metrics.jsonl", sections.curves),
        _Section("Confusion", "evaluation.json", sections.confusion),
        _Section("Classes", "evaluation.json", sections.per_class),
        _Section("Calibration", "evaluation.json", sections.calibration),
        _Section("Most wrong", "evaluation.json", lambda f: sections.worst(f, read)),
        _Section("Data", "data.json", sections.data),
        _Section("Recipe", "recipe.json", sections.recipe),
        _Section("Environment", "environment.json", sections.environment),
    ]
    return page(
        f"{files.name}: ConvNeXt run report",
        _headline(files),
        tag("nav", [tag("a", part.title, href=f"#{part.anchor}") for part in parts]),
        tag("main", [part.markup(files) for part in parts]),
        tag("footer", f"Written by convnext {__version__} from the files in this run's folder."),
    )


def _headline(files: RunFiles) -> Html:
    try:
        score, stats = _score(files), _stats(files)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        score, stats = sections.note("The files of this run do not hold what this version writes there."), None
    return tag(
        "header",
        tag("p", f"ConvNeXt run report: {files.name}", class_="over"),
        tag("h1", _model(files), tag("span", " on ", class_="on"), _data(files)),
        tag("div", score, stats, class_="headline"),
    )


def _score(files: RunFiles) -> Html:
    """Top-1 with its interval: of the final evaluation, else of the last one during training."""
    held_out = ((files.data or {}).get("val") or {}).get("n", 0)
    found: dict[str, Any] = files.evaluation or {**(files.evals[-1] if files.evals else {}), "n": held_out}
    top1, n = found.get("top1"), found.get("n") or 0
    if not finite(top1):
        return sections.note("This run has not been evaluated yet.")
    low, high = wilson(top1, n)
    weights = sections.WEIGHTS.get(found.get("weights", ""), ("", ""))[0]
    said = f"{count(top1 * n)} of {count(n)} pictures right" if n else "pictures not counted"
    between = f"95{GAP}% interval {100 * low:.1f} to {percent(high)}"
    return tag(
        "div",
        tag("p", "Top-1 accuracy", tag("span", f", {weights}" if weights else ""), class_="label"),
        tag("p", percent(top1), class_="hero"),
        [charts.interval(low, top1, high), tag("p", between, class_="below")] if n else None,
        tag("p", said, class_="below"),
        class_="score",
    )


def _stats(files: RunFiles) -> Html:
    found: dict[str, Any] = files.evaluation or (files.evals[-1] if files.evals else {})
    seconds = sum(row["seconds"] for row in files.timings if finite(row.get("seconds")))
    rates = [row["pictures_per_s"] for row in files.timings if finite(row.get("pictures_per_s"))]
    stats: dict[str, object] = {
        "Top-5 accuracy": percent(found.get("top5")),
        "Calibration error": percent(found.get("ece")),
        "Validation loss": plain(found.get("loss"), 3),
        "Parameters": short(files.parameters) if files.parameters else NOTHING,
        "Epochs": _epochs(files),
        "Training time": duration(seconds) if seconds else NOTHING,
        "Pictures a second": plain(median(rates), 3) if rates else NOTHING,
        **_best(files),
    }
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in stats.items()], class_="stats")


def _best(files: RunFiles) -> dict[str, list[object]]:
    """'Best EMA' -> '84.5 % epoch 19', for whichever weights were evaluated."""
    best: dict[str, list[object]] = {}
    for weights, name in (("ema", "Best EMA"), ("raw", "Best raw")):
        rows = [row for row in files.evals if row.get("weights") == weights and finite(row.get("top1"))]
        if rows:
            row = max(rows, key=lambda r: r["top1"])
            best[name] = [percent(row["top1"]), " ", tag("small", f"epoch {plain(row.get('epoch'))}")]
    return best


def _epochs(files: RunFiles) -> str:
    rows = [row["epoch"] for row in files.train + files.evals if finite(row.get("epoch"))]
    planned = ((files.recipe or {}).get("schedule") or {}).get("epochs")
    if not rows:
        return plain(planned)
    done = max(rows)
    return plain(done) if not finite(planned) or done >= planned - 1e-6 else f"{plain(done, 3)} of {plain(planned)}"


def _model(files: RunFiles) -> str:
    model = (files.recipe or {}).get("model") or {}
    name = str(model.get("name") or "A network")
    return f"ConvNeXt {name}" if model.get("family") == "convnext" else name


def _data(files: RunFiles) -> str:
    """The data's own name where a file tells it, else what it is."""
    data, environment = files.data or {}, files.environment or {}
    named = data.get("name") or data.get("path") or environment.get("data")
    if named:
        return str(named).rstrip("/").rsplit("/", 1)[-1]
    classes = len(data.get("classes") or (files.evaluation or {}).get("classes") or ())
    return f"{count(classes)} classes" if classes else "unnamed data"


def _replace(target: Path, written: bytes) -> None:
    """Write beside the target, then rename: a reader sees the old page or the new one, never half of one."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".report-", suffix=".tmp")
    try:
        with open(handle, "wb") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
