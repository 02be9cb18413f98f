"""What the user named, recognised once: the task that can be learned from it, its form, and the listing of its files."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from convnext.data.store import Store, Tree, printable

Task = Literal["classification", "detection", "segmentation"]
Annotations = Literal[
    "coco", "cvat", "voc", "labelme", "via", "supervisely", "datumaro", "objects", "yolo", "masks"
]  # fmt: skip
Form = Literal["folders", "table", "texts", "tags", Annotations]
Labels = Literal["single", "multi"]  # what an image has


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
