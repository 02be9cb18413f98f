"""Settings for every test, what skips those for a GPU, and the dense runs that several files read."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from convnext.data.opening import DenseSplits, open_dense_splits, recognise
from convnext.tasks.detection.report import report as detection_report
from dense_runs import guessed, segmented, write_run
from loaded import Loaded, loading
from shape_objects import write_objects
from shapes import write_shapes

settings.register_profile("patient", deadline=None)  # machines that are shared are slow at times
settings.load_profile("patient")

# In the background or under nohup these are ignored, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)  # goes on; a new program has the default again
if not torch.cuda.is_available():
    torch.set_num_threads(1)  # as in the processes that tests start: both compute the same bits


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU say that they were left out."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no GPU here: NOT tested on one"))


@pytest.fixture(scope="session")
def loaded() -> Iterator[Loaded]:
    with loading() as found:
        yield found


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> DenseSplits:
    return open_dense_splits(recognise(write_objects(tmp_path_factory.mktemp("objects"), val=6)))


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> DenseSplits:
    return open_dense_splits(recognise(write_objects(tmp_path_factory.mktemp("boxes"), masks=False)))


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> DenseSplits:
    return open_dense_splits(recognise(write_shapes(tmp_path_factory.mktemp("maps"))))


@pytest.fixture(scope="module")
def detected(objects: DenseSplits) -> dict[str, Any]:
    return detection_report(guessed(objects.val), objects.val)


@pytest.fixture
def detector(tmp_path: Path, objects: DenseSplits, detected: dict[str, Any]) -> Path:
    return write_run(tmp_path / "detector", objects, detected)


@pytest.fixture
def segmenter(tmp_path: Path, maps: DenseSplits) -> Path:
    return write_run(tmp_path / "segmenter", maps, segmented(maps.val))
