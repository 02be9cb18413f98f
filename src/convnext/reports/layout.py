"""How the page of any run is put together: its headline, its sections, and the file that it becomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from convnext import __version__
from convnext.drawing.markup import Html, clean, tag
from convnext.drawing.numbers import NOTHING, count, duration, finite, percent, plain, short
from convnext.errors import ConvNeXtError
from convnext.files import write_bytes
from convnext.reports.page import page
from convnext.reports.run_files import PREDICTIONS, RunFiles, read_run
from convnext.reports.sections import note

# What a file of another form raises where a section reads it.
STRANGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
OTHER_FORM = "does not hold what this version writes there, so this section is left out."


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    title: str
    needs: str  # the file without which there is nothing to say
    body: Callable[[RunFiles], Html]

    @property
    def anchor(self) -> str:
        """What a link to it says."""
        return self.title.lower().replace(" ", "-")

    def markup(self, files: RunFiles) -> Html:
        """The section; a note in its place where its file is missing or not what it should be."""
        there = {
            "recipe.json": files.recipe,
            "environment.json": files.environment,
            "data.json": files.data,
            "evaluation.json": files.evaluation,
            "metrics.jsonl": files.train or files.evals,
            "transfer.json": files.transfer,
            PREDICTIONS: files.predictions,
        }[self.needs]
        sentence = files.notes.get(self.needs)
        inside = None
        if there:
            try:
                inside = self.body(files)
            except STRANGE:
                sentence = f"{self.needs} {OTHER_FORM}"
        elif not sentence:
            sentence = f"{self.needs} is still empty."
        return tag("section", tag("h2", self.title), inside, note(sentence) if sentence else None, id=self.anchor)


def write_page(run: Path, build: Callable[[RunFiles], Html]) -> Path:
    """Write what `build` makes of a run's files as `report.html` into its folder, and return that path.

    Raises ConvNeXtError when `run` is no folder or cannot be written to.
    """
    if not run.is_dir():
        raise ConvNeXtError(f"There is no run at '{clean(str(run))}'. Give the folder that `convnext train` wrote.")
    target = run / "report.html"
    written = str(build(read_run(run))).encode()
    try:
        write_bytes(target, written)
    except OSError as error:
        raise ConvNeXtError(
            f"Cannot write '{clean(str(target))}': {error.strerror or error}. Make room or choose a folder of yours."
        ) from None
    return target


def whole_page(files: RunFiles, headline: Html, parts: Sequence[Section]) -> Html:
    """The document: headline, links, sections."""
    return page(
        f"{files.name}: ConvNeXt run report",
        headline,
        tag("nav", [tag("a", part.title, href=f"#{part.anchor}") for part in parts]),
        tag("main", [part.markup(files) for part in parts]),
        tag("footer", f"Written by convnext {__version__} from the files in this run's folder."),
    )


def headline(
    files: RunFiles,
    network: Callable[[RunFiles], str],
    score: Callable[[RunFiles], Html],
    stats: Callable[[RunFiles], Mapping[str, object]],
) -> Html:
    """The name of the run, its one score in large, and what stands beside it."""
    try:
        title, left, right = (
            [network(files), tag("span", " on ", class_="on"), _data(files)],
            score(files),
            stats(files),
        )
    except STRANGE:
        title, right = ["A run"], {}
        left = note("The files of this run do not hold what this version writes there.")
    return tag(
        "header",
        tag("p", f"ConvNeXt run report: {files.name}", class_="over"),
        tag("h1", title),
        tag("div", left, _listed(right) if right else None, class_="headline"),
    )


def cost(files: RunFiles) -> dict[str, object]:
    """What the run took: size of the network, length, time."""
    seconds = sum(row["seconds"] for row in files.timings + files.parts if finite(row.get("seconds")))
    rates = [row["images_per_s"] for row in files.timings if finite(row.get("images_per_s"))]
    return {
        "Parameters": short(files.parameters) if files.parameters else NOTHING,
        **_length(files),
        "Training time": (
            [duration(seconds), tag("small", f" for {files.crosswise + 1} trainings") if files.crosswise else ""]
            if seconds
            else NOTHING
        ),
        "Images per second": plain(median(rates), 3) if rates else NOTHING,
    }


def best(files: RunFiles, figure: str) -> dict[str, object]:
    """'Best EMA' -> '84.5 % epoch 19' of a rate, for whichever weights were evaluated; 'step 80' where it counts steps."""
    found: dict[str, object] = {}
    for weights, name in (("ema", "Best EMA"), ("raw", "Best raw")):
        rows = [row for row in files.evals if row.get("weights") == weights and finite(row.get(figure))]
        if rows:
            row = max(rows, key=lambda r: r[figure])
            found[name] = [percent(row[figure]), " ", tag("small", f"{files.unit} {_place(row, files.unit)}")]
    return found


def backbone(files: RunFiles) -> str:
    """The network's name as people say it."""
    model = (files.recipe or {}).get("model") or {}
    name = str(model.get("name") or "A network")
    return f"ConvNeXt {name}" if model.get("family") == "convnext" else name


def _listed(stats: Mapping[str, object]) -> Html:
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in stats.items()], class_="stats")


def _length(files: RunFiles) -> dict[str, object]:
    """Epochs, or steps where the recipe counts those."""
    unit, name = files.unit, f"{files.unit.capitalize()}s"
    planned = ((files.recipe or {}).get("schedule") or {}).get(f"{unit}s")
    rows = [row[unit] for row in files.train + files.evals if finite(row.get(unit))]
    if not rows:
        return {name: plain(planned)}
    done = max(rows)
    ended = not finite(planned) or done >= planned - 1e-6
    if not ended and (files.evaluation or {}).get("stopped_early"):
        return {name: [f"{plain(done, 3)} of {plain(planned)} ", tag("small", "stopped early")]}
    return {name: plain(done) if ended else f"{plain(done, 3)} of {plain(planned)}"}


def _place(row: dict[str, Any], unit: str) -> str:
    return plain(row.get(unit), 3) if unit == "epoch" else count(row.get(unit))


def _data(files: RunFiles) -> str:
    """The data's own name where a file tells it, else what it is."""
    data, environment = files.data or {}, files.environment or {}
    named = data.get("name") or data.get("path") or environment.get("data")
    if named:
        return str(named).rstrip("/").rsplit("/", 1)[-1]
    classes = len(data.get("classes") or (files.evaluation or {}).get("classes") or ())
    return f"{count(classes)} class{'' if classes == 1 else 'es'}" if classes else "unnamed data"
