"""Many names in few buffers are the same names in the same order."""

import os
import pickle
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convnext.data.labelled import Entries, Entry
from convnext.data.names import Names
from convnext.data.store import tree_of

letters = st.text(st.characters(exclude_characters="\0"), max_size=6)  # lone surrogates as well
paths = st.lists(st.lists(letters, min_size=1, max_size=3).map("/".join), max_size=30)


@given(paths)
def test_names_come_back_as_they_were(given_paths):
    names = Names.of(given_paths)
    assert list(names) == given_paths == [names[place] for place in range(len(names))]
    assert len(names) == len(given_paths) and names == Names.of(given_paths)
    assert list(pickle.loads(pickle.dumps(names))) == given_paths
    assert list(names[1:-1]) == given_paths[1:-1]
    if given_paths:
        assert names[-1] == given_paths[-1]


@given(paths, st.integers(0, 2**30))
def test_chosen_names_keep_their_order_and_endings(given_paths, bits):
    chosen = np.array([bool(bits >> place & 1) for place in range(len(given_paths))], bool)
    kept = [path for path, taken in zip(given_paths, chosen.tolist(), strict=True) if taken]
    assert list(Names.of(given_paths).take(chosen)) == kept


def test_endings_are_those_of_the_standard_library():
    files = ["a/b.JPG", "b.tar.gz", "c", "d.", "e/f.jpg", "x.y/z", ".hidden", "g..png"]
    names = Names.of(files)
    for ending in (".jpg", ".gz", "", ".", ".png"):
        expected = [os.path.splitext(file)[1].lower() == ending for file in files]
        assert names.ending_in({ending}).tolist() == expected
    assert dict(names.endings())[".JPG"] == 1


def test_a_folder_is_listed_in_the_order_of_whole_paths(tmp_path: Path):
    for name in ("a/x.png", "a.png", "a-b/c.png", "a/b/c.png", "a.b/c", "b/é.png", "b/z.png", "B/q", "a0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    tree = tree_of(tmp_path)
    found = [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()]
    assert list(tree.files) == sorted(found)
    folders = [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_dir()]
    assert list(tree.folders) == sorted(folders)
    assert list(tree.below("a").files) == ["b/c.png", "x.png"] and tree.below("a").folders == ("b",)


def test_entries_are_made_when_they_are_asked_for():
    entries = Entries(Names.of(["a/1", "b/2", "b/3"]), np.array([0, 1, 1], np.int32))
    assert list(entries) == [Entry("a/1", 0), Entry("b/2", 1), Entry("b/3", 1)]
    assert entries[2] == Entry("b/3", 1) and entries[:2] == entries.take(np.array([0, 1]))
    assert entries.relabelled(np.array([5, 3]))[0].label == 5 and len({entries, entries[:], entries[:1]}) == 2
