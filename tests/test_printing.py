"""Names of classes and files that would act on a terminal, forge a line or turn its direction reach none as they are."""

import csv
import io
import json
from pathlib import Path

import pytest

from commands import convnext, tiny, trained
from convnext.engine.records import info, warn
from convnext.errors import CheckpointError, ConvNeXtError, DataError
from images import write_colours

NAMES = {"red": "\x1b[2J\x1b[31mred", "green": "gre\nconvnext: forged", "blue": "\u202eblue\x07"}
SHOWN = (r"\x1b[2J\x1b[31mred", r"gre\nconvnext: forged", r"\u202eblue\x07")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    data = write_colours(folder / "pets")
    for part in ("train", "val"):
        for name, new in NAMES.items():
            (data / part / name).rename(data / part / new)
    broken = data / "train" / NAMES["red"] / "\x1b[1mbroken\n.png"
    broken.write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def run(hostile: Path) -> Path:
    trained(hostile / "pets", hostile / "run")
    return hostile / "run"


def harmless(text: str) -> bool:
    """Nothing but printable letters and the ends of our own lines."""
    lines = text.split("\n")
    return all(line.isprintable() for line in lines) and not any(line.startswith("convnext: forged") for line in lines)


@pytest.mark.parametrize("kind", [ConvNeXtError, DataError, CheckpointError])
def test_an_error_is_one_line_whatever_a_file_put_into_it(kind):
    cell = "pix/3.jpg,b\ntrain\x1b[2J"  # a quotation mark that nobody closes makes rows of a table one cell
    assert str(kind(f"split '{cell}' is none")) == r"split 'pix/3.jpg,b\ntrain\x1b[2J' is none"


def test_training_names_broken_images_and_findings_without_acting_on_the_terminal(hostile, tmp_path):
    done = convnext(*tiny(hostile / "pets", tmp_path / "run"))
    assert done.status == 0 and harmless(done.out) and harmless(done.err)
    assert r"\x1b[1mbroken\n.png" in done.err


def test_evaluation_lists_them_spelt_out_each_on_its_line(hostile, run):
    done = convnext("evaluate", run, hostile / "pets")
    assert done.status == 0 and harmless(done.out) and harmless(done.err)
    assert all(any(line.startswith(name) for line in done.out.splitlines()) for name in SHOWN)


def test_predictions_are_a_line_an_image_and_a_row_an_image(hostile, run):
    images = hostile / "pets" / "train"
    text, table = convnext("predict", run, images), convnext("predict", run, images, "--csv")
    assert text.status == table.status == 0 and harmless(text.out) and harmless(table.out)
    assert len(text.out.splitlines()) == 37 and len(table.out.splitlines()) == 38
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert {row["label1"] for row in rows if row["label1"]} <= {*SHOWN}


def test_json_says_the_names_as_they_are(hostile, run):
    done = convnext("evaluate", run, hostile / "pets", "--json")
    assert done.out.isascii() and harmless(done.out)
    assert {*json.loads(done.out)["classes"]} == {*NAMES.values()}


def test_a_refusal_that_names_them_is_one_line(hostile, run):
    assert harmless(convnext("verify", hostile / NAMES["red"]).line)
    assert harmless(convnext("predict", run, hostile / NAMES["green"]).line)


def test_what_is_told_is_one_line(capsys):
    info("one\ntwo")
    warn("\x1b]0;title\x07")
    assert capsys.readouterr().err == "one\\ntwo\n\\x1b]0;title\\x07\n"
