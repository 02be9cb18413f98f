"""Where results go: what must fail is refused before the work, and a disk that refuses is one line in every command."""

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import convnext, trained
from convnext.errors import ConvNeXtError
from convnext.files import refuse_unusable, system_error, told
from images import write_colours

CONVERTED = {
    "a.safetensors": "timm",
    "a.pth": "timm",
    "a.npz": "keras-npz",
    "a": "transformers",
    "b.safetensors": "convnext",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the shape that every library has."""
    place = tmp_path_factory.mktemp("place")
    shape = ["--model.stem", "patch", "--model.patch", 4, "--model.depths", "1,1,1,1", "--model.widths", "8,16,16,16"]
    trained(write_colours(place / "data", train=6, val=2), place / "run", "--epochs", 1, "--size", 32, *shape)
    return place


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of more than 4,000 bytes, as the system itself says."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (os.fsdecode(b"caf\xe9"), r"'caf\udce9' is no UTF-8"),
        ("", "'' is no name of a file"),
        ("a\0b", r"'a\x00b' is no name of a file"),
        ("x" * 256, "is longer than the 255 bytes of a name"),
        ("ä" * 128, "is longer than the 255 bytes of a name"),
        ("file/run", "'file' is a file"),
        ("file/deeper/run", "'file' is a file"),
    ],
)
@pytest.mark.parametrize("folder", [True, False])
def test_a_place_that_must_fail_is_refused_by_its_name(tmp_path, monkeypatch, name, reason, folder):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(ConvNeXtError) as refused:
        refuse_unusable(name, folder=folder)
    assert reason in str(refused.value) and str(refused.value).isprintable()


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConvNeXtError, match="is a file, and a folder is to be made there"):
        refuse_unusable(tmp_path / "file", folder=True)
    with pytest.raises(ConvNeXtError, match="is a folder, and a file is to be made there"):
        refuse_unusable(tmp_path)
    refuse_unusable(tmp_path / "file")
    refuse_unusable(tmp_path, folder=True)
    refuse_unusable(tmp_path / "new" / "deep" / "run", folder=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "{place}/data", "--out", "{bad}"),
        ("convert", "{place}/run", "{bad}/a.pth", "--to", "timm"),
        ("export", "{place}/run", "--to", "torch", "--out", "{bad}/a.pt2"),
        ("evaluate", "{place}/run", "{place}/data", "--suite", "corruptions", "--names", "fog", "--out", "{bad}"),
        ("paper", "--plot", "{bad}/a.svg"),
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("bad", [os.fsdecode(b"caf\xe9"), "file/below"])
def test_every_command_that_writes_refuses_such_a_place_before_its_work(place, tmp_path, monkeypatch, arguments, bad):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    done = convnext(*(word.format(place=place, bad=bad) for word in arguments))
    assert "Choose another" in done.line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", CONVERTED)
def test_a_conversion_onto_a_full_disk_is_one_line_and_leaves_nothing(place, tmp_path, full_disk, name):
    line = convnext("convert", place / "run", tmp_path / name, "--to", CONVERTED[name]).line
    assert line == f"Cannot write '{tmp_path / name}': File too large. Make room, or name another place."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("form", "name"), [("torch", "a.pt2"), ("onnx", "a.onnx"), ("openvino", "a.xml")])
def test_an_export_onto_a_full_disk_is_one_line_and_leaves_nothing(place, tmp_path, monkeypatch, full_disk, form, name):
    if form != "torch":
        pytest.importorskip({"onnx": "onnxscript"}.get(form, form))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = convnext("export", place / "run", "--to", form, "--out", tmp_path / name)
    line = done.err.splitlines()[-1]  # a library that is imported here first may say something of its own before it
    assert done.status == 2 and line.startswith(f"convnext: Cannot write '{tmp_path}") and "Make room" in line
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("a.", ".convnext"))]


def test_a_run_that_could_save_nothing_does_not_speak_of_a_checkpoint(place, tmp_path, full_disk):
    done = convnext("train", place / "data", "--out", tmp_path / "run", "--epochs", 1, "--batch", 6, "--size", 16)
    assert done.status == 2
    assert done.err.splitlines()[-1].endswith(
        "File too large. Nothing is saved. Make room and give the same command again, or choose another --out."
    )


def test_what_libraries_say_of_a_disk_is_said_in_the_systems_words(tmp_path):
    error = system_error(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert (error.errno, error.strerror) == (28, "No space left on device")
    with pytest.raises(ConvNeXtError, match=r"Cannot write 'a': the disk refuses\. Make room"), told("a"):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    with pytest.raises(RuntimeError, match="another trouble"), told("a"):
        raise RuntimeError("another trouble")
