"""`--corrections`: images whose labels were wrong are left out or get another class; what is held out stays."""

import json
import shutil
from pathlib import Path

import pytest

import convnext as package
from commands import convnext, tiny, trained
from convnext.data.corrections import corrected, read_corrections
from convnext.data.opening import open_splits, recognise
from convnext.errors import DataError
from convnext.studies.audit.findings import Audit, Suspect
from convnext.studies.audit.tables import write_tables
from images import write_colours


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two colours of ten images, without parts."""
    folder = write_colours(tmp_path / "all", train=10, val=0, classes=2)
    shutil.copytree(folder / "train", tmp_path / "data")
    return tmp_path / "data"


def table(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def labelled(data: Path, file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Path -> class, of what is trained on and what is held out."""
    source = recognise(data)
    splits = open_splits(source)
    paths = [entry.path for part in (splits.train, splits.val) for entry in part.entries]
    found = corrected(splits, read_corrections(file), paths)
    return tuple(  # type: ignore[return-value]
        {entry.path: part.classes[entry.label] for entry in part.entries} for part in (found.train, found.val)
    )


def test_images_are_left_out_or_relabelled_and_what_is_held_out_stays(data, tmp_path):
    plain = open_splits(recognise(data))
    held = [entry.path for entry in plain.val.entries]
    one, two = (entry.path for entry in plain.train.entries[:2])
    file = table(
        tmp_path / "audit.csv",
        f"path,given,suggested,score,label\n{one},green,red,0.99,\n{two},green,red,0.9,red\n{held[0]},green,red,0.8,\n",
    )
    train, val = labelled(data, file)
    assert one not in train and train[two] == "red" and len(train) == len(plain.train.entries) - 1
    assert list(val) == held[1:]
    others = {entry.path: plain.train.classes[entry.label] for entry in plain.train.entries[2:]}
    assert {path: train[path] for path in others} == others


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "semicolon"])
def test_what_a_spreadsheet_makes_of_the_table_is_read_the_same(data, tmp_path, form):
    text = "path,given,suggested,score\ngreen/000.png,green,red,0.99\n\n"
    file = tmp_path / "audit.csv"
    if form == "semicolon":
        file.write_text(text.replace(",", ";").replace("0.99", "0,99"), newline="\r\n")
    else:
        file.write_text(text, encoding=form)
    assert dict(read_corrections(file).rows) == {"green/000.png": ("",)}


def test_a_run_says_and_counts_what_was_corrected_and_scores_what_it_held_out(data, tmp_path):
    shutil.move(data / "red/003.png", data / "green/r3.png")
    file = table(tmp_path / "audit.csv", "path,label\ngreen/r3.png,red\nred/001.png,\n")
    done = trained(data, tmp_path / "run", "--epochs", 1, "--corrections", file)
    assert f"By '{file}' 1 image left out and 1 label changed." in done.err
    found = json.loads((tmp_path / "run/data.json").read_text())
    assert found["train"]["n"] + found["val"]["n"] == 19
    held = json.loads(convnext("evaluate", tmp_path / "run", data, "--json", "--workers", 0).out)
    given = open_splits(recognise(data))
    assert held["n"] == len(given.val.entries)  # of the data as they are: nothing that the run has learnt
    said = convnext("evaluate", tmp_path / "run", data, "--workers", 0).err
    assert "The run learnt from corrected labels" in said and "that it held out" in said


def test_rows_of_the_test_part_are_counted_and_nothing_else_happens_to_them(tmp_path):
    folder = write_colours(tmp_path / "data", train=4, val=2, classes=2)
    shutil.copytree(folder / "val", folder / "test")
    file = table(tmp_path / "audit.csv", "path\ntest/red/000.png\ntrain/red/000.png\n")
    done = trained(folder, tmp_path / "run", "--epochs", 1, "--corrections", file)
    assert "1 image left out and 0 labels changed; 1 row of the test part, which stays as it is." in done.err


def test_a_table_that_does_not_fit_is_refused_in_one_line(data, tmp_path):
    def line(text: str) -> str:
        file = table(tmp_path / "t.csv", text)
        done = convnext(*tiny(data, tmp_path / "run", "--corrections", file))
        assert done.status == 2 and not (tmp_path / "run").exists()
        return done.err.splitlines()[-1].removeprefix("convnext: ")

    assert "names 1 image that the data do not have, 'green/00.png' first. Did you mean" in line("path\ngreen/00.png\n")
    assert "has the label 'gren', which is no class of the data. Did you mean 'green'?" in line(
        "path,label\nred/000.png,gren\n"
    )
    assert "has no column 'path'" in line("name,label\nred/000.png,green\n")
    assert "says two things of 'red/000.png': 'green' and ''" in line("path,label\nred/000.png,green\nred/000.png,\n")
    assert "does not exist" in convnext(*tiny(data, tmp_path / "run", "--corrections", tmp_path / "no.csv")).line
    with pytest.raises(DataError, match="no column"):
        read_corrections(table(tmp_path / "empty.csv", ""))


def test_corrections_are_an_argument_as_they_are_an_option(data, tmp_path):
    plain = open_splits(recognise(data))
    one = plain.train.entries[0].path
    file = table(tmp_path / "audit.csv", f"path,given\n{one},green\n")
    changes = {"model.depths": (1, 1), "model.widths": (8, 16), "model.patch": 2, "optim.batch": 6, "input.size_px": 16}
    how = {"out": tmp_path / "run", "overrides": changes, "epochs": 1, "workers": 0, "progress": False}
    done = package.train(data, corrections=file, **how)
    about = json.loads((done.path / "data.json").read_text())
    assert about["train"]["n"] == len(plain.train.entries) - 1


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A table of ten images, each with the label cat, some with dog as well; of the last the dog is unknown."""
    folder = tmp_path / "several"
    (folder / "images").mkdir(parents=True)
    source = write_colours(tmp_path / "all", train=10, val=0, classes=1)
    rows = ["path,cat,dog,=SUM(A1)"]
    for number, file in enumerate(sorted(source.rglob("*.png"))):
        shutil.copy(file, folder / "images" / f"{number}.png")
        rows.append(f"images/{number}.png,1,{number % 2 if number < 9 else ''},{number % 3 % 2}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def marks(data: Path, file: Path) -> dict[str, tuple[int, ...] | None]:
    splits = open_splits(recognise(data))
    paths = [entry.path for part in (splits.train, splits.val) for entry in part.entries]
    found = corrected(splits, read_corrections(file), paths)
    assert found.train.classes == ("=SUM(A1)", "cat", "dog")
    return {entry.path: entry.marks for part in (found.train, found.val) for entry in part.entries}


def test_one_of_several_labels_is_added_or_taken_away_and_the_others_stay(several, tmp_path):
    before = marks(several, table(tmp_path / "none.csv", "path,label\n"))
    text = "path,given,suggested,score,label\n"
    text += (
        "images/0.png,not dog,dog,0.9,dog\nimages/1.png,cat,not cat,0.9,not cat\nimages/1.png,dog,not dog,0.8,not dog\n"
    )
    text += "images/2.png,not dog,dog,0.7,dog;not cat\nimages/3.png,x,y,0.6,\nimages/9.png,a,b,0.5,'=SUM(A1)|not dog\n"
    after = marks(several, table(tmp_path / "audit.csv", text))
    assert before["images/9.png"] == (0, 1, -1)
    changed = {
        "images/0.png": (0, 1, 1),
        "images/1.png": (1, 0, 0),
        "images/2.png": (0, 0, 1),
        "images/9.png": (1, 1, 0),
    }
    assert after == {path: changed.get(path, said) for path, said in before.items() if path != "images/3.png"}
    done = trained(several, tmp_path / "run", "--epochs", 1, "--corrections", tmp_path / "audit.csv")
    assert "1 image left out and 7 labels changed" in done.err


def test_a_label_both_added_and_taken_away_is_refused(several, tmp_path):
    def line(text: str) -> str:
        done = convnext(*tiny(several, tmp_path / "run", "--corrections", table(tmp_path / "t.csv", text)))
        return done.err.splitlines()[-1].removeprefix("convnext: ")

    twice = "path,label\nimages/0.png,dog\nimages/0.png,not dog\n"
    assert "says two things of 'images/0.png': 'dog' and 'not dog'. Keep one row." in line(twice)
    assert "says two things of 'images/0.png': 'dog' and ''" in line("path,label\nimages/0.png,dog\nimages/0.png,\n")
    assert "has the label 'dgo', which is no class" in line("path,label\nimages/0.png,not dgo\n")


def test_the_tables_of_an_audit_hold_no_formula_and_come_back_as_they_are(tmp_path):
    folder = write_colours(tmp_path / "all", train=5, val=0, classes=2)
    (tmp_path / "data").mkdir()
    (folder / "train/red").rename(tmp_path / "data/=1+1")
    (folder / "train/green").rename(tmp_path / "data/@b")
    first = "=1+1/000.png"
    wrong = (Suspect(first, "=1+1", "@b", 0.9), Suspect("@b/001.png", "@b", "=1+1", 0.8))
    out = tmp_path / "checked"
    out.mkdir()
    write_tables(Audit(out, 10, ("=1+1", "@b"), wrong, (), (), ()), {})
    text = (out / "audit.csv").read_text()
    cells = [cell for line in text.splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+", "-"))] and "'=1+1/000.png" in cells
    table(out / "audit.csv", text.replace("score\n", "score,label\n").replace("0.9000\n", "0.9000,'@b\n"))
    train, val = labelled(tmp_path / "data", out / "audit.csv")
    assert (train | val)[first] == "@b" and "@b/001.png" not in train | val and len(train | val) == 9
