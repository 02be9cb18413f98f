"""`convnext evaluate --suite`: what it prints and keeps, and what it refuses."""

import json

import pytest

from commands import convnext, trained
from images import write_colours


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites")
    trained(write_colours(folder / "data"), folder / "run")
    return folder


def test_corruptions_are_printed_kept_and_not_done_twice(place):
    arguments = ["evaluate", place / "run", place / "data", "--suite", "corruptions", "--names", "fog,contrast"]
    first = convnext(*arguments, "--severities", "1,5", "--json")
    assert first.status == 0, first.err
    kept = place / "run" / "robustness" / "robustness.json"
    before = kept.read_bytes()
    again = convnext(*arguments, "--severities", "1,5")
    assert "fog" in again.out and "contrast" in again.out
    assert kept.read_bytes() == before
    assert json.loads(first.out)["suite"] == "corruptions"


def test_attacks_lower_or_keep_the_accuracy_of_the_clean_images(place):
    arguments = ["evaluate", place / "run", place / "data", "--suite", "attacks", "--eps", "8", "--steps", 2, "--json"]
    done = convnext(*arguments)
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert all(error >= result["clean"]["error"] for row in result["errors"].values() for error in row.values())


def test_folders_that_are_some_of_the_classes_are_scored_among_these(place, tmp_path):
    two = write_colours(tmp_path / "two", classes=2)
    result = json.loads(convnext("evaluate", place / "run", two, "--suite", "subset", "--json").out)
    assert result["n"] > 0 and 0 <= result["top1"] <= 1


def test_the_part_that_a_person_names_is_scored(place, tmp_path):
    counts = json.loads((place / "run/data.json").read_text())
    for part in ("train", "val"):
        how = ["--suite", "c-bar", "--names", "sparkles", "--severities", 1, "--part", part, "--out", tmp_path / part]
        done = convnext("evaluate", place / "run", place / "data", *how, "--json", "--workers", 0)
        assert json.loads(done.out)["n"] == counts[part]["n"]
    real = convnext("evaluate", place / "run", place / "data", "--suite", "real", "--real", "r.json", "--part", "val")
    assert "--part says nothing for --suite real" in real.line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--eps", "1"], ["--eps is for --suite attacks"]),
        (["--suite", "corruption"], ["Did you mean 'corruptions'"]),
        (["--suite", "corruptions", "--names", "fogg"], ["'fogg'", "Did you mean 'fog'"]),
        (["--suite", "corruptions", "--severities", "one"], ["--severities one", "commas"]),
        (["--suite", "real"], ["--real FILE"]),
    ],
)
def test_a_mistake_is_one_line(place, arguments, parts):
    line = convnext("evaluate", place / "run", place / "data", *arguments).line
    assert all(part in line for part in parts), line
