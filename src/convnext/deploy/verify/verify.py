"""`convnext verify`: what is whole by its digests and, with data, whether a network keeps what it promises.

A bundle is a run, or an exported file, which needs no torch here either. Every promise is measured again and comes to one of
three: it 'holds', it is 'broken', or it stays 'open', because these data cannot tell.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, overload

from convnext.deploy.exported.opened import is_exported
from convnext.deploy.load import load
from convnext.deploy.verify import digests
from convnext.deploy.verify.digests import Verified
from convnext.deploy.verify.finding import Finding
from convnext.deploy.verify.measured import Measured, findings_of, licence, network
from convnext.deploy.verify.promises import Promises, promises_of_file, promises_of_run
from convnext.errors import ConvNeXtError, number_of

_HUB = "hub:"
_RECORDS, _ARCHIVES = (".json", ".jsonl"), (".npz", ".pt2")


@dataclass(frozen=True)
class Verification:
    """A bundle beside its promises."""

    bundle: str
    data: str
    findings: tuple[Finding, ...]
    n: int = 0  # images that were scored
    scores: Mapping[str, float | None] = field(default_factory=dict)  # that they came to

    @property
    def holds(self) -> bool:
        """Whether no promise is broken."""
        return not self.of("broken")

    def of(self, verdict: str) -> list[Finding]:
        """The findings that came to 'holds', 'broken' or 'open'."""
        return [each for each in self.findings if each.verdict == verdict]

    def lines(self) -> list[str]:
        """For a terminal: a table, what is to be said of it, and what it comes to."""
        cells = [("", "promised", "measured", ""), *(each.cells for each in self.findings)]
        widths = [max(len(row[place]) for row in cells) for place in range(3)]
        rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in cells]
        notes = [f"{each.name}: {each.note}" for each in self.findings if each.note]
        images = f": {number_of(self.n, 'image')}" if self.n else ""
        return [
            f"'{self.bundle}' on '{self.data}'{images}",
            "",
            *map(str.rstrip, rows),
            "",
            *notes,
            *([""] if notes else []),
            self._sum(),
        ]

    def _sum(self) -> str:
        broken, left = self.of("broken"), self.of("open")
        names = ", ".join(each.name for each in broken)
        told = f"Broken: {names}." if broken else "Nothing that it promises is broken."
        return told + (f" These data cannot tell: {', '.join(each.name for each in left)}." if left else "")

    def to_dict(self) -> dict[str, Any]:
        """For a program."""
        return {
            "bundle": self.bundle,
            "data": self.data,
            "n": self.n,
            **{verdict: len(self.of(verdict)) for verdict in ("holds", "broken", "open")},
            "findings": [each.to_dict() for each in self.findings],
            "scores": dict(self.scores),
        }


@overload
def verify(bundle: str | os.PathLike[str]) -> list[Verified]: ...
@overload
def verify(
    bundle: str | os.PathLike[str],
    data: str | os.PathLike[str],
    part: str | None = ...,
    *,
    weights: str = ...,
    device: str = ...,
    workers: int = ...,
    progress: bool = ...,
    images: str | Path | None = ...,
    form: str | None = ...,
    colours: str | Path | None = ...,
) -> Verification: ...
def verify(
    bundle: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    part: str | None = None,
    *,
    weights: str = "best",
    device: str = "auto",
    workers: int = 0,
    progress: bool = False,
    images: str | Path | None = None,
    form: str | None = None,
    colours: str | Path | None = None,
) -> list[Verified] | Verification:
    """What is whole of a run, 'hub:OWNER/NAME', a file or a folder of them; with `data`, whether it keeps its promises.

    With labelled `data` a run or an exported file is measured again: `holds` of the result says whether nothing that it
    promises is broken, `findings` say it line by line. The options are those of `convnext.evaluate`. Raises CheckpointError
    for what is not there or cannot be opened, DataError for data that it cannot be measured on.
    """
    place = _place(os.fspath(bundle))
    files = digests.compared(place)
    if data is None:
        return files
    damaged = [each for each in files if each.state == "damaged"]
    if damaged:
        many = f"{number_of(len(damaged), 'file')} damaged"
        broken = Finding("file", "what was written", many, "broken", " ".join(each.about for each in damaged))
        return Verification(os.fspath(bundle), os.fspath(data), (broken,))
    whole = sum(each.state == "whole" for each in files)
    told_whole = "whole" if len(files) == 1 else f"whole ({whole} of {len(files)} have digests)"
    digest = Finding("file", "what was written", told_whole, "holds")
    predictor = load(place, weights=weights, device=device)
    promises = _promises(predictor, exported=is_exported(place))
    given = {"images": images, "form": form, "colours": colours}
    told: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if told and predictor.recipe.task == "classification":
        name = next(iter(told))
        raise ConvNeXtError(f"{name} = '{told[name]}' is for detection and segmentation. Leave it out.")
    first = [digest, *network(predictor, promises)]
    found = predictor.evaluate(os.fspath(data), part, workers=workers, progress=progress, **told)
    measured = Measured(found, promises)
    lines = (*first, *findings_of(measured), licence(predictor.metadata))
    return Verification(os.fspath(bundle), os.fspath(data), lines, found.n, dict(found.scores))


def names_data(paths: list[str]) -> bool:
    """Whether of two paths the first is a network and the second what to measure it on: no network and none of its records."""
    if len(paths) != 2:
        return False
    first, second = map(Path, paths)
    return (paths[0].startswith(_HUB) or _is_network(first)) and not _is_network(second) and not _holds_networks(second)


def _is_network(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in (*digests.WEIGHTS, "model.safetensors"))
    return is_exported(path) or path.suffix == ".safetensors"


def _holds_networks(path: Path) -> bool:
    """Whether it is a folder of runs or exported files, or a record of a run."""
    if path.is_dir():
        return any(name.endswith((".safetensors", ".onnx")) for _, _, names in os.walk(path) for name in names)
    return path.suffix in _ARCHIVES or (path.suffix in _RECORDS and _is_network(path.parent))


def _place(bundle: str) -> str:
    """Where the bundle lies; of 'hub:OWNER/NAME' in the local cache."""
    return str(import_module("convnext.models.sources").find(bundle).path) if bundle.startswith(_HUB) else bundle


def _promises(predictor: Any, *, exported: bool) -> Promises:
    if exported:
        return promises_of_file(predictor.source, predictor.metadata)
    metadata = {**predictor.metadata, "classes": list(predictor.classes)}
    return promises_of_run(predictor.source, metadata, predictor.recipe.precision)
