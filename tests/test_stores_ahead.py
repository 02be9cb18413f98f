"""Images of an object store are fetched before they are read: the same bits, fewer waits, within bounds."""

import multiprocessing
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from children import PATIENCE_S, awaited
from commands import convnext, rows, tiny, trained
from convnext.config import Bands
from convnext.data.annotated_loader import eval_dense_batches, train_dense_batches
from convnext.data.annotated_preflight import preflight_dense
from convnext.data.band_store import with_bands
from convnext.data.dataset import DenseDataset
from convnext.data.loader import eval_batches
from convnext.data.opening import open_labelled, open_parts, open_splits, recognise
from convnext.data.preflight import preflight
from convnext.data.shards.write import write_shards
from convnext.data.stores import ahead, near, remote
from convnext.data.stores.ahead import Ahead
from convnext.data.stores.near import NearPlace
from convnext.data.stores.place import FolderPlace
from convnext.data.stores.remote import RemotePlace
from convnext.recipes import recipe
from dense_images import write_coco
from images import write_colours
from runs import bits
from shapes import write_shapes
from test_shards import contents
from test_stores import apart, bucket, data, out, put, server

__all__ = ["apart", "bucket", "data", "out", "server"]  # fixtures
STEPS = ("--schedule.steps", 3)


class Watched:
    """Reads of images from a store: who waited for them, and how many were under way at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, meeting: int = 1, lose: Callable[[], bool] = lambda: False):
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.waits = self.ahead = 0
        self.met = threading.Event()  # once `meeting` are under way together; until then none of them ends
        real = RemotePlace.read

        def read(place: RemotePlace, file: str, first: int, size: int, **how: Any) -> bytes:
            with self.lock:
                self.ahead += how.get("once", False)
                self.waits += not how.get("once", False)
                self.now += 1
                self.most = max(self.most, self.now)
                if self.most >= meeting:
                    self.met.set()
            try:
                if how.get("once") and lose():
                    raise ConnectionResetError("lost")
                if how.get("once"):
                    assert self.met.wait(PATIENCE_S)
                return real(place, file, first, size, **how)
            finally:
                with self.lock:
                    self.now -= 1

        monkeypatch.setattr(RemotePlace, "read", read)


@pytest.mark.parametrize("gb", ["0", "1"])
def test_images_of_a_bucket_come_several_at_once_and_the_bits_are_those_of_the_folder(
    tmp_path, bucket, data, out, monkeypatch, gb
):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", gb)
    url = put(bucket, out)
    trained(data, tmp_path / "folder", *STEPS)
    watched = Watched(monkeypatch, meeting=4 if gb == "0" else 1)  # four are under way at once, or it does not go on
    monkeypatch.setattr(near, "_BLOCK", 4096)
    trained(url, tmp_path / "store", *STEPS)
    assert bits(tmp_path / "folder") == bits(tmp_path / "store")
    assert [row["loss"] for row in rows(tmp_path / "folder")] == [row["loss"] for row in rows(tmp_path / "store")]
    assert 4 * (gb == "0") <= watched.most <= ahead._AT_ONCE
    assert gb == "1" or watched.ahead > 10


@pytest.mark.parametrize("write", [write_coco, write_shapes, write_colours])
def test_no_reader_waits_for_an_image_or_a_mask_that_was_not_asked_for_before(tmp_path, bucket, monkeypatch, write):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", "0")
    folder = tmp_path / "data"
    write(folder)
    write_shards(recognise(folder), tmp_path / "shards", per_shard=3)
    source = recognise(put(bucket, tmp_path / "shards"))
    far = held(source)
    wanted = held(recognise(folder))
    watched = Watched(monkeypatch)
    findings = [looked(each) for each in far]
    assert watched.ahead >= sum(len(each.entries) for each in far) and watched.waits == 0
    found = [list(batches(each)) for each in far]
    assert watched.ahead > 10 and watched.waits == 0
    assert findings == [looked(each) for each in wanted]
    assert list(map(pickle.dumps, found)) == [pickle.dumps(list(batches(each))) for each in wanted]


def looked(dataset: Any) -> Any:
    """What the look at all images before training finds."""
    return (preflight_dense if isinstance(dataset, DenseDataset) else preflight)(dataset, workers=2)


def test_the_bands_of_an_image_are_fetched_before_too(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", "0")
    for n in range(6):
        place = tmp_path / "data" / ("low", "high")[n % 2] / f"tile{n}"
        place.mkdir(parents=True)
        for band in ("B02", "B03", "B8A"):
            Image.fromarray(np.full((8, 8), 20 * n, np.uint8)).save(place / f"{band}.tif")
    bands = ("B8A", "B02")
    write_shards(recognise(tmp_path / "data"), tmp_path / "shards", per_shard=6)
    near_by = with_bands(open_labelled(recognise(tmp_path / "data", annotated=False)), bands)
    far = with_bands(open_labelled(recognise(put(bucket, tmp_path / "shards"), annotated=False)), bands)
    watched = Watched(monkeypatch)
    config = Bands(bands=bands, mean=(0.5, 0.5), std=(0.2, 0.2))
    found = preflight(far, workers=2, bands=config)
    assert not found.broken
    assert watched.waits == 0 and watched.ahead >= len(far.entries) == 6
    assert found.digests == preflight(near_by, workers=2, bands=config).digests and not found.broken


def held(source: Any) -> list[Any]:
    if source.task != "classification":
        return list(open_parts(source).values())
    splits = open_splits(source)
    return [splits.train, splits.val]


def batches(dataset: Any) -> Iterator[Any]:
    """What evaluation sees, and a few steps of training."""
    if isinstance(dataset, DenseDataset):
        yield from eval_dense_batches(dataset, lambda sample: sample, batch=2)
        how: dict[str, Any] = {"batch": 2, "seed": 0, "steps": range(4), "steps_per_epoch": 2}
        yield from train_dense_batches(dataset, lambda sample, key: sample, **how)
    else:
        config = recipe("small", model="atto", images=12, image_px=16, classes=2).input
        yield from ((each.images.numpy(), each.indices.numpy()) for each in eval_batches(dataset, config, batch=5))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_could_not_be_fetched_ahead_is_read_when_its_turn_comes_without_a_word(
    tmp_path, bucket, data, out, monkeypatch, workers
):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", "0")
    monkeypatch.setattr(remote, "WAITS_S", ())
    url = put(bucket, out)
    trained(data, tmp_path / "folder", *STEPS)
    turns = iter(range(10**6))
    watched = Watched(monkeypatch, lose=lambda: next(turns) % 2 == 0)
    done = convnext(*tiny(url, tmp_path / "store", *STEPS, "--workers", workers))
    assert done.status == 0 and "trying again" not in done.err
    assert bits(tmp_path / "folder") == bits(tmp_path / "store")
    assert workers or watched.waits > 4


def test_no_more_is_fetched_at_once_or_held_than_is_allowed(monkeypatch):
    monkeypatch.setattr(ahead, "_AT_ONCE", 3)
    monkeypatch.setattr(ahead, "_MOST", 100)
    lock, begun, go = threading.Lock(), list[str](), threading.Event()

    def fetch(name: str) -> bytes:
        with lock:
            begun.append(name)
        assert go.wait(PATIENCE_S)
        return name.encode()

    held = Ahead(fetch)
    sizes = {f"{n}": 30 for n in range(8)} | {"large": 101}
    held.expect(sizes)
    assert held.take("7") is None  # not begun: who asks fetches it
    assert awaited(lambda: len(begun) == 3) and sorted(begun) == ["0", "1", "2"]  # a fourth has no room
    go.set()
    found = {name: held.take(name) for name in sizes}
    assert all(found[name] == name.encode() for name in ("0", "1", "2"))
    assert all(each in (None, name.encode()) for name, each in found.items())
    assert found["7"] is found["large"] is None and not {"7", "large"} & set(begun)
    held.expect({f"{n}": 40 for n in range(10, 20)})
    held.expect({"20": 40})  # what was expected before is let go of
    assert awaited(lambda: "20" in begun)  # by whichever thread is free first
    assert held.take("10") is None and held.take("20") == b"20"


def test_two_that_want_the_same_block_fetch_it_once(tmp_path, out):
    far, asked, go = FolderPlace(str(out)), list[int](), threading.Event()
    name, size = "train-000000.tar", (out / "train-000000.tar").stat().st_size
    place = NearPlace(far, tmp_path / "near", {name: size}, {})
    real = far.read

    def read(file: str, first: int, size: int, **how: Any) -> bytes:
        asked.append(first)
        assert go.wait(PATIENCE_S)
        return real(file, first, size, **how)

    far.read = read  # type: ignore[method-assign]
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(place.read(name, 512, 100, fresh=True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert found == [(out / name).read_bytes()[512:612]] * 4 and len(asked) <= 4
    asked.clear()
    assert place.read(name, 512, 100) == found[0] and asked == []


def reads_all(url: str, backwards: bool, say: Any) -> None:
    source = recognise(url)
    files = sorted(source.store.files.names, reverse=backwards)  # type: ignore[attr-defined]
    source.store.expect(files)  # type: ignore[attr-defined]
    say.put({name: source.store.read(name) for name in files})


def test_processes_that_share_a_cache_and_a_block_that_was_cut_short_give_the_same_bytes(bucket, data, out):
    url = put(bucket, out)
    forked = multiprocessing.get_context("fork")
    for _ in range(2):
        say = forked.SimpleQueue()
        readers = [forked.Process(target=reads_all, args=(url, backwards, say)) for backwards in (False, True)]
        for reader in readers:
            reader.start()
        found = [say.get() for _ in readers]
        for reader in readers:
            reader.join()
        assert found[0] == found[1] and set(found[0]) >= {"train/red/000.png"}
        assert all(each == (data / name).read_bytes() for name, each in found[0].items() if name.endswith(".png"))
        for file in (near.cache_folder() / "shards").rglob(
            "*.tar"
        ):  # as a process leaves it that is killed as it writes
            file.write_bytes(file.read_bytes()[:3000])
    assert contents(Path(data)) == contents(url)  # type: ignore[arg-type]
