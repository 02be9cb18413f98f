"""The commands of every tutorial run one after the other in an empty folder, on small data with the tutorial's names.

Networks and trainings are small here; what the pages show was printed by `docs/make/record.py`, on the data that they name.
"""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt as TimmConvNeXt

from commands import convnext, trained
from convnext.models.create import create
from dense_images import write_maps
from images import write_colours, zipped
from shape_objects import write_objects
from test_cli_dense import HEADS, PROPOSALS, WORDS

PAGES = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.md"))
SMALL = ["--epochs", "1", "--batch", "6", "--size", "16", "--workers", "0"]
NETWORK = ["--model.depths", "1,1", "--model.widths", "8,16", "--model.patch", "2"]


def commands(page: Path) -> list[list[str]]:
    """The words of every command, without `convnext`."""
    found = re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    lines = [line for block in found for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("convnext ")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that a tutorial names."""
    monkeypatch.chdir(tmp_path)
    colours = write_colours(tmp_path / "colours", train=12, val=8)
    shutil.copytree(colours / "val", colours / "test")
    zipped(colours, tmp_path / "clothing.zip")
    zipped(write_objects(tmp_path / "objects"), tmp_path / "nuclei.zip")
    for name in ("holiday", "some"):
        shutil.copytree(colours / "val" / "red", tmp_path / name)
    write_maps(tmp_path / "cells", {f"{n}": np.arange(40 * 40).reshape(40, 40) // 800 for n in range(10)})
    shutil.copytree(colours / "val" / "blue", tmp_path / "photos")
    rows = [
        f"{path.name},{'sea;people' if n % 2 else 'people'}" for n, path in enumerate(sorted(Path("photos").iterdir()))
    ]
    Path("photos/labels.csv").write_text("\n".join(["file,labels", *rows]), "utf-8")
    for n in range(12):
        file = tmp_path / "fields" / ("wheat" if n % 2 else "maize") / f"{n}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            file, np.random.default_rng(n).integers(0, 4000, (16, 16, 9), np.uint16), photometric="minisblack"
        )
    save_file(create("atto", depths=(1, 1, 1, 1), widths=(8, 8, 8, 8), classes=4).state_dict(), "atto.safetensors")
    shutil.copytree(colours / "train", tmp_path / "kinds")
    network = TimmConvNeXt(num_classes=4, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), conv_mlp=True)
    save_file(network.state_dict(), "timm_atto.safetensors")
    return tmp_path


def small(words: list[str]) -> list[str]:
    """The same command for a second's work: what comes last wins."""
    if words[0] == "audit":
        return words
    if words[1].startswith(("nuclei", "cells")):
        task = "detection" if words[1].startswith("nuclei") else "segmentation"
        from_weights = "--weights" in words
        sizes = [str(word) for word in WORDS if not (from_weights and str(word).startswith("--model"))]
        if from_weights:
            sizes = sizes[: sizes.index("1,1,1,1")] + sizes[sizes.index("8,12,16,24") + 1 :]
        heads = [str(word) for word in [*HEADS[task], *(PROPOSALS if task == "detection" else [])]]
        return [*words, *sizes, *heads, "--epochs", "1"]
    if "--weights" in words:
        return [*words, *SMALL[:4], *SMALL[6:]]
    return [*words, *SMALL, *NETWORK]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_tutorial_run_in_their_order(page, place):
    for words in commands(page):
        if words[0] == "serve":  # test_serve_process.py starts it
            continue
        if words[0] == "demo" or (
            words[:2] == ["export", "runs/demo"] and not Path("runs/demo").exists()
        ):  # `make demo` runs the whole
            data = write_colours(place / "runs" / "demo" / "images", train=12, val=8)
            (data / "val" / "3").mkdir()  # a digit of the page
            Image.new("RGB", (24, 24), "red").save(data / "val" / "3" / "0059.png")
            shutil.copytree(data / "val" / "3", data / "train" / "3")
            trained(data, place / "runs" / "demo", "--epochs", 3)
            if words[0] == "demo":
                continue
        done = convnext(*(small(words) if words[0] in ("train", "audit") else words))
        assert done.status == 0, f"{' '.join(words)}: {done.err}"
        assert done.out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_shows_what_its_commands_print(page):
    blocks = re.findall(r"```text\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert blocks and all(block.strip() for block in blocks)
