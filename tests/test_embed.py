"""Features in a file, and the nearest images by them: the numbers, what is left out, what is refused, the page."""

import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from safetensors.torch import save_file

import convnext as package
from checkpoints import TASKS, checkpoint_of
from commands import convnext
from convnext.deploy import features
from convnext.deploy.features import open_features, write_features
from convnext.errors import ConvNeXtError
from convnext.studies.similar.search import Nearest
from images import write_colours, zipped
from pages import Page

C = 24  # features of the small networks


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {task: checkpoint_of(task, tmp_path_factory.mktemp(task)) for task in TASKS}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images in folders, one of which is none."""
    folder = write_colours(tmp_path / "photos", train=3, val=1) / "train"
    shutil.rmtree(tmp_path / "photos" / "val")
    (folder / "red" / "broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


def loaded(file: Path) -> dict[str, Any]:
    if file.suffix == ".npz":
        with np.load(file) as held:  # as anybody reads it: nothing is unpickled
            return dict(held)
    table = pytest.importorskip("pyarrow.parquet").read_table(file)
    return {
        "paths": np.array(table["paths"].to_pylist()),
        "features": np.array(table["features"].to_pylist(), np.float32),
    }


# A file of features


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_a_file_holds_the_features_of_the_predictor_with_their_paths(runs, photos, tmp_path, task, ending):
    out = tmp_path / f"features{ending}"
    done = convnext("embed", runs[task], photos, "--out", out, "--device", "cpu")
    assert done.status == 0, done.err
    found = loaded(out)
    skipped: dict[str, str] = {}
    expected = list(package.load(runs[task], device="cpu").embed_named(photos, skipped=skipped))
    assert [str(path) for path in found["paths"]] == [path for path, _ in expected]
    assert found["features"].dtype == np.float32 and found["features"].shape == (9, C)
    assert np.array_equal(found["features"], np.stack([row for _, row in expected]))
    (broken,) = skipped
    assert f"Skipped '{broken}': not an image" in done.err
    where = "after the final norm" if task == "classification" else "behind its norm"
    assert done.out.startswith(f"9 images, {C} features each (the last stage") and where in done.out


def test_the_json_names_what_was_left_out_and_the_call_gives_the_same(runs, photos, tmp_path):
    run, one, two = runs["classification"], tmp_path / "one.npz", tmp_path / "two.npz"
    said = json.loads(convnext("embed", run, photos, "--out", one, "--json", "--batch", 2, "--workers", 0).out)
    found = package.embed(run, photos, two)
    assert found.to_dict() | {"out": str(one)} == said and said["n"] == 9 and len(said["skipped"]) == 1
    np.testing.assert_allclose(loaded(one)["features"], loaded(two)["features"], atol=1e-5)


def test_files_folders_globs_and_zips_have_the_same_features(runs, photos, tmp_path):
    pack = zipped(photos, tmp_path / "pack.zip")
    ways = {"folder": [photos], "glob": [photos / "train" / "*" / "0*.png"], "zip": [pack]}
    made = {}
    for name, paths in ways.items():
        assert package.embed(runs["classification"], paths, tmp_path / f"{name}.npz").n == 9
        held = loaded(tmp_path / f"{name}.npz")
        made[name] = {
            Path(str(path)).name + Path(str(path)).parent.name: row
            for path, row in zip(held["paths"], held["features"], strict=True)
        }
    for name in ("glob", "zip"):
        assert all(np.array_equal(row, made["folder"][key]) for key, row in made[name].items())


@settings(max_examples=20)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 5)), elements=st.floats(-8, 8, width=32)),
    st.integers(1, 7),
    st.sampled_from([".npz", ".parquet"]),
)
def test_what_is_written_in_blocks_is_read_in_blocks(tmp_path_factory, values, block, ending):
    file = tmp_path_factory.mktemp("blocks") / f"f{ending}"
    names = [f"{'ä' * (i % 3)}/{i}.jpg" for i in range(len(values))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "BLOCK", block)
        assert write_features(file, zip(names, values, strict=True), {"source": "x"}) == values.shape
        found = open_features(file)
        assert (found.n, found.width, dict(found.about)) == (*values.shape, {"source": "x"})
        assert all(len(each) <= block for each in found.blocks()) and np.array_equal(
            np.concatenate(list(found.blocks())), values
        )
        rows = [len(values) - 1, 0, len(values) // 2]
        assert found.paths(rows) == [names[row] for row in rows]
    assert np.array_equal(loaded(file)["features"], values) and [str(path) for path in loaded(file)["paths"]] == names


def test_a_file_that_ends_too_soon_or_is_none_is_refused_in_one_line(runs, photos, tmp_path):
    image = photos / "train" / "red" / "000.png"
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "flat.npz", features=np.zeros(3, np.float32), paths=np.array(["a", "b", "c"]))
    np.savez(tmp_path / "numbers.npz", features=np.zeros((3, C), np.float32), paths=np.zeros(3))
    (tmp_path / "text.parquet").write_text("no table")
    for name in ("text.npz", "other.npz", "flat.npz", "numbers.npz", "text.parquet"):
        line = convnext("similar", runs["classification"], image, tmp_path / name).line
        assert line.startswith(f"'{tmp_path / name}' holds no features (") and line.endswith("`convnext embed` wrote.")
    assert "does not exist" in convnext("similar", runs["classification"], image, tmp_path / "nothing.npz").line


def test_places_that_will_not_do_are_refused_before_anything_is_computed(runs, photos, tmp_path):
    run = runs["classification"]
    assert (
        "ends in none of .npz, .parquet. Did you mean '.npz'?" in convnext("embed", run, photos, "--out", "f.np").line
    )
    (tmp_path / "there.npz").write_text("mine")
    assert "is there already" in convnext("embed", run, photos, "--out", tmp_path / "there.npz").line
    assert (tmp_path / "there.npz").read_text() == "mine"
    only = photos / "train" / "red" / "broken.png"
    line = convnext("embed", run, only, "--out", tmp_path / "none.npz").line
    assert line.startswith(f"None of 1 image could be read; the first is '{only}': not an image")
    assert not (tmp_path / "none.npz").exists()
    assert "does not exist" in convnext("embed", run, tmp_path / "nowhere", "--out", tmp_path / "f.npz").line
    assert convnext("embed", tmp_path / "no_run", photos, "--out", tmp_path / "f.npz").status == 2


# Weights of other libraries


def test_weights_of_another_library_give_its_features(photos, tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 12, 16, C), num_classes=7).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    image = Image.new("RGB", (224, 224), (200, 90, 30))
    image.save(tmp_path / "one.png")
    done = convnext(
        "embed", tmp_path / "model.safetensors", tmp_path / "one.png", "--out", tmp_path / "f.npz", "--device", "cpu"
    )
    assert done.status == 0, done.err
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (theirs.default_cfg["mean"], theirs.default_cfg["std"]))
    theirs = theirs.double()
    with torch.inference_mode():
        expected = theirs.forward_head(theirs.forward_features((x - mean) / std), pre_logits=True)[0].numpy()
    np.testing.assert_allclose(loaded(tmp_path / "f.npz")["features"][0], expected, atol=1e-3, rtol=1e-3)


# The nearest


@settings(max_examples=50)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-4, 4).map(float)),
    st.integers(1, 12),
    st.integers(1, 9),
)
def test_the_search_by_blocks_is_the_slow_one(rows, top, block):
    query = np.array([1, 2, -1], np.float32)
    nearest = Nearest(query, top)
    for start in range(0, len(rows), block):
        nearest.show(rows[start : start + block])

    def cosine(row: np.ndarray) -> float:
        length = math.hypot(*map(float, row)) * math.hypot(*map(float, query))
        return sum(a * b for a, b in zip(map(float, row), map(float, query), strict=True)) / length if length else 0.0

    slow = sorted(map(cosine, rows), reverse=True)[:top]
    np.testing.assert_allclose(nearest.cosines, slow, atol=1e-6)
    np.testing.assert_allclose([cosine(rows[row]) for row in nearest.rows], slow, atol=1e-6)
    assert len(set(nearest.rows.tolist())) == len(nearest.rows) == min(top, len(rows)) and nearest.n == len(rows)


def test_the_copy_of_an_image_is_nearest_from_images_and_from_files_of_features(runs, photos, tmp_path):
    run, query = runs["classification"], tmp_path / "query.png"
    shutil.copy(photos / "train" / "green" / "001.png", query)
    package.embed(run, photos, tmp_path / "f.npz")
    direct = json.loads(convnext("similar", run, query, photos, "--json", "--top", 4).out)
    stored = json.loads(convnext("similar", run, query, tmp_path / "f.npz", "--json", "--top", 4).out)
    assert direct["similar"][0]["path"].endswith("green/001.png") and direct["similar"][0]["cosine"] == pytest.approx(1)
    assert [row["path"] for row in direct["similar"]] == [row["path"] for row in stored["similar"]]
    assert direct["n"] == stored["n"] == 9 and len(direct["skipped"]) == 1 and stored["skipped"] == {}
    both = package.similar(run, query, [tmp_path / "f.npz", photos], top=2)
    assert both.n == 18 and {Path(each.path).name for each in both.found} == {"001.png"}
    said = convnext("similar", run, query, tmp_path / "f.npz", "--top", 1)
    assert said.out == f"1.000  {direct['similar'][0]['path']}\n"


def test_features_by_other_weights_are_refused_with_both_names(runs, photos, tmp_path):
    query = photos / "train" / "red" / "000.png"
    other = checkpoint_of("classification", tmp_path, classes=("x", "y", "z"))
    package.embed(other, photos, tmp_path / "f.npz")
    line = convnext("similar", runs["classification"], query, tmp_path / "f.npz").line
    assert line.startswith(f"'{tmp_path / 'f.npz'}' holds features by other weights ('{other}', 64 px) than")
    np.savez(tmp_path / "wide.npz", features=np.ones((2, C + 1), np.float32), paths=np.array(["a", "b"]))
    line = convnext("similar", runs["classification"], query, tmp_path / "wide.npz").line
    assert line.endswith(f"has {C + 1} features an image, and this network has {C}.")
    np.savez_compressed(tmp_path / "own.npz", features=np.ones((2, C), np.float32), paths=np.array(["a", "b"]))
    assert (
        package.similar(runs["classification"], query, tmp_path / "own.npz").n == 2
    )  # of somebody else, who says nothing


def test_a_query_that_is_not_one_image_is_refused(runs, photos, tmp_path):
    run = runs["classification"]
    assert "may hold many images, and the query is one" in convnext("similar", run, photos, photos).line
    assert (
        "cannot be read: not an image" in convnext("similar", run, photos / "train" / "red" / "broken.png", photos).line
    )
    assert "does not exist" in convnext("similar", run, tmp_path / "none.png", photos).line
    with pytest.raises(ConvNeXtError, match="top = 0"):
        package.similar(run, photos / "train" / "red" / "000.png", photos, top=0)


def test_the_page_shows_each_image_with_its_cosine_and_a_name_that_is_only_text(runs, photos, tmp_path):
    run, odd = runs["classification"], photos / "train" / "red" / "<img src=x onerror=alert(1)>.png"
    shutil.copy(photos / "train" / "red" / "000.png", odd)
    pack = zipped(photos, tmp_path / "pack.zip")
    out = tmp_path / "page.html"
    found = package.similar(run, odd, pack, top=5, out=out)
    text = out.read_text("utf-8")
    page = Page(text)
    assert page.names.count("img") == 6 and all(link.startswith("data:image/jpeg") for link in page.links)
    assert "script" not in page.names and "<img src=x" not in text
    assert all(f"{each.cosine:.3f}" in page.text for each in found.found)
    assert "The 5 nearest of 10 images." in page.text and "1 image could not be read and was left out." in page.text
    assert "is there already" in convnext("similar", run, odd, pack, "--out", out).line
    assert "does not end in .html" in convnext("similar", run, odd, pack, "--out", tmp_path / "page.pdf").line
    package.embed(run, pack, tmp_path / "f.npz")
    pack.unlink()
    package.similar(run, odd, tmp_path / "f.npz", out=tmp_path / "gone.html")  # images that are not there any more
    assert Page((tmp_path / "gone.html").read_text("utf-8")).names.count("img") == 1
    with zipfile.ZipFile(tmp_path / "f.npz") as archive:
        assert archive.testzip() is None
