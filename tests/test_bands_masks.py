"""Images of many bands with masks: trained on, scored, predicted on and shown like any others."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import convnext as package
from commands import convnext
from convnext.config import Bands, override
from convnext.data.annotated_policy import eval_dense, train_dense
from convnext.data.annotated_transforms import fill_of, pad, resize, stacked
from convnext.data.dataset import read_sample
from convnext.data.opening import open_dense_splits, recognise
from convnext.data.sample import IGNORE, Sample
from convnext.errors import ConvNeXtError
from convnext.recipes import recipe
from convnext.reports.run_files import PREDICTIONS
from convnext.tasks.opening import bands_of, read_by
from images import write_colours
from runs import bits
from test_cli_dense import arguments

BANDS = 6


def scene(seed: int, side: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 6) uint16 and (H, W) mask: a square and a disc that band 5 alone shows."""
    rng = np.random.default_rng(seed)
    pixels, mask = rng.integers(0, 3000, (side, side, BANDS)).astype(np.uint16), np.zeros((side, side), np.uint8)
    rows, columns = np.mgrid[:side, :side]
    y, x = rng.integers(8, side - 8, 2)
    mask[(abs(rows - y) < 6) & (abs(columns - x) < 6)] = 1
    y, x = rng.integers(8, side - 8, 2)
    mask[np.hypot(rows - y, columns - x) < 7] = 2
    pixels[:, :, 4] = 1400 * mask.astype(np.uint16) + rng.integers(0, 200, mask.shape)
    return pixels, mask


def write(folder: Path, *, train: int = 8, val: int = 3, dtype: type = np.uint16, first: bool = False) -> Path:
    """train/ and val/ with images/*.npy and masks/*.png, and classes.txt."""
    for part, count, start in (("train", train, 0), ("val", val, 1000)):
        for name in ("images", "masks"):
            (folder / part / name).mkdir(parents=True)
        for number in range(count):
            pixels, mask = scene(start + number)
            pixels = (pixels >> 5).astype(np.uint8) if dtype == np.uint8 else pixels.astype(dtype)
            np.save(folder / part / "images" / f"{number}.npy", pixels.transpose(2, 0, 1) if first else pixels)
            Image.fromarray(mask).save(folder / part / "masks" / f"{number}.png")
    (folder / "classes.txt").write_text("ground\nsquare\ndisc\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bands") / "data")


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    done = convnext(*arguments(data, data.parent / "run", "segmentation", "--epochs", 2))
    assert done.status == 0, done.err
    assert "Images of 6 bands in whole numbers of more than 8 bit, all of which are channels." in done.err
    assert "Mean and std of each band were measured on 8 training images." in done.err
    return data.parent / "run"


def test_a_run_keeps_how_bands_are_read_and_normalised_and_has_every_picture(run, data):
    chosen = json.loads((run / "recipe.json").read_text())
    assert chosen["model"]["in_channels"] == BANDS and chosen["augment"]["photometric"] is False
    assert chosen["input"]["bands"] == [str(number) for number in range(1, 7)]
    assert (chosen["input"]["file_bands"], chosen["input"]["pixels"], chosen["input"]["arrays"]) == (
        6,
        "integer",
        "last",
    )
    whole = np.stack([scene(seed)[0] for seed in range(8)]).astype(float)
    assert chosen["input"]["mean"] == pytest.approx(whole.mean((0, 1, 2)), rel=1e-5)
    assert chosen["input"]["std"] == pytest.approx(whole.std((0, 1, 2)), rel=1e-5)
    for name in ("samples.jpg", PREDICTIONS):
        with Image.open(run / name) as image:
            assert np.asarray(image).std() > 20
    assert (run / "report.html").read_text().count("data:image/jpeg") > 2


def test_it_is_scored_and_answers_like_any_segmenter(run, data, tmp_path):
    found = json.loads(convnext("evaluate", run, data, "--json").out)
    kept = json.loads((run / "evaluation.json").read_text())
    assert found["miou"] == kept["miou"] and found["n"] == 3
    predictor = package.load(run)
    answer = predictor(data / "val/images/0.npy")
    assert answer.mask.shape == (40, 40) and answer.draw().size == (40, 40)
    assert (predictor(np.load(data / "val/images/0.npy")).mask == answer.mask).all()
    assert (predictor((data / "val/images/0.npy").read_bytes()).mask == answer.mask).all()  # as the server gives it
    done = convnext("predict", run, data / "val/images", "--out", tmp_path / "drawn")
    assert done.status == 0 and len(list((tmp_path / "drawn").iterdir())) >= 3
    (tmp_path / "other.png").write_bytes((data / "val/masks/0.png").read_bytes())
    assert "in place of" in convnext("predict", run, tmp_path / "other.png").err


def test_bands_are_picked_in_order_and_a_run_that_goes_on_keeps_what_it_measured(data, tmp_path):
    line = arguments(data, tmp_path / "run", "segmentation", "--epochs", 1, "--bands", "5,1")
    assert "Images of 6 bands in whole numbers of more than 8 bit: 5, 1 are the channels" in convnext(*line).err
    before = bits(tmp_path / "run")
    again = convnext(*line)
    assert again.status == 0 and "Mean and std of each band are those that the run began with." in again.err
    assert bits(tmp_path / "run") == before
    said = convnext(*arguments(data, tmp_path / "other", "segmentation", "--bands", "7")).line
    assert "--bands 7 names band '7', and these images have 6 bands" in said
    said = convnext(*arguments(data, tmp_path / "other", "segmentation", "--bands", "B04,B03")).line
    assert "No name of a file in '" in said and "ends in 'B04', so it is no band. Give numbers" in said


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_each_kind_of_numbers_becomes_a_sample_of_its_type(tmp_path, dtype):
    splits = open_dense_splits(recognise(write(tmp_path / "data", train=3, val=1, dtype=dtype, first=True)))
    facts = bands_of(splits, asked=(), channels=None, workers=1)
    assert facts is not None and facts.bands.arrays == "first"
    assert facts.bands.pixels == {np.uint8: "uint8", np.float32: "float"}[dtype]
    sample = read_sample(read_by(splits, facts.bands).train, 0)
    expected, mask = scene(0)
    expected = (expected >> 5).astype(np.uint8) if dtype == np.uint8 else expected.astype(dtype)
    assert sample.image.dtype == dtype and (sample.image == expected).all() and (sample.semantic == mask).all()


def test_bands_are_resized_one_by_one_and_padded_with_their_mean():
    pixels, mask = scene(3)
    config = Bands(bands=tuple("123456"), file_bands=6, pixels="integer", mean=(1.5, 2, 3, 4, 5, 6), std=(1,) * 6)
    sample = Sample(pixels.astype(np.float32), None, mask, "a", 1, (40, 40))
    small = resize(sample, (20, 30))
    for band in range(BANDS):
        own = Image.fromarray(sample.image[:, :, band]).resize((30, 20), Image.Resampling.BILINEAR)
        assert (small.image[:, :, band] == np.asarray(own)).all()
    padded = pad(small, (24, 32), fill_of(config))
    assert (padded.image[20:] == config.mean).all() and (padded.image[:, 30:] == config.mean).all()
    assert (padded.semantic[20:] == IGNORE).all() and padded.image.dtype == np.float32
    batch = stacked([small.image], 32, fill_of(config))
    assert batch.shape == (1, 32, 32, BANDS) and (batch[0, 20:] == config.mean).all()


def test_what_is_for_colours_is_refused_and_the_same_key_gives_the_same_pixels():
    config = Bands(bands=tuple("123456"), file_bands=6, pixels="integer", mean=(0,) * 6, std=(1,) * 6)
    chosen = recipe("small_segmentation", "atto", images=9, image_px=40, classes=3, bands=config)
    with pytest.raises(ConvNeXtError, match=r"augment\.photometric changes colours, which bands do not have"):
        override(chosen, {"augment.photometric": True})
    pixels, mask = scene(3)
    sample = Sample(pixels.astype(np.float32), None, mask, "a", 1, (40, 40))
    one, two = (train_dense(sample, chosen.input, chosen.augment, (1, 2)) for _ in range(2))
    assert (one.image == two.image).all() and one.image.dtype == np.float32
    assert set(np.unique(one.semantic)) <= {0, 1, 2, IGNORE}
    assert eval_dense(sample, chosen.input).image.shape[2] == BANDS


def test_kernels_of_colour_weights_are_repeated_for_further_bands(run, data, tmp_path):
    colours = write_colours(tmp_path / "colours", train=3, val=1)
    small = ["--epochs", 1, "--size", 16, "--batch", 3, "--workers", 0, "--start.mode", "full"]
    small += ["--model.depths", "1,1,1,1", "--model.widths", "8,12,16,24"]
    assert convnext("train", colours, "--out", tmp_path / "colour", *small).status == 0
    line = arguments(
        data, tmp_path / "tuned", "segmentation", "--epochs", 1, "--optim.lr", 1e-9, "--weights", tmp_path / "colour"
    )
    done = convnext(
        *[word for word in line if word not in ("--model.depths", "--model.widths", "1,1,1,1", "8,12,16,24")]
    )
    assert done.status == 0, done.err
    stem = next(
        value for value in load_file(tmp_path / "tuned/best.safetensors").values() if value.shape[1:2] == (BANDS,)
    )
    assert stem.std() > 1e-3
    assert np.allclose(stem[:, :3], stem[:, 3:], atol=1e-6)  # of red, green and blue


@pytest.mark.parametrize("form", ["onnx", "openvino", "torch"])
def test_an_exported_file_answers_as_its_run(run, data, tmp_path, form):
    pytest.importorskip({"onnx": "onnxscript", "openvino": "openvino", "torch": "torch"}[form])
    done = package.export(run, form, out=tmp_path / {"onnx": "m.onnx", "openvino": "m.xml", "torch": "m.pt2"}[form])
    assert done.difference <= 1e-4 * done.largest
    if form == "torch":
        return
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[form])
    there, here = package.load(run), package.load(done.out)
    file = data / "val/images/0.npy"
    assert (there(file).mask == here(file).mask).mean() > 0.999
    expected = json.loads((run / "evaluation.json").read_text())
    found = json.loads(convnext("evaluate", done.out, data, "--json", "--workers", 0).out)
    assert found["miou"] == pytest.approx(expected["miou"], abs=1e-3) and found["n"] == 3


def elsewhere(folder: Path, data: Path, order: list[int]) -> Path:
    """The val part of `data` with its bands in another order."""
    (folder / "masks").mkdir(parents=True)
    (folder / "images").mkdir()
    for file in (data / "val/images").iterdir():
        np.save(folder / "images" / file.name, np.load(file)[:, :, order])
    for file in (data / "val/masks").iterdir():
        (folder / "masks" / file.name).write_bytes(file.read_bytes())
    (folder / "classes.txt").write_text("ground\nsquare\ndisc\n")
    return folder


def test_bands_that_lie_elsewhere_in_a_file_are_named(run, data, tmp_path):
    other = elsewhere(tmp_path / "other", data, [5, 4, 3, 2, 1, 0])
    how = ("--bands", "6,5,4,3,2,1", "--workers", 0)
    found = json.loads(convnext("evaluate", run, other, *how, "--json").out)
    assert found["miou"] == json.loads((run / "evaluation.json").read_text())["miou"]
    convnext("predict", run, other / "images", *how, "--out", tmp_path / "a")
    convnext("predict", run, data / "val/images", "--workers", 0, "--out", tmp_path / "b")
    masks = sorted(file.name for file in (tmp_path / "a").glob("?.png"))
    assert masks == ["0.png", "1.png", "2.png"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in masks)


def files_apart(folder: Path, data: Path, name: str) -> Path:
    """The images of `data` with a 16-bit PNG for each band, called by `name`, as '{image}_B{band}'."""
    for part in ("train", "val"):
        (folder / part / "masks").mkdir(parents=True)
        for file in (data / part / "images").iterdir():
            values = np.load(file)
            for band in range(BANDS):
                path = folder / part / "images" / f"{name.format(image=file.stem, band=band + 1)}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values[:, :, band]).save(path)
        for file in (data / part / "masks").iterdir():
            (folder / part / "masks" / file.name).write_bytes(file.read_bytes())
    (folder / "classes.txt").write_text("ground\nsquare\ndisc\n")
    return folder


def test_a_file_for_each_band_is_the_same_run_as_all_bands_in_one(run, data, tmp_path):
    apart = files_apart(tmp_path / "data", data, "{image}_B{band}")
    done = convnext(*arguments(apart, tmp_path / "run", "segmentation", "--epochs", 2))
    assert done.status == 0, done.err
    assert (
        "Each image is 6 files in whole numbers of more than 8 bit: B1, B2, B3, B4, B5, B6, in this order." in done.err
    )
    assert "Files whose names differ only in B1, B2, B3, B4, B5, B6 are the bands of one image" in done.err
    one, two = (load_file(folder / "best.safetensors") for folder in (run, tmp_path / "run"))
    assert one.keys() == two.keys() and all(bool((one[name] == two[name]).all()) for name in one)
    found = json.loads(convnext("evaluate", tmp_path / "run", apart, "--json", "--workers", 0).out)
    assert found["miou"] == json.loads((run / "evaluation.json").read_text())["miou"]
    done = convnext("predict", tmp_path / "run", apart / "val/images", "--workers", 0, "--out", tmp_path / "drawn")
    assert done.status == 0 and len(list((tmp_path / "drawn").glob("*_overlay.jpg"))) == 3
    again = convnext("evaluate", run, apart, "--bands", "B1,B2,B3,B4,B5,B6", "--json", "--workers", 0)
    assert json.loads(again.out)["miou"] == found["miou"]


@pytest.mark.parametrize("name", ["{image}/B{band}", "{image}-band-c{band}"])
def test_bands_are_files_in_a_folder_for_each_image_too(data, tmp_path, name):
    name = name.replace("-band", "")
    source = recognise(files_apart(tmp_path / "data", data, name))
    assert source.task == "segmentation"
    splits = open_dense_splits(source)
    facts = bands_of(splits, asked=(), channels=None, workers=1)
    assert facts is not None and len(facts.bands.bands) == BANDS and len(splits.train.entries) == 8
    samples = [read_sample(read_by(splits, facts.bands).train, place) for place in range(8)]
    for seed, sample in enumerate(samples):
        pixels, mask = scene(seed)
        assert (sample.image == pixels).all() and (sample.semantic == mask).all()
    picked = open_dense_splits(recognise(tmp_path / "data").with_bands(facts.bands.bands[4:5]))
    assert [entry.path for entry in picked.train.entries] != [entry.path for entry in splits.train.entries]


def test_names_that_look_like_bands_are_images_where_each_has_a_mask(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(1, 9):
        Image.fromarray(np.full((8, 8), 30 * number, np.uint8)).save(tmp_path / f"data/images/c{number}.png")
        Image.fromarray(scene(number, 40)[1][:8, :8]).save(tmp_path / f"data/masks/c{number}.png")
    assert len(open_dense_splits(recognise(tmp_path / "data")).train.entries) > 2
