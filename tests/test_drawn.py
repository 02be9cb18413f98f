"""Parts that are drawn: groups and series of images are in one part as a whole, classes as even as that allows."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convnext.config import RunOptions
from convnext.data.drawn import Drawn, _joined, cut, held_out_whole, is_drawn
from convnext.data.opening import open_dense_splits, open_splits, recognise
from convnext.data.preflight import preflight
from convnext.errors import DataError
from convnext.studies.folds import run as folds_run
from convnext.tasks.train import Request
from test_series import SAID, frame, scene


def clips(folder: Path, many: int = 10, frames: int = 8) -> Path:
    """Videos of two classes, in turns; the numbers of their frames are not padded."""
    for clip in range(many):
        for number in range(frames):
            frame(folder / ("walk", "run")[clip % 2] / f"clip{clip:02}_{number}.jpg", scene(clip), number)
    return folder


def clip_of(path: str) -> str:
    return path.rsplit("_", 1)[0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_units_are_held_out_as_a_whole_and_classes_as_evenly_as_they_allow(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    several, classes, share = data.draw(st.booleans()), int(rng.integers(2, 5)), float(rng.choice([0.1, 0.2, 0.3]))
    sizes = rng.integers(1, 7, rng.integers(6, 40))
    units = np.repeat(np.where(sizes > 1, np.arange(1, len(sizes) + 1), 0), sizes).astype(np.int32)
    paths = [f"{place:03}.png" for place in range(len(units))]
    labels = rng.integers(0, 2, (len(units), classes)) if several else rng.integers(0, classes, len(units))
    held = held_out_whole(paths, labels, units, share, seed=1)
    for unit in set(units[units > 0].tolist()):
        assert len(set(held[units == unit].tolist())) == 1
    marks = labels == 1 if several else labels[:, None] == np.arange(classes)
    largest = sizes.max()
    for has in marks.T:
        alone = len(set(units[has & (units > 0)].tolist())) + (has & (units == 0)).sum()
        assert not has.any() or (has & ~held).any()  # something of each class is learnt
        if alone > 1 and not several:
            wanted = max(1, round(has.sum() * share))
            assert abs((has & held).sum() - wanted) <= largest or (has & held).sum() == 0
    assert 0 < held.sum() <= share * len(units) + classes * largest
    order = rng.permutation(len(units))  # of the listing, which decides nothing
    shuffled = held_out_whole([paths[i] for i in order], labels[order], units[order], share, seed=1)
    assert shuffled.tolist() == held[order].tolist()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=50))
def test_what_was_drawn_comes_back_from_its_text(rows):
    held, units = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], np.int32)
    text = Drawn(held, units).text
    if not units.any():
        assert text == ""
        return
    found = Drawn.of(text, len(rows))
    assert found.held.tolist() == held.tolist() and found.units.tolist() == units.tolist() and is_drawn(text)
    assert not is_drawn(text[:-1]) and not is_drawn(f"9{text}") and not is_drawn(None)
    with pytest.raises(DataError, match="it held out is damaged"):
        Drawn.of(text[:-1], len(rows))
    with pytest.raises(DataError, match=f"the run parted .* and {len(rows) + 1} are there now"):
        Drawn.of(text, len(rows) + 1)


def test_a_class_of_one_series_is_held_out_by_a_piece_of_neighbours():
    paths = [f"a/f{number}.png" for number in range(20)] + [f"b/{name}.png" for name in "vwxyz"]
    units = np.array([1] * 20 + [0] * 5, np.int32)
    labels = np.array([0] * 20 + [1] * 5)
    pieces = cut(units, paths, labels, least=2, pieces=5)
    assert [sorted(np.flatnonzero(pieces == piece)) for piece in sorted({*pieces.tolist()} - {0})] == [
        list(range(first, first + 4)) for first in range(0, 20, 4)
    ]
    held = held_out_whole(paths, labels, pieces, 0.2, 0)
    places = np.flatnonzero(held[:20])
    assert len(places) == 4 and places[-1] - places[0] == 3 and held[20:].sum() == 1
    two = np.array([1] * 10 + [2] * 10 + [0] * 5, np.int32)
    assert cut(two, paths, labels, least=2, pieces=5).tolist() == two.tolist()


def test_series_are_cut_in_memory_that_does_not_hold_all_images_for_each_class():
    labels = np.arange(20_000) % 4_000
    units, paths = (1 + labels // 2).astype(np.int32), [f"{number}.png" for number in range(20_000)]
    tracemalloc.start()
    pieces = cut(units, paths, labels, least=2, pieces=5)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(pieces)) == 5 * 2_000 and most < 16e6  # a mark for each image and class is 80 MB


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_rows_of_one_path_and_of_one_unit_are_together_however_they_are_chained(rows):
    paths, units = [f"{path}.png" for path, _ in rows], np.array([unit for _, unit in rows], np.int32)
    found = _joined(units, paths)
    reach = np.array([[one == other or (u == v and u > 0) for other, v in rows] for one, u in rows], int)
    for _ in range(6):
        reach = np.minimum(reach @ reach, 1)
    for place, row in enumerate(reach):
        alone = row.sum() == 1 and units[place] == 0
        assert np.flatnonzero(row).tolist() == ([place] if alone else np.flatnonzero(found == found[place]).tolist())
        assert (found[place] == 0) == alone


def test_the_frames_of_a_video_are_in_one_part_and_that_is_told(tmp_path):
    source = recognise(clips(tmp_path / "data"))
    splits = open_splits(source, drawn=None)
    train, val = ({clip_of(entry.path) for entry in part.entries} for part in (splits.train, splits.val))
    assert not train & val and len(splits.val.entries) == 16 and {path.split("/")[0] for path in val} == {"walk", "run"}
    (line,) = [note for note in splits.notes if "series" in note]
    assert line.startswith("80 images are of 10 series (frames of a video, bursts, copies), as run/clip01_0.jpg and ")
    assert not [line for line in preflight(splits).lines if SAID in line]
    assert [line for line in preflight(open_splits(source)).lines if SAID in line]  # as the paths alone part them
    again = open_splits(source, drawn=splits.drawn)
    assert again.val.entries == splits.val.entries and again.drawn == splits.drawn
    others = [open_splits(source, seed=seed, drawn=None).val.entries for seed in (1, 2, 3)]
    assert any(entries != splits.val.entries for entries in others)


def test_one_video_of_each_class_is_cut_and_that_is_told(tmp_path):
    splits = open_splits(recognise(clips(tmp_path / "data", many=2, frames=20)), drawn=None)
    numbers = {name: [] for name in ("walk", "run")}
    for entry in splits.val.entries:
        numbers[entry.path.split("/")[0]].append(int(entry.path.rsplit("_", 1)[1].removesuffix(".jpg")))
    assert all(len(found) == 4 and max(found) - min(found) == 3 for found in numbers.values())
    assert any("2 are all that a class has, and were cut" in note for note in splits.notes)


@pytest.mark.parametrize("same", [False, True], ids=["photos", "one background"])
def test_numbered_images_that_are_no_series_are_held_out_one_by_one(tmp_path, same):
    for number in range(40):
        pixels = scene(7) if same else scene(100 + number)
        frame(tmp_path / "ab"[number % 2] / f"IMG_{number:04}.jpg", pixels, number % 5)
    splits, plain = (open_splits(recognise(tmp_path), drawn=drawn) for drawn in (None, ""))
    assert splits.drawn == "" and splits.val.entries == plain.val.entries and splits.notes == plain.notes


def test_copies_that_roboflow_made_are_together_however_they_look(tmp_path):
    for number in range(12):
        for copy in range(3):
            name = f"photo-{number * 37}_jpg.rf.{number:x}{copy}a.jpg"
            frame(tmp_path / "ab"[number % 2] / name, scene(100 * copy + number), copy)
    splits = open_splits(recognise(tmp_path), drawn=None)
    train, val = ({entry.path.split("_")[0] for entry in part.entries} for part in (splits.train, splits.val))
    assert not train & val and "36 images are of 12 series" in splits.notes[-1]


def test_frames_with_masks_are_in_one_part(tmp_path):
    for clip in range(6):
        for number in range(5):
            frame(tmp_path / "images" / f"{clip:04}TP_{number:05}.png", scene(clip), number)
            (tmp_path / "masks").mkdir(exist_ok=True)
            Image.fromarray(np.eye(48, 64, dtype=np.uint8)).save(tmp_path / "masks" / f"{clip:04}TP_{number:05}.png")
    splits = open_dense_splits(recognise(tmp_path), drawn=None)
    train, val = ({clip_of(entry.path) for entry in part.entries} for part in (splits.train, splits.val))
    assert not train & val and len(splits.val.entries) == 5 and "30 images are of 6 series" in splits.train.notes[-1]
    assert open_dense_splits(recognise(tmp_path), drawn=splits.drawn).val.entries == splits.val.entries


@pytest.mark.parametrize("folds", [2, 3])
def test_each_fold_holds_out_whole_series(tmp_path, folds):
    source = recognise(clips(tmp_path / "data", many=8, frames=5))
    pool, groups = folds_run._pool(source, None)
    options = RunOptions(out=str(tmp_path / "run"), workers=1)
    Path(options.out).mkdir()
    fold_of = folds_run._parts(pool, groups, folds, Request(data=source), options)
    of_clip: dict[str, set[int]] = {}
    for entry, fold in zip(pool.entries, fold_of.tolist(), strict=True):
        of_clip.setdefault(clip_of(entry.path), set()).add(fold)
    assert all(len(found) == 1 for found in of_clip.values())
    assert sorted(np.bincount(fold_of).tolist()) == ([20, 20] if folds == 2 else [10, 15, 15])
