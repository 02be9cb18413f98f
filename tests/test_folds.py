"""`convnext train --folds`: every image held out once, one recipe, mean and spread in one report, and what is refused."""

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import convnext as convnext_package
from commands import convnext, tiny, trained
from convnext.config import RunOptions
from convnext.errors import ConvNeXtError
from convnext.studies.audit.copies import Copies, grouped
from convnext.studies.audit.looks import known_as, read_looks
from convnext.studies.folds import report
from convnext.studies.folds import run as folds_run
from convnext.studies.folds.parts import parts
from convnext.studies.folds.run import cross_validated
from convnext.tasks.opening import source_of
from convnext.tasks.train import Request
from images import write_colours
from pages import Page
from shapes import write_shapes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours of eight images in two parts, one of them copied from train to val, and a test part."""
    folder = write_colours(tmp_path_factory.mktemp("data"), train=6, val=2)
    Image.open(folder / "train/red/002.png").save(folder / "val/red/000.png")
    shutil.copytree(folder / "val", folder / "test")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "crossed"
    done = trained(data, out, "--epochs", 1, "--folds", 3)
    *scores, last = done.out.splitlines()
    assert scores[0].startswith("top1 0.") and not [line for line in scores if line.startswith("top5")]
    assert last == f"Mean and standard error of 3 folds, 24 images held out once: {out}"
    return out


def test_every_image_is_held_out_once_and_copies_together(run, data):
    held: list[str] = []
    for fold in (1, 2, 3):
        found = json.loads((run / f"fold{fold}/data.json").read_text())
        assert found["train"]["n"] + found["val"]["n"] == 24
        assert max(found["val"]["per_class"].values()) - min(found["val"]["per_class"].values()) <= 1
        assert not [line for line in found["findings"] if "flatters" in line]
        held.append(found["val"]["n"])
    assert sum(held) == 24


def test_the_summary_is_the_mean_and_the_standard_error_of_the_runs(run):
    found = json.loads((run / "folds.json").read_text())
    for name in ("top1", "loss"):
        values = [json.loads((run / f"fold{fold}/evaluation.json").read_text())[name] for fold in (1, 2, 3)]
        assert [each["scores"][name] for each in found["folds"]] == values
        assert found["mean"][name] == pytest.approx(sum(values) / 3)
        assert found["se"][name] == pytest.approx(statistics.stdev(values) / 3**0.5)
    recipes = [(run / f"fold{fold}/recipe.json").read_text() for fold in (1, 2, 3)]
    assert recipes[0] == recipes[1] == recipes[2]


def test_the_report_has_a_line_and_a_link_for_each_fold(run):
    page = Page((run / "report.html").read_text("utf-8"))
    assert page.links == [f"fold{fold}/report.html" for fold in (1, 2, 3)]
    assert all((run / link).exists() for link in page.links)
    assert "24 images altogether" in page.text and "Standard error" in page.text


def test_a_cross_validation_that_was_stopped_goes_on_to_the_same_figures(run, data, tmp_path):
    shutil.copytree(run, tmp_path / "cut")
    for name in ("folds.json", "report.html", "fold3"):
        place = tmp_path / "cut" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    before = (tmp_path / "cut/fold1/last.safetensors").stat().st_mtime_ns
    trained(data, tmp_path / "cut", "--epochs", 1, "--folds", 3)
    assert (tmp_path / "cut/fold1/last.safetensors").stat().st_mtime_ns == before
    ours, whole = (json.loads((place / "folds.json").read_text()) for place in (tmp_path / "cut", run))
    assert ours["mean"] == whole["mean"] and ours["se"] == whole["se"]


def test_a_run_of_a_fold_says_that_it_has_learnt_most_of_the_data(run, data):
    done = convnext("evaluate", run / "fold2", data, "--json", "--workers", 0)
    assert done.status == 0, done.err
    assert "The run is fold 2 of 3 of a cross-validation" in done.err


def test_segmentation_is_cross_validated_by_the_same_road(tmp_path):
    small = {"model.depths": (1, 1, 1, 1), "model.widths": (8, 12, 16, 24), "head.width": 16, "head.aux_width": 8}
    changes = {**small, "optim.batch": 4, "schedule.epochs": 1}
    request = Request(data=source_of(write_shapes(tmp_path / "data", train=5, val=3)), changes=changes)
    found = cross_validated(request, RunOptions(out=str(tmp_path / "run"), workers=0, progress=False), 2)
    assert found is not None and found.task == "segmentation" and found.n == 8
    assert {each["n"] for each in found.runs} == {4} and "miou" in found.mean
    assert (tmp_path / "run/fold2/report.html").exists()


def test_what_contradicts_is_refused_in_one_line(data, tmp_path):
    out = tmp_path / "run"
    line = convnext(*tiny(data, out, "--folds", 3, "--val-share", 0.3)).line
    assert line == "--val-share is what one run holds out; --folds 3 holds out every image once."
    assert "folds = 40 is refused: there are only 24 images" in convnext(*tiny(data, out, "--folds", 40)).line
    assert "folds = 1 is refused" in convnext(*tiny(data, out, "--folds", 1)).line
    assert not out.exists()
    shapes = source_of(write_shapes(tmp_path / "shapes", train=2, val=1))
    with pytest.raises(ConvNeXtError, match="--folds holds out every image once"):
        cross_validated(Request(data=shapes, val=shapes), RunOptions(out=str(out)), 3)


def test_chains_of_likenesses_are_taken_apart_until_a_fold_can_hold_them_and_exact_copies_never():
    chain = np.array([[place, place + 1] for place in range(9)])  # ten images, each like the next
    likeness = np.array([0.96, 0.98, 1.0, 0.96, 0.992, 1.0, 0.98, 1.0, 0.96])
    labels = [0] * 10 + [1] * 2
    found = Copies(chain, likeness, grouped(12, chain))
    assert found.groups == (tuple(range(10)),)
    assert found.fitting(labels, 1) == found.groups  # one fold holds everything
    assert found.fitting(labels, 2) == ((1, 2, 3), (4, 5, 6, 7, 8))  # five are half of the class
    assert found.fitting(labels, 5) == ((2, 3), (5, 6), (7, 8))
    pair = Copies(np.array([[10, 11]]), np.array([0.951]), ((10, 11),))
    assert pair.fitting(labels, 2) == ((10, 11),)  # two may always stay together


def test_a_loss_is_no_rate_under_any_of_its_names():
    assert report._value("loss_before", 1.447) == "1.45" and report._value("aurc", 0.512) == "0.512"
    assert report._value("ece_before", 0.309) == "30.9 %"
    assert report.named("loss_before") == "Loss before the temperature"


def test_a_cross_validation_by_call_is_that_of_the_command_and_knows_its_arguments(run, data, tmp_path):
    changes = {"model.depths": (1, 1), "model.widths": (8, 16), "model.patch": 2, "optim.batch": 6, "input.size_px": 16}
    changes |= {"precision": "fp32"}
    how = {"overrides": changes, "epochs": 1, "workers": 0, "progress": False}
    found = convnext_package.cross_validate(data, 3, out=tmp_path / "run", **how)
    assert isinstance(found, convnext_package.CrossValidated) and found.n == 24 and found.report.is_file()
    assert found.mean == json.loads((run / "folds.json").read_text())["mean"]
    with pytest.raises(ConvNeXtError, match=r"'colors' is no argument of convnext\.cross_validate.* 'colours'"):
        convnext_package.cross_validate(data, colors="legend.txt")
    with pytest.raises(ConvNeXtError, match="'val_share' is no argument"):
        convnext_package.cross_validate(data, 3, val_share=0.3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_rare_ones_of_several_labels_are_spread_evenly_over_the_folds(seed, folds):
    rng = np.random.default_rng(seed)
    marks = (rng.random((80, 6)) < np.array([0.6, 0.5, 0.3, 0.15, 0.08, 0.05])).astype(np.int8)
    paths = [f"{place}.png" for place in range(80)]
    found = parts(paths, marks, [], folds, seed=seed)
    sizes = np.bincount(found, minlength=folds)
    assert sizes.sum() == 80 and sizes.max() - sizes.min() <= 0.2 * 80
    rarest = int(np.where(marks.sum(0) > 0, marks.sum(0), 99).argmin())
    for label in range(6):
        counts = np.bincount(found[marks[:, label] == 1], minlength=folds)
        assert counts.max() - counts.min() <= (1 if label == rarest else max(4, counts.sum() // 4))
    order = rng.permutation(80)  # of the listing, which decides nothing
    assert parts([paths[i] for i in order], marks[order], [], folds, seed=seed).tolist() == found[order].tolist()


def test_copies_of_images_with_several_labels_are_in_one_fold():
    marks = np.random.default_rng(0).integers(-1, 2, (40, 3)).astype(np.int8)
    groups = [(0, 7, 9), (3, 4), (20, 39)]
    found = parts([f"{place}.png" for place in range(40)], marks, groups, 5)
    assert all(len(set(found[list(group)].tolist())) == 1 for group in groups) and set(found.tolist()) == set(range(5))


def test_copies_among_images_of_many_bands_are_in_one_fold(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            coarse = rng.integers(0, 3000, (6, 6, 5)).astype(np.uint16)
            np.save(tmp_path / "data" / name / f"{number}.npy", coarse.repeat(4, 0).repeat(4, 1))
        shutil.copy(tmp_path / "data" / name / "0.npy", tmp_path / "data" / name / "6.npy")
    source = source_of(tmp_path / "data")
    options = RunOptions(out=str(tmp_path / "run"), workers=0)
    (tmp_path / "run").mkdir()
    request = Request(data=source)
    pool, groups = folds_run._pool(source, None)
    found = folds_run._parts(pool, groups, 3, request, options)
    of = dict(zip([entry.path for entry in pool.entries], found.tolist(), strict=True))
    assert all(of[f"{name}/0.npy"] == of[f"{name}/6.npy"] for name in ("a", "b"))
    assert read_looks(tmp_path / "run/looks.npz", known_as(list(of), pool.labels().tolist(), pool.classes)).read.all()
