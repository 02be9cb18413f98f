"""Small data sets whose images may have several labels, in every form that people write, made without the package."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("blue", "green", "red")
Said = Mapping[str, Sequence[str]]  # file name -> labels


def made(count: int = 24, seed: int = 0) -> dict[str, list[str]]:
    """Images with none to three of NAMES; the first four have none, one, two and three."""
    rng = np.random.default_rng(seed)
    first = [[], ["red"], ["blue", "red"], ["blue", "green", "red"]]
    more = [[name for name in NAMES if rng.random() < 0.5] for _ in range(count - len(first))]
    return {f"{place:03d}.png": labels for place, labels in enumerate(first + more)}


def write_images(folder: Path, said: Said, size: int = 16) -> Path:
    """An image each: a bright band of its colour for every label."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for name, labels in said.items():
        pixels = rng.integers(0, 40, (size, size, 3)).astype(np.uint8)
        for place, label in enumerate(NAMES):
            if label in labels:
                third = size // 3
                pixels[place * third : (place + 1) * third, :, 2 - place] = 220
        Image.fromarray(pixels).save(folder / name)
    return folder


def table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    """A CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def joined(folder: Path, said: Said, separator: str = ";", column: str = "labels") -> Path:
    """images/ and labels.csv with all labels in one cell."""
    write_images(folder / "images", said)
    rows = [[f"images/{name}", separator.join(labels)] for name, labels in said.items()]
    (folder / "labels.csv").write_text(table(rows, ["path", column]))
    return folder


def in_columns(folder: Path, said: Said, yes: str = "1", no: str = "0", unknown: Mapping[str, str] = {}) -> Path:
    """images/ and labels.csv with a column for each class; `unknown`: file -> the class whose cell stays empty."""
    write_images(folder / "images", said)
    rows = [
        [name, *("" if unknown.get(name) == known else yes if known in labels else no for known in NAMES)]
        for name, labels in said.items()
    ]
    (folder / "labels.csv").write_text(table(rows, ["file_name", *NAMES]))
    return folder


def json_of_lists(folder: Path, said: Said) -> Path:
    """images/ and labels.json: an object of lists."""
    write_images(folder / "images", said)
    (folder / "labels.json").write_text(json.dumps({name: list(labels) for name, labels in said.items()}))
    return folder


def json_records(folder: Path, said: Said) -> Path:
    """images/ and labels.json: a list of objects."""
    write_images(folder / "images", said)
    rows = [{"image": f"images/{name}", "labels": list(labels)} for name, labels in said.items()]
    (folder / "labels.json").write_text(json.dumps(rows, indent=1))
    return folder


def json_lines(folder: Path, said: Said) -> Path:
    """images/ and labels.jsonl."""
    write_images(folder / "images", said)
    rows = [json.dumps({"file_name": f"images/{name}", "tags": list(labels)}) for name, labels in said.items()]
    (folder / "labels.jsonl").write_text("\n".join(rows))
    return folder


def texts(folder: Path, said: Said, between: str = "\n") -> Path:
    """A text beside each image."""
    write_images(folder, said)
    for name, labels in said.items():
        (folder / name).with_suffix(".txt").write_text(between.join(labels))
    return folder


FORMS = {
    "';'": joined,
    "'|'": lambda folder, said: joined(folder, said, "|"),
    "commas": lambda folder, said: joined(folder, said, ","),
    "columns": in_columns,
    "columns of words": lambda folder, said: in_columns(folder, said, "True", "False"),
    "columns of -1": lambda folder, said: in_columns(folder, said, "1", "-1"),
    "columns without no": lambda folder, said: in_columns(folder, said, "1", ""),
    "json of lists": json_of_lists,
    "json records": json_records,
    "json lines": json_lines,
    "texts": texts,
    "texts with commas": lambda folder, said: texts(folder, said, ", "),
}
