"""`convnext push`: a trained network for the hub, with its card. Written and shown first; uploaded when that is asked for."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnext.deploy.exported.opened import is_exported
from convnext.deploy.push.files import CARD, NAMES, libraries_of, weights_of, write_files
from convnext.deploy.push.model_card import Subject, model_card
from convnext.deploy.push.run_card import subject_of
from convnext.deploy.trained.checkpoint import read_trained
from convnext.deploy.verify.promises import EVALUATION
from convnext.errors import CheckpointError, ConvNeXtError, number_of
from convnext.files import refuse_unusable, told, workroom, write_text
from convnext.models import hub
from convnext.models.licences import UNKNOWN, terms

FOLDER = "hub"  # in the run, unless another one is named
_NAMED = 20  # classes that are shown before an upload
_REPOSITORY = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"


@dataclass(frozen=True)
class Pushed:
    """What `push` wrote, and where it went."""

    run: str
    repository: str
    folder: Path
    files: tuple[tuple[str, int], ...]  # name, bytes
    libraries: tuple[str, ...]  # beside this package, that load it
    classes: tuple[str, ...]
    card: str = field(repr=False)
    notes: tuple[str, ...] = ()
    private: bool = True
    address: str = ""  # where it was uploaded to; '': it was not

    def lines(self) -> list[str]:
        """For a terminal; the card last."""
        width = max(len(name) for name, _ in self.files)
        kind = "private" if self.private else "PUBLIC"
        others = " and ".join(self.libraries)
        loaded = f"convnext, and {others}" if others else "convnext alone: transformers and timm have no such network"
        more = len(self.classes) - _NAMED
        named = ", ".join(self.classes[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
        end = (
            f"Uploaded to {self.address}." if self.address
            else "Nothing was uploaded. --yes uploads these files with your own token of the hub."
        )  # fmt: skip
        return [
            *(self.card.splitlines() if not self.address else []),
            "",
            f"'{self.run}' for '{self.repository}', {kind}, in '{self.folder}':",
            *(f"  {name:<{width}}  {size / 1e3:>12,.1f} kB" for name, size in self.files),
            f"It loads in {loaded}.",
            f"Names of classes in it: {named}",
            *self.notes,
            end,
        ]

    def to_dict(self) -> dict[str, Any]:
        """For a program."""
        return {
            "run": self.run,
            "repository": self.repository,
            "folder": str(self.folder),
            "files": [{"name": name, "bytes": size} for name, size in self.files],
            "libraries": list(self.libraries),
            "classes": list(self.classes),
            "notes": list(self.notes),
            "private": self.private,
            "uploaded": self.address or None,
            "card": self.card,
        }


def push(
    run: str | Path,
    repository: str,
    out: str | Path | None = None,
    *,
    weights: str = "best",
    license: str = "",
    upload: bool = False,
    public: bool = False,
) -> Pushed:
    """Write a run as the files of repository 'OWNER/NAME' into `out`, RUN/hub unless that is named; `upload` them when asked.

    A new repository is private unless `public`. `license`: of the network, as its owner says. What is uploaded is
    `hub:OWNER/NAME` for every command here, and loads in transformers and timm where they have the network. Raises
    ConvNeXtError for a name that is none, a licence that the weights it started from rule out, and what the hub refuses.
    """
    if not re.fullmatch(_REPOSITORY, repository):
        raise ConvNeXtError(f"'{repository}' is not a repository's name. Write OWNER/NAME, e.g. me/pets.")
    if is_exported(run):
        raise CheckpointError(f"'{run}' is exported already. Name the run that it was made of.")
    trained = read_trained(run, weights)
    folder = Path(out) if out is not None else trained.source.parent / FOLDER
    _refuse_foreign(folder)
    network = weights_of(trained.source, trained.recipe)
    libraries = libraries_of(network)
    about = {"name": repository.partition("/")[2], "repository": repository, "licence": license, "libraries": libraries}
    subject = subject_of(trained.source, trained.metadata, trained.recipe, trained.classes, **about)
    _require_licence(subject)
    card = model_card(subject)
    with told(folder), workroom(folder.absolute().parent, folder.name) as room:
        made = room / folder.name
        made.mkdir()
        write_text(made / CARD, card)
        write_files(made, trained.source, trained.recipe, network, subject.promises)
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)
    files = tuple((name, (folder / name).stat().st_size) for name in NAMES if (folder / name).is_file())
    address = hub.upload(folder, repository, private=not public) if upload else ""
    notes = tuple(_notes(subject))
    return Pushed(str(run), repository, folder, files, libraries, trained.classes, card, notes, not public, address)


def _refuse_foreign(folder: Path) -> None:
    """Raise ConvNeXtError for a place that holds anything but what `push` wrote there."""
    refuse_unusable(folder, folder=True)
    if not folder.exists():
        return
    others = sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if not each.is_dir())
    foreign = [name for name in others if name.replace("\\", "/") not in NAMES]
    if foreign:
        raise ConvNeXtError(
            f"'{folder}' holds '{foreign[0]}', which `convnext push` did not write. Name another --out."
        )


def _require_licence(of: Subject) -> None:
    """Raise ConvNeXtError where the owner names another licence than the weights that it started from allow."""
    if of.licence and terms(of.inherited) and of.licence.lower() != of.inherited.lower():
        raise ConvNeXtError(
            f"--license {of.licence} is refused: it started from '{of.origin}' under {of.inherited}, and "
            f"{terms(of.inherited)}. Leave it out."
        )


def _notes(of: Subject) -> list[str]:
    """What a person should know before others can see it."""
    notes = []
    if of.inherited == UNKNOWN:
        notes.append(f"The licence of '{of.origin}', which it started from, is unknown: ask before you publish it.")
    elif terms(of.inherited):
        notes.append(f"It started from '{of.origin}' under {of.inherited}: {terms(of.inherited)}.")
    if not of.licence and not terms(of.inherited):
        notes.append("The card states no licence. --license MIT, say, states yours.")
    if not of.promises.stated:
        notes.append(f"The card states no score: no {EVALUATION} of these weights lies beside them.")
    few = [row for row in of.evaluation.get("per_class", ()) if 0 < row.get("n", 99) < 10]
    if few:
        notes.append(f"{number_of(len(few), 'class has', 'classes have')} fewer than ten held-out images.")
    return notes
