"""`convnext verify`: what is whole of runs, exported files and records; and the digest that ends an exported file."""

import json
import re
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import convnext as package
from commands import convnext, trained
from convnext.errors import CheckpointError
from images import write_colours


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    trained(write_colours(folder / "pets"), folder / "run")
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def states(run: Path) -> dict[str, str]:
    return {one.path.name: one.state for one in package.verify(run)}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_finished_run_is_whole_and_its_other_records_are_readable(run):
    assert states(run) == {
        **dict.fromkeys(("best.safetensors", "best_ema.safetensors", "last.safetensors", "recipe.json"), "whole"),
        **dict.fromkeys(
            ("data.json", "environment.json", "evaluation.json", "metrics.jsonl", "timings.jsonl"), "readable"
        ),
    }
    done = convnext("verify", run)
    assert done.status == 0 and done.out.splitlines()[-1] == "9 files: 4 whole, 5 readable"
    told = json.loads(convnext("verify", run, "--json").out)
    assert (told["whole"], told["readable"], told["damaged"], len(told["files"])) == (4, 5, 0, 9)
    assert {*told["files"][0]} == {"path", "state", "about"}


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("best.safetensors", lambda path: flip(path, -1), "is not what was written"),
        ("last.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-100]), "its tensors end at"),
        ("last.safetensors", lambda path: path.write_bytes(b""), "is empty"),
        ("best_ema.safetensors", lambda path: path.write_bytes(b"\0" * 4096), "not one of safetensors"),
        ("evaluation.json", lambda path: path.write_bytes(path.read_bytes()[:-5]), "it is not JSON"),
        ("evaluation.json", lambda path: path.write_text('{"loss": NaN}'), "NaN is no number of JSON"),
        ("data.json", lambda path: path.write_text('{"classes": ["blue", "red"]}'), "classes .* differ"),
        (
            "recipe.json",
            lambda path: path.write_text(path.read_text().replace('"seed":0', '"seed":1').replace(": 0,", ": 1,")),
            "",
        ),
        ("metrics.jsonl", lambda path: path.write_bytes(path.read_bytes()[:-3]), "last line is cut short"),
        ("metrics.jsonl", lambda path: path.write_bytes(b"[]\n" + path.read_bytes()), "line 1 is no row"),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_the_reason_and_the_status_is_1(run, name, damage, reason):
    damage(run / name)
    done = convnext("verify", run, "--json")
    found = json.loads(done.out)
    (damaged,) = (one for one in found["files"] if one["state"] == "damaged")
    assert done.status == 1 and damaged["path"] == str(run / name)
    assert package.verify(run / name)[0].state == "damaged"
    assert re.search(reason, damaged["about"]), damaged["about"]


def test_other_files_of_tensors_are_verified_too_and_those_without_digests_are_readable(tmp_path):
    save_file({"features": np.ones((3, 4), np.float32)}, tmp_path / "features.safetensors")
    np.savez(tmp_path / "weights.npz", a=np.ones(3))
    assert states(tmp_path) == {"features.safetensors": "readable", "weights.npz": "whole"}
    flip(tmp_path / "weights.npz", 200)
    assert states(tmp_path)["weights.npz"] == "damaged"


def test_folders_of_runs_are_walked_and_annotations_of_others_left_alone(run):
    (run.parent / "voc").mkdir()
    (run.parent / "voc" / "a.xml").write_text("<annotation></annotation>")
    (run.parent / ".x.tmp").mkdir()
    (run.parent / ".x.tmp" / "last.safetensors").write_bytes(b"half")
    assert len(package.verify(run.parent)) == 9


@pytest.mark.parametrize(
    ("name", "line"),
    [("nothing", "There is nothing at "), ("empty", "holds nothing that can be verified"), ("a.txt", "holds nothing")],
)
def test_what_cannot_be_verified_is_refused(tmp_path, name, line):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").touch()
    assert line in convnext("verify", tmp_path / name).line


def test_a_name_in_a_report_of_damage_does_not_act_on_the_terminal(tmp_path):
    (tmp_path / "\x1b[2Ja\n.json").write_text("{")
    done = convnext("verify", tmp_path)
    assert done.status == 1 and r"\x1b[2Ja\n.json" in done.out and "\x1b" not in done.out
    assert len(done.out.splitlines()) == 2


def answers(path: Path) -> str:
    return json.dumps(package.load(path)(Image.new("RGB", (20, 20), "red")).to_dict())


@pytest.mark.parametrize(
    ("form", "suffix", "packages"), [("onnx", "onnx", "onnxscript"), ("openvino", "xml", "openvino")]
)
def test_an_exported_file_ends_in_the_crc_32_of_its_bytes_and_is_refused_when_it_is_another(
    run, form, suffix, packages
):
    pytest.importorskip(packages)
    path = Path(convnext_export(run, form))
    whole, expected = path.read_bytes(), answers(path)
    digits = whole.rstrip(b" ->")[-8:] if suffix == "xml" else whole[-8:]
    end = whole.rindex(b"<!--") if suffix == "xml" else whole.rindex(b"r\x1b\n\x0fconvnext_digest")
    beside = (run / "model.bin").read_bytes() if suffix == "xml" else b""
    assert digits == f"{zlib.crc32(whole[:end] + beside):08x}".encode()
    assert states(run)[path.name] == "whole"
    for place in range(0, len(whole), len(whole) // 9):
        flip(path, place)
        with pytest.raises(CheckpointError, match="is damaged"):
            package.load(path)
        assert states(run)[path.name] == "damaged"
        path.write_bytes(whole)
    for cut in (whole[:-1], whole[:-40], whole[: len(whole) // 2], whole + b" "):
        path.write_bytes(cut)
        with pytest.raises(CheckpointError):
            package.load(path)
        assert states(run)[path.name] == "damaged"
    path.write_bytes(whole)
    assert answers(path) == expected
    if beside:
        flip(run / "model.bin", len(beside) // 2)
        assert states(run)[path.name] == "damaged"
        (run / "model.bin").unlink()
        assert states(run)[path.name] == "damaged"


def convnext_export(run: Path, form: str) -> Path:
    done = json.loads(convnext("export", run, "--to", form, "--json").out)
    return Path(done["out"])


def test_a_program_of_torch_is_verified_as_the_zip_that_it_is(run):
    path = convnext_export(run, "torch")
    assert states(run)[path.name] == "whole"
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda item: item.file_size)
    flip(path, largest.header_offset + 30 + len(largest.filename) + 200)
    assert states(run)[path.name] == "damaged"
