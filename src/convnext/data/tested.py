"""The test part of a data set: images that a run neither trains on nor chooses by."""

from convnext.data.dataset import DenseDataset, with_classes
from convnext.data.formats.folders import listed
from convnext.data.labelled import Dataset
from convnext.data.opening import open_labelled, open_parts
from convnext.data.source import Source


def open_tested(source: Source, classes: tuple[str, ...], *, val_apart: bool) -> Dataset | DenseDataset | None:
    """The annotated images of a test part that no run on `source` trains on or chooses by; None where there is none.

    `val_apart`: the held-out images are named elsewhere. Raises DataError for classes that are none of `classes`.
    """
    if source.task == "classification":
        if not all(listed(source).in_part(part).any() for part in ("val", "test")):
            return None
        return open_labelled(source, classes=classes, split="test")
    parts = open_parts(source)
    if "test" not in parts or not ({"val", "all"} & set(parts) or val_apart):
        return None
    found = parts["test"]
    shown = any(entry.semantic or (entry.objects is not None and len(entry.objects.labels)) for entry in found.entries)
    return with_classes(found, classes, source.name) if shown else None
