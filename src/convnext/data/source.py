"""What the user named, recognised once: the task that can be learned from it, its form, and the listing of its files."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from convnext.data.store import Store, Tree, printable

Task = Literal["classification", "detection", "segmentation"]
Annotations = Literal[
    "coco", "cvat", "voc", "labelme", "via", "supervisely", "datumaro", "objects", "yolo", "masks"
]  # fmt: skip
Form = Literal["folders", "table", "lists", "texts", "tags", Annotations]
Labels = Literal["single", "multi"]  # what an image has


@dataclass(frozen=True)
class NamedColumns:
    """The columns of a table that a person names, '' for those that they do not."""

    label: str = ""  # the class of an image
    path: str = ""  # where it is
    group: str = ""  # what images have in common that stay in one part: a patient, a product, a site
    kept: bool = False  # whether an earlier command named them: another table need not have them

    def __bool__(self) -> bool:
        return bool(self.label or self.path or self.group)

    @classmethod
    def of(
        cls, label_column: str | None = None, path_column: str | None = None, group_column: str | None = None
    ) -> "NamedColumns":
        """From the words of Python, None for what is not named."""
        return cls(label_column or "", path_column or "", group_column or "")

    @property
    def kept_by_run(self) -> dict[str, str]:
        """What a run keeps of them: groups decide what is held out, which it keeps by itself."""
        return {word: name for word, name in self.given.items() if word != "group_column"}

    @property
    def given(self) -> dict[str, str]:
        """Those that are named, by the words of `train`: {'label_column': 'breed'}."""
        return {f"{name}_column": word for name in ("label", "path", "group") if (word := getattr(self, name))}


GUESSED = NamedColumns()


@dataclass(frozen=True)
class Source:
    """Data on the disk, listed once. `opening.recognise` makes it; whatever opens data takes it."""

    path: Path | str  # as the user named it; an address of an object store is text
    task: Task
    form: Form
    tree: Tree  # the labels or annotations; for class folders, from where classes begin
    images: Tree  # the images: mostly the same tree
    file: str | None = None  # in `tree`, where the user named one file of annotations
    labels: Labels | None = None  # what a person says that an image has; None: what its form looks like
    columns: NamedColumns = GUESSED  # of a table, those that a person names
    colours: str | Path | None = None  # a legend of the colours of masks that the user names
    bands: tuple[str, ...] | None = None  # that a person or a run names; None: those that names of files speak of
    opened: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # its parts, once they are read

    def with_bands(self, bands: tuple[str, ...]) -> "Source":
        """The same where a person or a run names the bands; what was opened without that is forgotten."""
        return self if bands == self.bands else replace(self, bands=bands, opened={} if bands else self.opened)

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(str(self.path))

    @property
    def store(self) -> Store:
        """Where the bytes of its images come from."""
        return self.images.store
