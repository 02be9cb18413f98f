"""Tables with many columns: a person names the label, the path, and what keeps images in one part."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from commands import convnext, trained
from convnext.data.opening import open_labelled, open_splits, recognise
from convnext.data.source import NamedColumns
from convnext.errors import DataError
from images import write_colours

HEAD = ("image_id", "breed", "sex", "age", "owner")
Row = tuple[str, str, str, int, str]


def rows(count: int = 24) -> list[Row]:
    """Of each owner one to four images; the last have none."""
    owners = [owner for owner in range(count) for _ in range(1 + owner % 4)][: count - 3]
    names = [f"o{owner}" for owner in owners] + ["", "", ""]
    return [(f"dog{n:02}", ("pug", "husky")[n % 2], "MF"[n % 3 > 0], n % 5, name) for n, name in enumerate(names)]


def as_csv(folder: Path) -> Path:
    file = folder / "train.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([HEAD, *rows()])
    return file


def as_lines(folder: Path) -> Path:
    file = folder / "train.jsonl"
    file.write_text("\n".join(json.dumps(dict(zip(HEAD, row, strict=True))) for row in rows()))
    return file


def as_parquet(folder: Path) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(
        pa.table(dict(zip(HEAD, map(list, zip(*rows(), strict=True)), strict=True))), folder / "train.parquet"
    )
    return folder / "train.parquet"


FORMS = [as_csv, as_lines, as_parquet]


def written(folder: Path, form: Callable[[Path], Path] = as_csv) -> Path:
    """The images in train/, and the table beside that."""
    (folder / "train").mkdir(parents=True)
    for number, row in enumerate(rows()):
        Image.new("RGB", (4, 4), (9 * number, 99, 40)).save(folder / "train" / f"{row[0]}.png")
    return form(folder)


def said(source: Any) -> dict[str, str]:
    """image -> class."""
    data = open_labelled(source)
    return {Path(entry.path).stem: data.classes[entry.label] for entry in data.entries}


def named(data: Path, **how: str) -> Any:
    return recognise(data, columns=NamedColumns.of(**how))


def refusal(data: Path, **how: str) -> str:
    with pytest.raises(DataError) as raised:
        open_splits(named(data, **how))
    return str(raised.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_the_label_is_the_column_that_a_person_names(tmp_path, form, whole):
    file = written(tmp_path / "dogs", form)
    data = file.parent if whole else file
    for column, place in (("breed", 1), ("SEX", 2), ("age", 3)):
        assert said(named(data, label_column=column)) == {row[0]: str(row[place]) for row in rows()}


def test_the_path_is_the_column_that_a_person_names_and_another_of_that_name_is_none(tmp_path):
    write_colours(tmp_path, train=2, val=1)
    lines = ["path,where,kind", "http://site/1.jpg,train/red/000.png,a", "http://site/2.jpg,train/green/000.png,b"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    found = named(tmp_path / "t.csv", label_column="kind", path_column="where")
    assert said(found) == {"000": "b"} and len(open_labelled(found).entries) == 2


def test_what_is_ambiguous_or_wrong_is_one_line_with_the_option(tmp_path):
    file = written(tmp_path / "dogs")
    many = "has columns 'breed', 'sex', 'age' and 'owner', and any could be the label"
    assert f"{many}. Name the one that is meant: --label-column breed." in refusal(file)
    assert "no column 'bred' (--label-column). Did you mean 'breed'?" in refusal(file, label_column="bred")
    assert "(--group-column)" in refusal(file.parent, label_column="breed", group_column="clinic")
    folders = write_colours(tmp_path / "colours", train=2, val=1)
    assert refusal(folders, label_column="breed").startswith(
        "--label-column names a column of a table, and there is no"
    )
    line = convnext("train", file, "--label-column", "breed", "--task", "detection").line
    assert line == "--label-column breed is for tables of images in classes, not for detection. Leave it out."


@pytest.mark.parametrize("form", FORMS)
def test_no_group_is_divided_between_the_parts(tmp_path, form):
    file = written(tmp_path / "dogs", form)
    owner = {row[0]: row[4] for row in rows() if row[4]}
    seen = set()
    for seed in range(8):
        splits = open_splits(named(file, label_column="breed", group_column="owner"), seed=seed, drawn=None)
        train, val = ({Path(entry.path).stem for entry in part.entries} for part in (splits.train, splits.val))
        assert not {owner.get(name) for name in train} & {owner[name] for name in val if name in owner}
        assert 3 <= len(val) <= 7 and len({entry.label for entry in splits.val.entries}) == 2
        assert any("groups of images stay whole" in note and "3 images without" in note for note in splits.notes)
        again = open_splits(named(file, label_column="breed"), seed=seed, drawn=splits.drawn)  # as a run keeps it
        assert again.val.entries == splits.val.entries
        seen.add(frozenset(val))
    assert len(seen) > 1  # the seed decides


def test_groups_in_both_parts_that_the_data_have_are_told(tmp_path):
    file = written(tmp_path / "dogs")
    lines = file.read_text().splitlines()
    parts = ["split", *("val" if number % 3 == 0 else "train" for number in range(len(lines) - 1))]
    file.write_text("\n".join(f"{line},{part}" for line, part in zip(lines, parts, strict=True)))
    splits = open_splits(named(file, label_column="breed", group_column="owner"), drawn=None)
    assert splits.drawn == "" and any("have images in both parts, which flatters the result" in n for n in splits.notes)


def test_a_run_knows_its_columns_and_what_it_held_out(tmp_path):
    file = written(tmp_path / "dogs")
    run, names = tmp_path / "run", ("--label-column", "breed", "--group-column", "owner")
    done = trained(file, run, "--epochs", 1, *names)
    assert "groups of images stay whole" in done.err
    scored = convnext("evaluate", run, file, "--json", "--workers", 0)
    assert scored.status == 0, scored.err
    ours = json.loads((run / "evaluation.json").read_text())
    assert json.loads(scored.out)["n"] == ours["n"] and "that it held out" in scored.err
    assert "which the model does not know" in convnext("evaluate", run, file, "--label-column", "sex").line
    again = trained(file, run, "--epochs", 1, "--label-column", "breed")  # which draws other images, and keeps these
    assert "holds a run on other data" not in again.err
