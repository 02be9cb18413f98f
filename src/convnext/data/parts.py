"""The words that say which part of a data set a folder, a file or a row belongs to: one vocabulary for every form."""

import re

PARTS = ("train", "val", "test")

_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_AROUND = {  # what may stand beside such a word without another meaning: train_set, seg_test, TrainingData
    "set", "sets", "data", "dataset", "split", "part", "subset", "seg", "cls", "image", "images", "img", "imgs",
    "picture", "pictures", "photo", "photos", "label", "labels", "annotation", "annotations", "sample", "samples",
    "folder", "dir", "files", "coco", "yolo", "voc", "jpg", "png",
}  # fmt: skip
_GLUED = ("dataset", "set", "data", "images", "imgs", "img")
_TOKENS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]")  # TrainSet and train_set are two words, 2017 is none


def part_of_word(word: str) -> str:
    """The part that one word means, as train2017 or Validation, or ''."""
    return _WORDS.get(word.strip().lower().rstrip("0123456789"), "")


def part_of_folder(name: str) -> str:
    """The part that a folder's name means, also as training_set, seg_test or TrainImages, or ''.

    Every other word of the name must be one that means nothing of its own, so that 'train_station' is no part.
    """
    if plain := part_of_word(name):
        return plain
    found = set()
    for token in _TOKENS.findall(name):
        word = token.lower()
        if word in _AROUND:
            continue
        glued = next((end for end in _GLUED if word.endswith(end)), "")
        found.add(_WORDS.get(word, "") or _WORDS.get(word.removesuffix(glued), ""))
    return _settled(found)


def part_of(path: str) -> str:
    """The part that the folders of `path` say, or ''. A plain word outweighs one with others around it."""
    folders = path.split("/")[:-1]
    for known in (part_of_word, part_of_folder):
        if part := next(filter(None, map(known, folders)), ""):
            return part
    return ""


def part_of_name(name: str) -> str:
    """The part that words of a file's name say, as instances_val2017.json; the last that says so decides."""
    words = re.split(r"[-_ .]", name.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    found = [part for part in map(part_of_folder, words) if part]
    if "test" in found and words[-1].lower().startswith("dev"):  # COCO's test-dev
        return "test"
    return found[-1] if found else ""


def part_of_file(path: str) -> str:
    """The part that the name of a file says, else its folders, or ''."""
    return part_of_name(path) or part_of(path)


def wraps(folder: str) -> bool:
    """Whether a folder's name means no more than that there are images: data, images, or a part again."""
    return folder.lower() in _AROUND or part_of_folder(folder) != ""


def _settled(found: set[str]) -> str:
    return "test" if found == {"test", "val"} else found.pop() if len(found) == 1 else ""
