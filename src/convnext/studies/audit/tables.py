"""The tables of an audit: CSV that spreadsheets open and `convnext train --corrections` takes back."""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from convnext.data.store import printable
from convnext.files import cell_text, told, write_bytes
from convnext.studies.audit.findings import Audit


def write_tables(found: Audit, before: dict[str, str]) -> dict[str, str]:
    """Write the tables into the folder of an audit; their names and digests.

    `before`: digests of those that an earlier call wrote. One that a person has changed since stays as it is, and its digest
    is not returned. Raises ConvNeXtError where the disk refuses.
    """
    written = {}
    for name, data in _tables(found).items():
        file = found.out / name
        if file.exists() and digest(file) != before.get(name):
            continue
        with told(file):
            write_bytes(file, data)
        written[name] = hashlib.blake2b(data, digest_size=8).hexdigest()
    return written


def digest(file: Path) -> str:
    """Of what a file holds."""
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()


def _tables(found: Audit) -> dict[str, bytes]:
    wrong = [(each.path, each.given, each.suggested, f"{each.score:.4f}") for each in found.wrong]
    copies = [
        (str(number), image.path, image.part, image.given, f"{image.likeness:.4f}")
        for number, group in enumerate(found.groups, 1)
        for image in group.images
    ]
    far = [(each.path, each.given, f"{each.distance:.4f}") for each in found.outliers]
    pairs = [(each.first, each.second, f"{each.share:.6f}", str(each.images)) for each in found.pairs]
    return {
        "audit.csv": _csv(("path", "given", "suggested", "score"), wrong),
        "duplicates.csv": _csv(("group", "path", "part", "given", "likeness"), copies),
        "outliers.csv": _csv(("path", "given", "distance"), far),
        "pairs.csv": _csv(("first", "second", "share", "images"), pairs),
    }


def _csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([cell_text(printable(cell)) for cell in row] for row in rows)
    return text.getvalue().encode()
