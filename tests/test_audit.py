"""`convnext audit`: wrong labels by confident learning, copies, outliers; what is kept, refused and shown."""

import csv
import importlib.util
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import convnext as package
from checkpoints import checkpoint_of
from commands import convnext, tiny
from convnext.data.store import FolderStore
from convnext.errors import ConvNeXtError
from convnext.studies.audit import copies as audit_copies
from convnext.studies.audit import findings, networks, page
from convnext.studies.audit.confident import confident_class, doubts
from convnext.studies.audit.copies import copies, grouped, near_hashes
from convnext.studies.audit.looks import Looks, look_at
from convnext.studies.audit.neighbours import neighbours
from convnext.studies.audit.run import audit
from convnext.studies.folds.parts import parts
from convnext.tasks.classification import probe
from images import COLOURS, write_colours, zipped
from labels_data import NAMES, made, write_images
from pages import Page


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of("classification", tmp_path_factory.mktemp("weights"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three colours in two parts; two images in the wrong folder, one broken, one copied from train to val."""
    folder = write_colours(tmp_path / "data", train=12, val=4)
    shutil.move(folder / "train/red/003.png", folder / "train/blue/r3.png")
    shutil.move(folder / "train/green/004.png", folder / "train/red/g4.png")
    copy = Image.open(folder / "train/blue/005.png").resize((48, 48), Image.Resampling.BICUBIC)
    copy.save(folder / "val/blue/copy.jpg", quality=90)
    (folder / "train/red/broken.png").write_bytes(b"no image")
    return folder


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


# Wrong labels


def probabilities(seed: int, n: int = 60, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Random ones, sure of most labels."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), generator.integers(0, k, n - k)])
    logits = generator.normal(size=(n, k))
    logits[np.arange(n), np.where(generator.random(n) < 0.85, labels, generator.integers(0, k, n))] += 2.5
    p = np.exp(logits)
    return (p / p.sum(1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(5))
def test_labels_in_doubt_are_those_of_the_slow_version_of_the_paper(seed):
    p, labels = probabilities(seed)
    found = doubts(p, labels)
    classes = p.shape[1]
    threshold = [np.mean([row[j] for row, label in zip(p, labels, strict=True) if label == j]) for j in range(classes)]
    counts = np.zeros((classes, classes))
    for i, (row, label) in enumerate(zip(p, labels, strict=True)):
        reached = [j for j in range(classes) if row[j] >= threshold[j] - 1e-6]
        best = max(reached, key=lambda j: row[j], default=None)
        assert found.wrong[i] == (best is not None and best != label and found.score[i] >= 0.2)
        if best is not None:
            counts[label, best] += 1
    joint = counts / counts.sum(1, keepdims=True) * np.bincount(labels)[:, None] / len(labels)
    np.testing.assert_allclose(found.joint, joint, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_score_is_the_chance_of_a_mistake_whose_way_is_learnt_by_slow_expectation_and_maximisation(seed):
    p, labels = probabilities(seed)
    n, k, rate = len(labels), p.shape[1], 0.05
    seen = [[np.mean([row[j] for row, y in zip(p, labels, strict=True) if y == t]) for j in range(k)] for t in range(k)]
    first = np.zeros((k, k))
    for t in range(k):
        total = sum(seen[t][j] for j in range(k) if j != t)
        for j in range(k):
            first[t, j] = 0 if j == t else 0.7 / (k - 1) + 0.3 * seen[t][j] / total
    turned = first
    for step in range(11):
        chance = np.zeros((n, k))
        for i, y in enumerate(labels):
            ways = [0.0 if t == y else rate * p[i, t] * turned[t, y] for t in range(k)]
            chance[i] = np.array(ways) / (sum(ways) + (1 - rate) * p[i, y])
        if step < 10:
            counts = np.array(
                [[sum(chance[i, t] for i in range(n) if labels[i] == j) for j in range(k)] for t in range(k)]
            )
            counts += 0.5 * rate * n / k * first
            turned = counts / counts.sum(1, keepdims=True)
    found = doubts(p, labels)
    np.testing.assert_allclose(found.score, chance.sum(1), rtol=1e-5)
    assert found.suggested.tolist() == chance.argmax(1).tolist()


def test_labels_that_were_mixed_up_one_way_stand_before_images_that_are_merely_hard():
    labels = np.repeat([0, 1, 2], 100)
    p = np.full((300, 3), 0.1)
    p[np.arange(300), labels] = 0.8
    p[:8] = (0.2, 0.7, 0.1)  # class 0 taken for 1, often
    p[150] = (0.1, 0.2, 0.7)  # class 1 taken for 2, once
    found = doubts(p, labels)
    assert found.score[:8].min() > found.score[150] > found.score[200]
    assert found.suggested[:8].tolist() == [1] * 8 and found.suggested[150] == 2


@pytest.mark.skipif(importlib.util.find_spec("cleanlab") is None, reason="cleanlab is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(3))
def test_the_joint_of_labels_and_classes_is_that_of_cleanlab(seed):
    from cleanlab.count import compute_confident_joint, estimate_joint

    p, labels = probabilities(seed, n=300)
    found, confident = doubts(p, labels), confident_class(p, labels)
    theirs, off = compute_confident_joint(labels, p, calibrate=False, return_indices_of_off_diagonals=True)
    assert np.flatnonzero((confident >= 0) & (confident != labels)).tolist() == sorted(off)
    assert {*np.flatnonzero(found.wrong).tolist()} <= {*off}
    joint = estimate_joint(labels, p, confident_joint=theirs)  # of whole images: theirs are rounded
    np.testing.assert_allclose(found.joint, joint, atol=1.01 / len(labels))


def test_a_class_without_images_is_suggested_to_nobody():
    p, labels = probabilities(0)
    wide = np.concatenate([p * 0.5, np.full((len(p), 1), 0.5, np.float32)], 1)
    assert not (doubts(wide, labels).suggested[doubts(wide, labels).wrong] == 4).any()


# Folds


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=60), st.integers(2, 6), st.integers(0, 9))
def test_folds_hold_each_image_out_once_and_every_class_evenly(labels, folds, seed):
    paths = [f"{place}.png" for place in range(len(labels))]
    found = parts(paths, labels, [], folds, seed=seed)
    for label in set(labels):
        counts = np.bincount(found[np.array(labels) == label], minlength=folds)
        assert counts.max() - counts.min() <= 1
    order = np.random.default_rng(seed).permutation(len(labels))  # of the listing, which decides nothing
    moved = parts([paths[i] for i in order], [labels[i] for i in order], [], folds, seed=seed)
    assert moved.tolist() == found[order].tolist()


def test_copies_are_in_one_fold():
    paths = [f"{place}.png" for place in range(40)]
    groups = [(0, 7, 9), (3, 4), (20, 39)]
    found = parts(paths, [place % 2 for place in range(40)], groups, 5)
    assert all(len(set(found[list(group)].tolist())) == 1 for group in groups) and set(found.tolist()) == set(range(5))


def test_a_head_learns_from_as_many_images_as_there_is_room_for(monkeypatch):
    random, learnt = np.random.default_rng(0), []
    labels, fold_of, places = np.arange(400) % 2, np.arange(400) // 200, np.arange(400)
    features = (random.normal(size=(400, 3)) + 4 * labels[:, None]).astype(np.float32)
    whole = SimpleNamespace(dataset=SimpleNamespace(labels=lambda: labels, classes=("a", "b"), several=False))
    fit = networks.fitted
    monkeypatch.setattr(networks, "fitted", lambda x, *rest: learnt.append(x.shape[1]) or fit(x, *rest))
    monkeypatch.setattr(probe, "MOST_VALUES", 60 * 3)
    found = networks._by_heads(features, whole, places, places, fold_of, networks.Asked(out=Path("."), known=""))
    assert learnt == [60, 60] and (found.argmax(1) == labels).mean() > 0.95


# Copies and outliers


def photo(seed: int, size: int = 96) -> Image.Image:
    """Smooth random colours, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def looked(images: dict[str, Image.Image], folder: Path) -> Looks:
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        image.save(folder / name, **({"quality": 50} if name.endswith(".jpg") else {}))
    return look_at(FolderStore(str(folder)), list(images), workers=1)


def test_copies_are_found_smaller_compressed_grey_mirrored_and_cut(tmp_path):
    images = {f"{seed}.png": photo(seed) for seed in range(30)}
    first = images["0.png"]
    images |= {
        "smaller.png": first.resize((40, 40), Image.Resampling.BICUBIC),
        "compressed.jpg": images["1.png"],
        "grey.png": images["2.png"].convert("L"),
        "mirrored.png": images["3.png"].transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "cut.png": images["4.png"].crop((3, 1, 94, 92)),
        "wide.png": images["5.png"].resize((120, 90)),
    }
    found = copies(looked(images, tmp_path / "photos"))
    names = list(images)
    wanted = {("0.png", "smaller.png"), ("1.png", "compressed.jpg"), ("2.png", "grey.png"), ("3.png", "mirrored.png")}
    wanted |= {("4.png", "cut.png"), ("5.png", "wide.png")}
    assert {(names[one], names[other]) for one, other in found.pairs.tolist()} == wanted
    assert len(found.groups) == 6 and found.likeness.min() > 0.95


def test_flat_images_are_copies_only_of_their_own_shade(tmp_path):
    shades = {f"{shade}.png": Image.new("L", (20, 20), shade) for shade in (0, 60, 61, 200)}
    found = copies(looked(shades, tmp_path / "flat"))
    assert found.groups == ((1, 2),)


def test_images_that_cannot_be_read_are_no_copies(tmp_path):
    looks = looked({"a.png": photo(0), "b.png": photo(1)}, tmp_path / "some")
    (tmp_path / "some" / "c.png").write_bytes(b"")
    (tmp_path / "some" / "d.png").write_bytes(b"")
    looks = look_at(FolderStore(str(tmp_path / "some")), ["a.png", "c.png", "b.png", "d.png"], workers=1)
    assert looks.read.tolist() == [True, False, True, False] and len(copies(looks).pairs) == 0


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=40), st.integers(0, 5))
def test_the_search_of_hashes_by_blocks_is_the_slow_one(hashes, seed):
    near = np.random.default_rng(seed).integers(0, 64, len(hashes))
    hashes = [each ^ (1 << int(bit)) for each, bit in zip(hashes, near, strict=True)] + hashes
    array = np.array(hashes, np.uint64)
    looks = Looks(np.zeros((len(array), 32, 32), np.uint8), array, ~array, array, ("",) * len(array))
    slow = {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if min((hashes[i] ^ hashes[j]).bit_count(), 64 - (hashes[i] ^ hashes[j]).bit_count()) <= 16
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convnext.studies.similar.cells._LEAST", 7)
        found = set(map(tuple, near_hashes(looks, np.arange(len(hashes))).tolist()))
    if max(np.bincount(np.array(sorted(slow)).ravel(), minlength=1), default=0) <= 16:  # of more the nearest are kept
        assert found == slow


def test_copies_of_two_searches_are_joined_and_counted_once():
    looks = Looks(
        np.zeros((4, 32, 32), np.uint8), *np.zeros((2, 4), np.uint64), np.arange(4, dtype=np.uint64), ("",) * 4
    )
    one, two = (copies(looks, np.array(pairs)) for pairs in ([[0, 1], [0, 1]], [[0, 1], [1, 3]]))
    both = one.with_(two, 4)
    assert both.pairs.tolist() == [[0, 1], [1, 3]] and both.groups == ((0, 1, 3),) and both.likeness.tolist() == [1, 1]


def test_files_of_the_same_bytes_are_copies_and_one_of_them_is_compared_for_all(tmp_path, monkeypatch):
    smaller = photo(0).resize((40, 40), Image.Resampling.BICUBIC)
    one, compared = looked({"0.png": photo(0), "1.png": photo(1), "2.png": smaller}, tmp_path / "photos"), []
    which = np.tile([0, 1, 2], 500)
    looks = Looks(*(getattr(one, name)[which] for name in ("small", "hashes", "mirrored", "digests")), ("",) * 1500)
    judged = audit_copies._likeness
    monkeypatch.setattr(audit_copies, "_likeness", lambda looks, pairs: compared.extend(pairs) or judged(looks, pairs))
    near = neighbours(np.eye(3, dtype=np.float32)[which] + 0.1, kinds=looks.digests)
    for found in (copies(looks), copies(looks, near.proposed(3))):
        groups = [tuple(range(0, 1500)[place::3]) for place in range(3)]
        assert found.groups == (tuple(sorted(groups[0] + groups[2])), groups[1])
        assert len(found.pairs) == 3 * 499 + 1 and found.likeness[found.likeness < 1].size == 1
    assert len(compared) <= 2 * 3  # of three images, though there are 1,500 files


@settings(max_examples=30)
@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=30))
def test_groups_are_what_pairs_connect(count, links):
    pairs = np.array(sorted({(min(p), max(p)) for p in links if max(p) < count and p[0] != p[1]})).reshape(-1, 2)
    reach = np.eye(count, dtype=int)
    for one, other in pairs.tolist():
        reach[one, other] = reach[other, one] = 1
    for _ in range(6):
        reach = np.minimum(reach @ reach, 1)
    slow = {tuple(np.flatnonzero(row).tolist()) for row in reach if row.sum() > 1}
    assert set(grouped(count, pairs)) == slow


def test_the_nearest_by_blocks_are_those_of_all_cosines(monkeypatch):
    features = np.random.default_rng(0).normal(size=(37, 5)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    monkeypatch.setattr("convnext.studies.similar.cells._LEAST", 6)
    found = neighbours(features, 4)
    np.testing.assert_allclose(found.cosines, -np.sort(-cosines, axis=1)[:, :4], atol=1e-6)
    np.testing.assert_allclose(found.distances, 1 - found.cosines.mean(1), atol=1e-6)
    assert neighbours(features[:1]).far.tolist() == [] and neighbours(features[:3]).places.shape == (3, 2)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 9))
def test_the_nearest_of_files_that_are_there_often_are_those_of_all_cosines(kinds, most, block):
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)[kinds]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convnext.studies.audit.neighbours._BLOCK", block)
        found = neighbours(features, most, kinds=np.array(kinds))
    wanted = min(most, len(kinds) - 1)
    np.testing.assert_allclose(found.cosines, -np.sort(-cosines, axis=1)[:, :wanted], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, found.places, 1), found.cosines, atol=1e-6)
    assert all(len({*row}) == wanted for row in found.places.tolist())


def test_one_image_unlike_all_others_is_the_outlier():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(50, 8)).astype(np.float32) * 0.1 + 1
    features[17] = [-1, 1, -1, 1, -1, 1, -1, 1]
    assert neighbours(features).far.tolist()[:1] == [17]


# The whole of it


def test_an_audit_names_the_wrong_labels_first_and_the_copy_across_parts(data, weights, tmp_path):
    out = tmp_path / "audit"
    done = convnext("audit", data, "--out", out, "--weights", weights, "--workers", 0, "--device", "cpu")
    assert done.status == 0, done.err
    wrong = rows(out / "audit.csv")
    assert list(wrong[0]) == ["path", "given", "suggested", "score"]
    assert {(row["path"], row["given"], row["suggested"]) for row in wrong[:2]} == {
        ("train/blue/r3.png", "blue", "red"),
        ("train/red/g4.png", "red", "green"),
    }
    scores = [float(row["score"]) for row in wrong]
    assert scores == sorted(scores, reverse=True) and 0.5 < scores[0] <= 1
    copied = rows(out / "duplicates.csv")
    assert [(row["group"], row["path"], row["part"]) for row in copied] == [
        ("1", "train/blue/005.png", "train"),
        ("1", "val/blue/copy.jpg", "val"),
    ]
    assert "1 group of images that show the same, 1 across parts" in done.out
    assert "Skipped 'train/red/broken.png': not an image" in done.err
    with np.load(out / "probabilities.npz") as held:
        assert held["probabilities"].shape == (49, 3) and np.allclose(held["probabilities"].sum(1), 1, atol=1e-4)
        assert list(held["classes"]) == ["blue", "green", "red"] and "train/blue/r3.png" in held["paths"]


def test_weights_that_may_have_learnt_these_very_labels_are_named(data, tmp_path):
    own = checkpoint_of("classification", tmp_path, classes=("green", "blue", "red"))
    done = convnext("audit", data, "--out", tmp_path / "audit", "--weights", own, "--workers", 0, "--device", "cpu")
    assert done.status == 0 and f"'{own}' has the classes of these data" in done.err


def test_a_zip_and_a_call_find_the_same_and_json_counts_it(data, weights, tmp_path):
    convnext("audit", data, "--out", tmp_path / "one", "--weights", weights, "--workers", 0, "--device", "cpu")
    pack = zipped(data, tmp_path / "pack.zip")
    found = package.audit(pack, tmp_path / "two", weights=weights, workers=0, device="cpu", progress=False)
    assert (tmp_path / "one/audit.csv").read_text() == (tmp_path / "two/audit.csv").read_text()
    again = convnext("audit", pack, "--out", tmp_path / "two", "--weights", weights, "--json", "--device", "cpu")
    told = json.loads(again.out)
    assert told == found.to_dict() and told["wrong"] == len(found.wrong) and told["across_parts"] == 1
    assert list(told["skipped"]) == ["train/red/broken.png"]


def test_an_audit_that_was_killed_goes_on_and_ends_the_same(data, weights, tmp_path, monkeypatch):
    how = {"weights": weights, "workers": 0, "device": "cpu", "progress": False}
    whole = audit(data, tmp_path / "whole", **how)
    monkeypatch.setattr(networks, "CHUNK", 20)
    keep, done = networks._keep, []

    def killed(*arguments):
        keep(*arguments)
        done.append(arguments[0])
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(networks, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        audit(data, tmp_path / "cut", **how)
    assert not (tmp_path / "cut/audit.csv").exists()
    made = list(done)
    audit(data, tmp_path / "cut", **how)
    assert len(done) == 3 and done[2] not in made  # what was there was not made again
    for name in ("audit.csv", "duplicates.csv", "outliers.csv", "pairs.csv"):
        assert (tmp_path / "cut" / name).read_text() == (whole.out / name).read_text()


def test_without_weights_a_network_is_trained_for_each_fold_and_each_ends_in_a_file(tmp_path):
    folder = write_colours(tmp_path / "data", train=8, val=0, size=24, classes=2)
    shutil.rmtree(folder / "val")
    how = {"folds": 2, "epochs": 1, "size_px": 32, "workers": 0, "device": "cpu", "progress": False}
    audit(folder, tmp_path / "out", **how)
    work = tmp_path / "out/work"
    assert {file.name for file in work.iterdir()} == {"looks.npz", "features-00000.npz", "fold1.npz", "fold2.npz"}
    first = (work / "fold1.npz").read_bytes()
    (work / "fold2.npz").write_bytes(b"half")
    before = (tmp_path / "out/audit.csv").read_text()
    audit(folder, tmp_path / "out", **how)
    assert (work / "fold1.npz").read_bytes() == first and (tmp_path / "out/audit.csv").read_text() == before


def test_a_class_of_one_image_is_said_not_to_be_judged(data, weights, tmp_path):
    (data / "train/grey").mkdir()
    Image.new("RGB", (24, 24), COLOURS["grey"]).save(data / "train/grey/one.png")
    found = audit(data, tmp_path / "out", weights=weights, workers=0, device="cpu", progress=False)
    assert found.unjudged == ("train/grey/one.png",)
    assert "train/grey/one.png" not in {each.path for each in found.wrong}
    assert "1 label could not be judged" in Page(found.page.read_text("utf-8")).text


def test_right_labels_are_not_doubted(weights, tmp_path):
    folder = write_colours(tmp_path / "data", train=10, val=2)
    found = audit(folder, tmp_path / "out", weights=weights, workers=0, device="cpu", progress=False)
    assert found.wrong == () and found.groups == () and found.to_dict()["wrong"] == 0
    assert (tmp_path / "out/audit.csv").read_text() == "path,given,suggested,score\n"
    text = Page(found.page.read_text("utf-8")).text
    assert "No label is likely wrong" in text and "No two images show the same" in text


def test_a_table_that_a_person_changed_stays(data, weights, tmp_path):
    out = tmp_path / "audit"
    arguments = ("audit", data, "--out", out, "--weights", weights, "--workers", 0, "--device", "cpu")
    convnext(*arguments)
    (out / "audit.csv").write_text("path,given,suggested,score\n")
    done = convnext(*arguments)
    assert (out / "audit.csv").read_text() == "path,given,suggested,score\n"
    assert f"'{out / 'audit.csv'}' was changed since it was written, and stays." in done.err


def test_what_cannot_be_audited_is_one_line(data, weights, tmp_path):
    out = tmp_path / "out"
    some = ("--weights", weights, "--device", "cpu")
    assert (
        "folds = 1 is refused: it must be a whole number, 2 or more"
        in convnext("audit", data, "--out", out, "--folds", 1).line
    )
    few = write_colours(tmp_path / "few", train=1, val=0, classes=2)
    shutil.rmtree(few / "val")
    line = convnext("audit", few, "--out", out, *some).line
    assert line == "folds = 5 is refused: there are only 2 images. Give fewer."
    assert "--out" in convnext("audit", data, "--out", data / "in", *some).line
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("mine")
    assert "holds other files ('mine.txt')" in convnext("audit", data, "--out", tmp_path / "other", *some).line
    shutil.copytree(data / "train/red", tmp_path / "one/red")
    assert "of one class only" in convnext("audit", tmp_path / "one", "--out", tmp_path / "o2", *some).line
    assert (
        "are frozen: nothing is trained" in convnext("audit", data, "--out", tmp_path / "o3", *some, "--epochs", 2).line
    )
    convnext("audit", data, "--out", out, *some)
    assert "holds an audit of other images" in convnext("audit", data, "--out", out, *some, "--folds", 3).line
    with pytest.raises(ConvNeXtError, match="soon"):
        audit(data, tmp_path / "o4", minutes="soon")


def test_names_on_the_page_are_only_text_and_images_are_inside_it(data, weights, tmp_path):
    odd = data / "train/blue/<img src=x onerror=alert(1)>.png"
    shutil.move(data / "train/blue/r3.png", odd)
    found = audit(data, tmp_path / "out", weights=weights, workers=0, device="cpu", progress=False)
    text = found.page.read_text("utf-8")
    page = Page(text)
    assert "<img src=x" not in text and "script" not in page.names
    assert all(link.startswith(("data:image/jpeg", "#")) for link in page.links)
    assert {"labels", "duplicates", "outliers", "classes", "left-out"} <= set(page.ids)
    assert "across parts" in page.text and rows(found.out / "audit.csv")[0]["path"].startswith("train/")
    assert list(csv.reader(io.StringIO((found.out / "audit.csv").read_text())))  # quoted where it must be


def several(folder: Path) -> tuple[Path, set[tuple[str, str, str]]]:
    """80 images of none to three labels, two of which are wrong and one of which is unknown; (data, what is wrong)."""
    said = made(80)
    written = {name: list(labels) for name, labels in said.items()}
    yes = next(name for name, labels in said.items() if labels == ["red"])
    no = next(name for name, labels in said.items() if "blue" not in labels and name > "020.png")
    written[yes], written[no] = [], [*said[no], "blue"]
    write_images(folder / "images", said)
    lines = [f"{name},{','.join(str(int(each in labels)) for each in NAMES)}" for name, labels in written.items()]
    lines[70] = lines[70].rpartition(",")[0] + ","
    (folder / "labels.csv").write_text("\n".join([f"file_name,{','.join(NAMES)}", *lines]))
    wrong = {(f"images/{yes}", "not red", "red"), (f"images/{no}", "blue", "not blue")}
    return folder, wrong


def test_each_of_several_labels_is_judged_by_itself(weights, tmp_path):
    data, wrong = several(tmp_path / "data")
    found = audit(data, tmp_path / "out", weights=weights, workers=0, device="cpu", progress=False)
    named = [(each.path, each.given, each.suggested) for each in found.wrong]
    assert wrong <= {*named[:4]}, named
    assert rows(tmp_path / "out/audit.csv")[0].keys() == {"path", "given", "suggested", "score"}
    assert found.pairs == () and found.several and "not red" in found.page.read_text()
    with np.load(tmp_path / "out/probabilities.npz") as held:
        assert held["labels"].shape == held["probabilities"].shape == (80, 3) and (held["labels"] == -1).sum() == 1
    again = audit(data, tmp_path / "out", weights=weights, workers=0, device="cpu", progress=False)
    assert again.wrong == found.wrong
    done = convnext(*tiny(data, tmp_path / "run", "--corrections", tmp_path / "out/audit.csv", "--epochs", 1))
    assert done.status == 0 and "left out" in done.err, done.err


def test_small_networks_judge_several_labels_too(tmp_path):
    data, _ = several(tmp_path / "data")
    words = ("--folds", 2, "--epochs", 1, "--size", 16, "--model", "atto", "--device", "cpu", "--workers", 0, "--json")
    done = convnext("audit", data, "--out", tmp_path / "out", *words)
    assert done.status == 0, done.err
    assert json.loads(done.out)["n"] == 80


def test_data_without_any_label_are_one_line(weights, tmp_path):
    write_images(tmp_path / "data/images", made(6))
    text = "\n".join(["file_name,labels", *(f"{name}," for name in made(6))])
    (tmp_path / "data/labels.csv").write_text(text)
    done = convnext("audit", tmp_path / "data", "--out", tmp_path / "out", "--weights", weights)
    assert done.status == 2 and done.err.count("convnext: ") == 1, done.err


def test_of_many_copies_the_page_shows_one_of_each_part_and_class():
    odd = {30: ("val", "dog"), 20: ("train", "cat")}
    images = [findings.Image(f"{n}", *odd.get(n, ("train", "dog")), likeness=1.0) for n in range(40)]
    shown = page._telling(findings.Group(tuple(images)))
    assert [image.path for image in shown] == ["0", "20", "30", "1", "2", "3", "4", "5"]
