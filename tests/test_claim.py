"""The folder of a run belongs to one process, and that process notices when it goes away."""

import shutil
from pathlib import Path

import pytest

from commands import convnext, rows, tiny, trained
from convnext.engine.claim import Claim
from convnext.engine.records import Log
from convnext.engine.saving import Saver
from convnext.errors import TrainingError
from images import write_colours


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def replace(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()


def move(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def unlock(folder: Path) -> None:
    (folder / ".lock").unlink()


def take_over(folder: Path) -> None:
    """As another process that comes after somebody has removed the lock."""
    (folder / ".lock").unlink()
    (folder / ".lock").touch()


@pytest.mark.parametrize("harm", [remove, replace, move, unlock, take_over])
def test_a_claim_that_is_lost_is_noticed_at_the_next_row(tmp_path, harm):
    folder = tmp_path / "run"
    with Claim(folder) as claim:
        log = Log(folder / "log.jsonl", claim=claim)
        assert log.write(step=1)
        harm(folder)
        with pytest.raises(
            TrainingError, match=r"'.*run' was (removed|replaced, or its \.lock removed,) while this process"
        ):
            log.write(step=2)
        log.close()
    assert not (folder / "log.jsonl").exists() or (folder / "log.jsonl").read_text().count("\n") == 1


def test_a_log_that_somebody_removed_or_replaced_is_put_back_whole(tmp_path, capsys):
    with Claim(tmp_path) as claim:
        log = Log(tmp_path / "log.jsonl", claim=claim)
        log.write(step=1)
        (tmp_path / "log.jsonl").unlink()
        log.write(step=2)
        (tmp_path / "log.jsonl").rename(tmp_path / "other")
        (tmp_path / "log.jsonl").write_text("an editor was here")
        log.write(step=3)
        assert log.settle() == (tmp_path / "log.jsonl").stat().st_size
        log.close()
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    assert capsys.readouterr().err.count("is put back") == 2


@pytest.mark.parametrize("harm", [remove, replace, take_over])
@pytest.mark.parametrize("saved", [1, 2])
def test_a_run_whose_folder_goes_away_ends_with_one_line_and_writes_nothing_more(tmp_path, monkeypatch, harm, saved):
    data, run, times = write_colours(tmp_path / "data", train=6, val=2), tmp_path / "run", []
    save = Saver.save

    def save_and_harm(self: Saver, *args: object, **options: object) -> None:
        save(self, *args, **options)
        times.append(1)
        if len(times) == saved:  # after the first epoch, or the last
            harm(run)
            left.extend(sorted(run.rglob("*")) if run.exists() else [])

    left: list[Path] = []
    monkeypatch.setattr(Saver, "save", save_and_harm)
    done = convnext(*tiny(data, run))
    assert done.status == 2 and done.out == "" and "Traceback" not in done.err
    line = done.err.splitlines()[-1]
    assert line.startswith(f"convnext: '{run}' was ") and "ends and writes nothing more" in line
    assert (sorted(run.rglob("*")) if run.exists() else []) == left


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_that_lost_its_log_ends_with_all_of_it(tmp_path, monkeypatch, epoch):
    data, save, times = write_colours(tmp_path / "data", train=6, val=2), Saver.save, []
    trained(data, tmp_path / "whole")

    def save_and_remove(self: Saver, *args: object, **options: object) -> None:
        save(self, *args, **options)
        times.append(1)
        if len(times) == epoch:  # between two rows, or after the last
            (tmp_path / "run" / "metrics.jsonl").unlink()

    monkeypatch.setattr(Saver, "save", save_and_remove)
    assert "is put back" in trained(data, tmp_path / "run").err
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
