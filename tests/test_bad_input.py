"""Broken images, odd folders, full disks and damaged files: a clear refusal or a spoken skip, and nothing lost."""

import errno
import fcntl
import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from commands import convnext, rows, tiny, trained
from convnext.cli import main
from convnext.engine import checkpoint
from convnext.engine import run as run_module
from convnext.engine.claim import Claim
from convnext.tasks import opening
from images import write_colours


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "data", train=6, val=2, suffix=".jpg")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that change it take a copy."""
    place = tmp_path_factory.mktemp("finished")
    trained(write_colours(place / "data", train=6, val=2), place / "run")
    return place


def spoil(file: Path, how: str) -> None:
    """Make `file` one of the images that people really have."""
    if how == "empty":
        file.write_bytes(b"")
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 9 // 10])
    elif how == "text":
        file.write_text("Dear diary, this is no image.")
    elif how == "bomb":
        Image.fromarray(np.zeros((1, 1), np.uint8)).save(file.with_suffix(".png"))
        pixels = bytearray(file.with_suffix(".png").read_bytes())
        pixels[16:24] = (30_000).to_bytes(4) * 2  # the header promises 900 million pixels
        checked = pixels[12:29]
        pixels[29:33] = zlib.crc32(checked).to_bytes(4)
        file.with_suffix(".png").unlink()
        file.write_bytes(bytes(pixels))


REASONS = {"empty": "0 bytes", "truncated": "cannot be decoded", "text": "not an image", "bomb": "pixels"}


# Images and folders


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "is empty" in convnext(*tiny(tmp_path / "nothing", tmp_path / "run")).line


def test_one_class_is_refused(tmp_path):
    data = write_colours(tmp_path / "data", train=3, val=1, classes=1)
    line = convnext(*tiny(data, tmp_path / "run")).line
    assert "one class only ('red')" in line and "second class folder" in line


@pytest.mark.parametrize("how", REASONS)
def test_a_broken_image_is_named_counted_and_skipped_and_strictness_refuses_it(data, tmp_path, how):
    spoil(data / "train" / "red" / "000.jpg", how)
    spoil(data / "val" / "blue" / "001.jpg", how)
    done = trained(data, tmp_path / "run", "--json")
    assert "2 images cannot be read and will be skipped" in done.err
    assert "train/red/000.jpg" in done.err and REASONS[how] in done.err
    assert json.loads(done.out)["n"] == 5
    skipped = json.loads((tmp_path / "run" / "data.json").read_text())["skipped"]
    assert set(skipped) == {"train/red/000.jpg", "val/blue/001.jpg"}
    assert REASONS[how] in skipped["train/red/000.jpg"]
    assert "train/red/000.jpg" in (tmp_path / "run" / "report.html").read_text()
    line = convnext(*tiny(data, tmp_path / "strict", "--strict-images")).line
    assert "train/red/000.jpg" in line and REASONS[how] in line


def test_images_of_one_pixel_and_of_20000_are_trained_on_evaluated_and_predicted(data, tmp_path):
    for split, name in (("train", "red"), ("val", "blue")):
        Image.new("RGB", (1, 1)).save(data / split / name / "small.png")
        Image.new("RGB", (20_000, 3)).save(data / split / name / "wide.png")
    done = trained(data, tmp_path / "run", "--json")
    assert json.loads(done.out)["n"] == 8 and "skipped" not in done.err
    done = convnext("predict", tmp_path / "run", data / "val" / "blue", "--json")
    assert done.out.count("\n") == 4 and done.err == ""


def test_names_that_are_not_utf_8_are_trained_on_and_shown_everywhere(data, tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    for split in ("train", "val"):
        (data / split / "red").rename(data / split / odd)
        (data / split / odd / "000.jpg").rename(data / split / odd / f"{odd}.jpg")
    spoil(data / "train" / odd / f"{odd}.jpg", "empty")
    run = tmp_path / "run"
    done = trained(data, run)
    assert r"train/caf\xe9/caf\xe9.jpg" in done.err
    left = json.loads((run / "data.json").read_text())
    assert r"caf\xe9" in left["classes"] and r"train/caf\xe9/caf\xe9.jpg" in left["skipped"]
    assert r"caf\xe9" in (run / "report.html").read_text(encoding="utf-8")
    for form in ((), ("--json",), ("--csv",)):
        done = convnext("predict", run, data / "val" / odd, *form)
        done.out.encode("utf-8")
        assert done.status == 0 and r"caf" in done.out
    done = convnext("evaluate", run, data)
    done.out.encode("utf-8")
    assert done.status == 0 and r"caf\xe9" in done.out


def test_a_name_that_the_terminal_cannot_show_ends_no_command(finished, tmp_path, monkeypatch):
    shutil.copy(finished / "data" / "val" / "red" / "000.png", tmp_path / "später.png")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["predict", str(finished / "run"), str(tmp_path / "später.png")]) == 0
    terminal.flush()
    assert rb"sp\xe4ter.png: " in terminal.buffer.getvalue()


def test_an_image_that_is_broken_is_named_once_from_the_first_look_to_the_last_score(data, tmp_path):
    for part, name in (("train", "002.jpg"), ("val", "000.jpg")):
        spoil(data / part / "red" / name, "truncated")
    done = trained(data, tmp_path / "run")
    for path in ("train/red/002.jpg", "val/red/000.jpg"):
        assert done.err.count(path) == 1, done.err
    assert "2 images could not be read and were left out" in done.err
    predicted = convnext("predict", tmp_path / "run", data / "val/red", "--workers", 0)
    assert (predicted.out + predicted.err).count("000.jpg") == 1


def test_an_image_that_breaks_during_training_is_named_counted_and_left_out(data, tmp_path, monkeypatch):
    broken = data / "train" / "red" / "002.jpg"
    whole = broken.read_bytes()
    look = opening.preflight

    def look_and_break(*args: object, **options: object) -> object:
        findings = look(*args, **options)
        spoil(broken, "truncated")
        return findings

    monkeypatch.setattr(opening, "preflight", look_and_break)
    done = trained(data, tmp_path / "run")
    assert done.err.count("Skipped 'train/red/002.jpg'") == 1
    assert "1 image could not be read and was left out" in done.err
    assert set(json.loads((tmp_path / "run" / "data.json").read_text())["skipped"]) == {"train/red/002.jpg"}
    broken.write_bytes(whole)
    done = convnext(*tiny(data, tmp_path / "strict", "--strict-images"))
    assert done.status == 2 and "'train/red/002.jpg': it cannot be decoded" in done.err
    assert not (tmp_path / "strict" / "last.safetensors").exists()


def test_the_same_image_in_train_and_val_and_lopsided_classes_are_said(data, tmp_path):
    shutil.copy(data / "train" / "red" / "000.jpg", data / "val" / "red" / "copy.jpg")
    for i in range(60):
        Image.new("RGB", (9, 9), (i, 0, 0)).save(data / "train" / "blue" / f"more{i}.png")
    done = trained(data, tmp_path / "run", "--epochs", 0.2)
    assert "1 image of val is also in train" in done.err
    assert "train/red/000.jpg = val/red/copy.jpg" in done.err
    assert "Classes are uneven: 'blue' has 66 train images and 'green' 6 (11 to 1)." in done.err
    assert "Classes are uneven" in " ".join(json.loads((tmp_path / "run" / "data.json").read_text())["findings"])


def test_a_class_in_val_that_train_lacks_stops_before_the_first_step(data, tmp_path):
    shutil.copytree(data / "val" / "red", data / "val" / "amber")
    done = convnext(*tiny(data, tmp_path / "run"))
    assert "1 class has images in val and none in train" in done.line and "amber" in done.line


@pytest.mark.parametrize("cause", ["no share", "one each", "all broken"])
def test_nothing_to_evaluate_on_stops_before_the_first_step(data, tmp_path, cause):
    if cause == "no share":
        done = convnext(*tiny(data / "train", tmp_path / "run", "--val-share", 0))
    elif cause == "one each":
        for file in [*data.glob("train/*/*.jpg")]:
            if file.stem != "000":
                file.unlink()
        done = convnext(*tiny(data / "train", tmp_path / "run"))
    else:
        for file in data.glob("val/*/*.jpg"):
            spoil(file, "empty")
        done = convnext(*tiny(data, tmp_path / "run"))
    if cause == "all broken":
        assert "None of the 6 val images can be read" in done.refusal and "6 images cannot be read" in done.err
    else:
        assert "held out" in done.line


# The disk


def test_an_output_that_cannot_be_a_folder_is_refused(data, tmp_path):
    (tmp_path / "file").write_text("")
    line = convnext(*tiny(data, tmp_path / "file" / "run")).line
    assert f"'{tmp_path / 'file'}' is a file" in line and "Choose another place" in line


def test_a_read_only_folder_is_refused(data, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "Read-only file system" in convnext(*tiny(data, tmp_path / "run")).line


class FullDisk:
    """`os.fsync` of a disk that is full while `full()` says so; counts what was refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full):
        self.refused, self.calls, self.full, self.real = 0, 0, full, os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, number: int) -> None:
        self.calls += 1
        if self.full(self.calls):
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.real(number)


def temporary_files(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.name.endswith(".tmp")]


def test_a_full_disk_in_the_middle_is_spoken_about_and_the_run_ends_as_if_nothing_had_been(data, tmp_path, monkeypatch):
    trained(data, tmp_path / "whole", "--epochs", 3)
    disk = FullDisk(monkeypatch, lambda call: 6 < call < 14)  # after recipe and environment, before the last epoch
    done = trained(data, tmp_path / "run", "--epochs", 3, "--checkpoint-steps", 1)
    assert disk.refused
    assert "Could not save into" in done.err and "No space left on device" in done.err and "goes on" in done.err
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert temporary_files(tmp_path / "run") == []
    best = checkpoint.read_metadata(tmp_path / "run" / "best.safetensors")
    assert best["metrics"]["top1"] == max(
        row["top1"] for row in rows(tmp_path / "run", "eval") if row["weights"] == "raw"
    )


def test_best_weights_that_could_not_be_saved_do_not_count_as_saved(data, tmp_path, monkeypatch):
    save, saved = checkpoint.save, []

    def full_at_first(path: Path, *args: object) -> None:
        if path.name.startswith("best") and "last.safetensors" not in saved:  # the whole first epoch
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        saved.append(path.name)
        save(path, *args)

    monkeypatch.setattr(checkpoint, "save", full_at_first)
    trained(data, tmp_path / "run", "--epochs", 3)
    assert (tmp_path / "run" / "best.safetensors").exists() and (tmp_path / "run" / "best_ema.safetensors").exists()


def test_a_full_disk_at_the_end_is_an_error_and_the_same_command_ends_the_run(data, tmp_path, monkeypatch):
    trained(data, tmp_path / "whole")
    save, name = checkpoint.save, []

    def full_at_the_end(path: Path, tensors: object, metadata: dict) -> None:
        if path.name == run_module.LAST and metadata["state"]["step"] == 6:
            name.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(path, tensors, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full_at_the_end)
        done = convnext(*tiny(data, tmp_path / "run"))
    assert done.status == 2 and "No space left on device" in done.err.splitlines()[-1]
    assert "give the same command again" in done.err.splitlines()[-1] and name
    assert checkpoint.read_metadata(tmp_path / "run" / "last.safetensors")["state"]["step"] == 3
    assert "Going on with" in trained(data, tmp_path / "run").err
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["recipe.json", "metrics.jsonl", "data.json", "evaluation.json"])
def test_a_file_of_the_run_that_cannot_be_written_is_one_line_and_never_a_traceback(data, tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    done = convnext(*tiny(data, tmp_path / "run"))
    assert done.status == 2 and done.out == ""
    assert "Cannot write" in done.err.splitlines()[-1] and name in done.err.splitlines()[-1]
    (tmp_path / "run" / name).rmdir()
    assert convnext(*tiny(data, tmp_path / "run")).status == 0


def test_a_save_that_fails_leaves_the_file_before_it_whole_and_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"x": torch.ones(3)}, {"n": 1})
    FullDisk(monkeypatch, lambda call: True)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, {"x": torch.zeros(3)}, {"n": 2})
    tensors, metadata = checkpoint.read(path)
    assert tensors["x"].tolist() == [1, 1, 1] and metadata == {"n": 1}
    assert temporary_files(tmp_path) == []


def test_a_write_that_ends_half_way_is_an_oserror_and_leaves_nothing_behind(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the system itself refuses the rest
        with pytest.raises(OSError):
            checkpoint.save(tmp_path / "a.safetensors", {"x": torch.ones(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


# Damaged and foreign files


def test_a_second_process_in_the_same_folder_is_refused(data, tmp_path):
    holder = (
        "import pathlib, sys; from convnext.engine.claim import Claim\n"
        "with Claim(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", holder, str(tmp_path / "run")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        line = convnext(*tiny(data, tmp_path / "run")).line
        other.communicate("")
    assert "Another process is working in" in line
    assert convnext(*tiny(data, tmp_path / "run")).status == 0


def test_a_file_system_without_locks_does_not_refuse(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Claim(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused_with_the_reason_by_every_command(finished, tmp_path, share):
    shutil.copytree(finished / "run", tmp_path / "run")
    for name in ("last", "best", "best_ema"):
        file = tmp_path / "run" / f"{name}.safetensors"
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    data = finished / "data"
    for arguments in (
        tiny(data, tmp_path / "run"),
        ("evaluate", tmp_path / "run", data),
        ("predict", tmp_path / "run", data),
    ):
        done = convnext(*arguments)
        line = done.err.splitlines()[-1]
        assert done.status == 2 and "is damaged or no checkpoint" in line and ".safetensors" in line


def test_a_safetensors_file_without_a_run_is_refused_and_pointed_to_the_right_door(finished, tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "other.safetensors")
    line = convnext("evaluate", tmp_path / "other.safetensors", finished / "data").line
    assert "no recipe, no class names" in line and "--weights" in line


def test_weights_where_a_run_should_be_gone_on_with_are_refused(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copy(tmp_path / "run" / "best.safetensors", tmp_path / "run" / "last.safetensors")
    done = convnext(*tiny(finished / "data", tmp_path / "run"))
    assert done.status == 2 and "no run to go on with" in done.err


def test_other_data_in_the_folder_of_a_run_are_refused(finished, data):
    done = convnext(*tiny(data, finished / "run"))
    assert done.status == 2 and "other data" in done.err and "--out" in done.err


class Evil:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_malicious_pickle_is_never_executed(finished, tmp_path):
    stream = io.BytesIO()
    pickle.dump({"model": Evil(tmp_path / "owned")}, stream)
    (tmp_path / "raw.pth").write_bytes(stream.getvalue())
    torch.save({"model": Evil(tmp_path / "owned")}, tmp_path / "zip.pth")
    for name in ("raw.pth", "zip.pth"):
        data = finished / "data"
        done = convnext(*tiny(data, tmp_path / "run", "--weights", tmp_path / name))
        assert done.status == 2 and name in done.err.splitlines()[-1]
        assert convnext("evaluate", tmp_path / name, data).status == 2
        assert convnext("predict", tmp_path / name, data).status == 2
    assert not (tmp_path / "owned").exists()
    (tmp_path / "raw.pth").touch()
    pickle.loads(stream.getvalue())  # and it would have been
    assert (tmp_path / "owned").exists()


def test_a_log_that_someone_removed_is_begun_anew_and_the_run_goes_on(data, tmp_path):
    save = checkpoint.save

    def stop_at_step_4(path: Path, tensors: object, metadata: dict) -> None:
        if path.name == run_module.LAST and metadata["state"]["step"] > 4:
            raise KeyboardInterrupt
        save(path, tensors, metadata)

    arguments = tiny(data, tmp_path / "run", "--checkpoint-steps", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", stop_at_step_4)
        assert convnext(*arguments).status == 130
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert convnext(*arguments).status == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == [5, 6]
