"""YOLO text: beside each image a file with a line for each object, in shares of the image's sides.

A line is `class x y width height` with the centre of a box, or `class x y x y x y ...`, the points of an outline;
`yolo_rows` tells lines of keypoints and of a model's predictions from them. An image without a file, or with an empty
one, shows no object. Names come from data.yaml or classes.txt.
"""

import math
import os
import posixpath
from dataclasses import replace
from itertools import count

from convnext.data.annotated import AnnotatedImage, Objects, Row, objects_of
from convnext.data.dataset import DenseDataset
from convnext.data.formats.band_trees import finder_of
from convnext.data.formats.files import image_files
from convnext.data.formats.yolo_rows import Meaning
from convnext.data.formats.yolo_yaml import Value, read_yaml
from convnext.data.limits import MAX_NUMBERED
from convnext.data.parts import PARTS, part_of, part_of_name
from convnext.data.problems import (
    CUT,
    EMPTY,
    MISSING,
    UNKNOWN,
    UNREADABLE,
    Problem,
    WrongError,
    extent,
    fitting_box,
    numbers,
    polygons_of,
    whole_of_text,
)
from convnext.data.source import Source
from convnext.data.store import Tree, printable
from convnext.data.written import decoded, loose
from convnext.errors import DataError

_SLACK = 0.002  # of the image's side: what six written digits and a tool's rounding can add
Line = tuple[int, list[float], str]  # class, numbers behind it, place
_NUMBERS = 5  # of an object, or more: its class and its box
_NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt", "_darknet.labels")
_NOT_LABELS = {*_NAME_FILES, "readme.txt", "requirements.txt", "license.txt"}


def open_yolo(source: Source) -> dict[str, DenseDataset]:
    """The data sets of a data.yaml, or of images and YOLO text, by part: 'train', 'val', 'all'...

    Raises DataError when nothing can be read.
    """
    tree = source.tree
    sheet_file = source.file or yaml_file(tree)
    sheet = read_yaml(_text(tree, sheet_file)) if sheet_file else {}
    return _Reader(tree, sheet, source.name).parts(sheet_file or "")


def yaml_file(tree: Tree) -> str | None:
    """The description of a YOLO data set: a YAML file with `names`, nearest to the top."""
    files = tree.files.take(tree.files.ending_in({".yaml", ".yml"}))
    described = [file for file in files if "names" in read_yaml(_text(tree, file))]
    return min(described, key=lambda file: (file.count("/"), file), default=None)


def label_files(tree: Tree) -> list[str]:
    """Text files that hold objects, by the place of their image."""
    labels = Labels(tree)
    if not labels.files:  # a million images in class folders are asked as well
        return []
    return [label for file in image_files(tree.files) if (label := labels.of(file))]


def has_boxes(tree: Tree) -> bool:
    """Whether the first text that is not empty holds numbers; where all are, whether a list of names calls it YOLO."""
    labels = label_files(tree)
    first = next((words for file in labels if (words := _text(tree, file).split("\n", 1)[0].split())), None)
    if first is None:
        return yaml_file(tree) is not None and (bool(labels) or not len(image_files(tree.files)))
    try:
        return len([float(word) for word in first]) >= _NUMBERS
    except ValueError:
        return False


class Labels:
    """The text files of a tree, by the image whose objects they hold."""

    def __init__(self, tree: Tree):
        self.files = set(tree.files.take(tree.files.ending_in({".txt"})))
        self._loose = {loose(os.path.splitext(file)[0]): file for file in self.files}

    def of(self, image: str) -> str | None:
        """Where the objects of an image are: in the folder 'labels' for its 'images', else beside it."""
        folders, stem = image.split("/")[:-1], os.path.splitext(image)[0]
        for place in reversed(range(len(folders))):
            if folders[place].lower() == "images":
                moved = "/".join([*folders[:place], "labels", *folders[place + 1 :], stem.rsplit("/", 1)[-1]])
                if found := self._at(moved):
                    return found
                break
        beside = self._at(stem)
        return beside if beside and beside.rsplit("/", 1)[-1].lower() not in _NOT_LABELS else None

    def _at(self, stem: str) -> str | None:
        return f"{stem}.txt" if f"{stem}.txt" in self.files else self._loose.get(loose(stem))


class _Reader:
    """A tree of images and text on its way to data sets. What cannot be used is named in `problems` and left out."""

    def __init__(self, tree: Tree, sheet: dict[str, Value], name: str):
        self.tree, self.sheet, self.name = tree, sheet, name
        self.files, self.images = set(tree.files), image_files(tree.files)
        self.labels = Labels(tree)
        self._folders = {loose(folder): folder for folder in tree.folders}
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.countedfree = count(1)
        self.classes = self._classes()

    def parts(self, sheet_file: str) -> dict[str, DenseDataset]:
        chosen = self._chosen(sheet_file.rpartition("/")[0])
        if not chosen:
            raise DataError(f"'{self.name}' has no images with YOLO labels: images/*.jpg beside labels/*.txt.")
        self._name_labels_alone()
        lines = {file: self._lines(file) for files in chosen.values() for file in files}
        if not self.classes:
            highest = max((number for rows in lines.values() for number, _, _ in rows), default=-1)
            if highest < 0:
                raise DataError(f"'{self.name}' names no classes and has no objects. Add a data.yaml with 'names'.")
            self.classes = tuple(str(number) for number in range(highest + 1))
            self.notes.append("Classes have no names, only numbers: no data.yaml or classes.txt was found.")
        lines = self._from_zero(lines)
        meaning = Meaning(self.sheet.get("kpt_shape"), [values for rows in lines.values() for _, values, _ in rows])
        self.notes += meaning.notes
        entries: dict[str, list[AnnotatedImage]] = {}
        place = 0
        for part, files in chosen.items():
            for file in files:
                place += 1
                entries.setdefault(part, []).append(
                    AnnotatedImage(file, place, None, self._objects(lines[file], meaning))
                )
        numbered = tuple(range(1, len(self.classes) + 1))
        blank = DenseDataset(
            "detection",
            self.classes,
            (),
            self.tree.store,
            category_ids=numbered,
            problems=tuple(self.problems),
            notes=tuple(self.notes),
        )
        return {part: replace(blank, entries=tuple(rows)) for part, rows in entries.items()}

    def _classes(self) -> tuple[str, ...]:
        names = self.sheet.get("names")
        if isinstance(names, dict):
            given = {whole_of_text(key): value for key, value in names.items()}
            counted = [number for number in given if number is not None and number >= 0]
            if len(counted) < len(names):
                raise DataError(f"'{self.name}': the names of data.yaml must be numbered 0, 1, 2 ...")
            top = max(counted, default=-1)
            if top >= MAX_NUMBERED:
                raise DataError(
                    f"'{self.name}': the names of data.yaml are numbered up to {top:,}, more than {MAX_NUMBERED:,} classes. "
                    "Number them 0, 1, 2 ..."
                )
            return tuple(printable(given.get(number, str(number))) for number in range(top + 1))
        if isinstance(names, list):
            return tuple(printable(name) or str(place) for place, name in enumerate(names))
        files = [file for file in self.tree.files if file.rsplit("/", 1)[-1].lower() in _NAME_FILES]
        for file in sorted(files, key=lambda file: (file.count("/"), file)):
            return tuple(printable(line.strip()) for line in _text(self.tree, file).splitlines() if line.strip())
        return ()

    def _chosen(self, base: str) -> dict[str, list[str]]:
        """Images of each part: as data.yaml says where its places are found here, else by the names of folders.

        A place of another machine is taken for what its last folders are called here.
        """
        chosen: dict[str, list[str]] = {}
        nowhere: list[tuple[str, str]] = []
        root = self.sheet.get("path")
        for part in PARTS:
            places = self.sheet.get(part, [])
            for place in [places] if isinstance(places, str) else places if isinstance(places, list) else []:
                found = self._images_of(place, root if isinstance(root, str) else "", base)
                if not found:
                    nowhere.append((part, place))
                chosen.setdefault(part, []).extend(found)
        chosen = {part: files for part, files in chosen.items() if files}
        taken = {file for files in chosen.values() for file in files}
        if not chosen:
            for file in self.images:
                chosen.setdefault(part_of(file) or "all", []).append(file)
        for part, place in nowhere:
            if not taken or part in chosen:
                moved = chosen.get(part, [])
            else:
                moved = [f for f in self.images if part_of(f) == part and f not in taken]
                chosen |= {part: moved} if moved else {}
            if moved:
                folder = printable(moved[0].rpartition("/")[0])
                self.notes.append(f"'{part}' of data.yaml, '{printable(place)}', is not here: '{folder}' was read.")
            else:
                self.problems.append(Problem(MISSING, printable(place), f"'{part}' of data.yaml"))
        return chosen if any(self.labels.of(file) for files in chosen.values() for file in files) else {}

    def _name_labels_alone(self) -> None:
        """Text in a folder 'labels' whose image is missing."""
        used = {self.labels.of(file) for file in self.images}
        folders = {label.rpartition("/")[0] for label in used if label and "labels" in label.split("/")}
        alone = (file for file in self.tree.files if file.rpartition("/")[0] in folders and file not in used)
        self.problems += [Problem(MISSING, printable(file)) for file in alone if file.endswith(".txt")]

    def _images_of(self, place: str, root: str, base: str) -> list[str]:
        """What one entry of data.yaml names: a folder with all below, or a text file with an image a line."""
        for folder in (base, f"{base}/{root}", root, ""):
            name = _inside(f"{folder}/{place}")
            name = self._folders.get(loose(name), name)
            below = [file for file in self.images if file.startswith(f"{name}/")]
            if below:
                return below
            if name in self.files and name.lower().endswith(".txt"):
                lines = (line.strip() for line in _text(self.tree, name).splitlines())
                images, listed = finder_of(self.tree), []
                for line in filter(None, lines):
                    file = images.find(_inside(line), part_of_name(name))
                    if file:
                        listed.append(file)
                    else:
                        self.problems.append(Problem(MISSING, printable(line)))
                return listed
        return []

    def _lines(self, image: str) -> list[Line]:
        """(class, numbers behind it, place) of each line that can be read."""
        label = self.labels.of(image)
        rows = []
        text = decoded(self.tree.once.take(label))[0] if label else ""
        for number, line in enumerate(text.splitlines(), 1):
            words, where = line.split(), f"{printable(label or '')} line {number}"
            if not words:
                continue
            try:
                values = numbers([_number(word) for word in words])
                if values[0] != int(values[0]) or values[0] < 0:
                    raise WrongError(UNKNOWN, f"category {words[0]}")
                if len(values) < 5:
                    raise WrongError(UNREADABLE, f"{len(words)} numbers")
                rows.append((int(values[0]), values[1:], where))
            except WrongError as wrong:
                self.problems.append(Problem(wrong.kind, where, wrong.what))
        return rows

    def _from_zero(self, lines: dict[str, list[Line]]) -> dict[str, list[Line]]:
        """The same where classes are counted from 0; from 1 they are where none is 0 and one is as high as there are names."""
        numbers = {number for rows in lines.values() for number, _, _ in rows}
        last = len(self.classes)
        if not numbers or min(numbers) < 1 or max(numbers) != last:
            return lines
        self.notes.append(f"No class is 0 and one is {last}, and {last} have names: they were counted from 1.")
        return {file: [(number - 1, values, where) for number, values, where in rows] for file, rows in lines.items()}

    def _objects(self, lines: list[Line], meaning: Meaning) -> Objects:
        rows = []
        for number, values, where in lines:
            try:
                if number >= len(self.classes):
                    raise WrongError(UNKNOWN, f"category {number} of {len(self.classes)}")
                row, cut = _row(number, meaning.box_or_outline(values))
                if cut:
                    self.problems.append(Problem(CUT, where, " ".join(f"{value:g}" for value in values[:4])))
                rows.append(row._replace(id=next(self.countedfree)))
            except WrongError as wrong:
                self.problems.append(Problem(wrong.kind, where, wrong.what))
        return objects_of(rows, relative=True)


def _row(label: int, values: list[float]) -> tuple[Row, bool]:
    if len(values) == 4:
        x, y, width, height = values
        if width <= 0 or height <= 0:
            raise WrongError(EMPTY, f"width {width:g}, height {height:g}")
        box, cut = fitting_box((x - width / 2, y - height / 2, x + width / 2, y + height / 2), (1, 1), _SLACK)
        return Row(box, label), cut
    polygons, _ = polygons_of([values])
    box, cut = fitting_box(extent(polygons), (1, 1), _SLACK)
    return Row(box, label, polygons), cut


def _inside(path: str) -> str:
    """A path of data.yaml as names below the data's own folder: those files often lead out of it and back in."""
    words = posixpath.normpath(path.replace("\\", "/")).split("/")
    return "/".join(word for word in words if word not in ("", ".", ".."))


def _text(tree: Tree, file: str) -> str:
    return decoded(tree.once.read(file))[0]


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan
