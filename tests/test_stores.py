"""Shards in an object store: the data they were made of, whatever the connection and the disk do."""

import json
import mmap
import os
import pickle
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import convnext, tiny, trained
from convnext.data import loader
from convnext.data.formats.shards import open_shards
from convnext.data.opening import recognise
from convnext.data.shards import write
from convnext.data.shards.tar import TarWriter
from convnext.data.shards.write import write_shards
from convnext.data.stores import near, remote
from convnext.data.stores.near import NearPlace
from convnext.data.stores.place import FolderPlace
from convnext.data.stores.remote import RemotePlace
from convnext.errors import ConvNeXtError, DataError, Unreachable
from dense_images import write_coco
from images import write_colours
from runs import bits
from test_shards import contents

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


class Counting(FolderPlace):
    """A folder that says what it was asked for."""

    def __init__(self, root: str):
        super().__init__(root)
        self.asked: list[tuple[str, int, int]] = []

    def read(self, file: str, first: int, size: int, *, fresh: bool = False, once: bool = False) -> bytes:
        self.asked.append((file, first, size))
        return super().read(file, first, size)


@pytest.fixture(autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of each test's own for shards, but not for the CPU kernels, which would be compiled anew; no long waits."""
    own = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(near, "cache_folder", lambda: own)
    monkeypatch.setattr(remote, "WAITS_S", (0.01, 0.02))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket of it, by Amazon's own library."""
    boto3 = pytest.importorskip("boto3")
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    made = boto3.resource("s3").Bucket("pets")
    made.create()
    yield made
    made.objects.all().delete()


def put(bucket: Any, out: Path, name: str = "out") -> str:
    for file in out.iterdir():
        bucket.upload_file(str(file), f"{name}/{file.name}")
    return f"s3://{bucket.name}/{name}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "data")


@pytest.fixture
def out(tmp_path: Path, data: Path) -> Path:
    write_shards(recognise(data), tmp_path / "out", per_shard=10)
    return tmp_path / "out"


def test_a_bucket_holds_what_the_folder_holds(tmp_path, bucket, data, out):
    url = put(bucket, out)
    assert contents(url) == contents(data)
    assert recognise(url).name == url
    said = convnext("verify", url)
    assert said.status == 0 and f"{url}/val-000001.tar: 10,240 bytes are what was written" in said.out


def test_annotated_images_too(tmp_path, bucket):
    write_coco(tmp_path / "coco")
    before = contents(tmp_path / "coco")
    write_shards(recognise(tmp_path / "coco"), tmp_path / "shards")
    assert contents(put(bucket, tmp_path / "shards")) == before


@pytest.mark.parametrize("gb", ["0", "1"])
def test_a_run_on_a_bucket_is_the_run_on_the_folder_to_the_bit(tmp_path, bucket, data, out, monkeypatch, gb):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", gb)
    url = put(bucket, out)
    trained(data, tmp_path / "folder", "--schedule.steps", 3)
    trained(url, tmp_path / "store", "--schedule.steps", 3, "--workers", 1)
    assert bits(tmp_path / "folder") == bits(tmp_path / "store")
    scored = [convnext("evaluate", tmp_path / "folder", place, "--json", "--workers", 0) for place in (url, data)]
    assert json.loads(scored[0].out) == json.loads(scored[1].out)


def test_an_audit_reads_a_bucket(tmp_path, bucket, data, out):
    trained(data, tmp_path / "run")
    how = ("--weights", tmp_path / "run", "--folds", 2, "--workers", 0, "--json")
    done = convnext("audit", put(bucket, out), "--out", tmp_path / "audit", *how)
    assert done.status == 0 and (tmp_path / "audit" / "audit.csv").exists()


def held_in(bucket: Any) -> dict[str, bytes]:
    return {each.key.removeprefix("out/"): each.get()["Body"].read() for each in bucket.objects.all()}


def test_shards_are_written_into_a_bucket_as_into_a_folder_and_a_second_command_writes_nothing(
    tmp_path, bucket, data, monkeypatch
):
    done = convnext("shard", data, "s3://pets/out", "--images-per-shard", 10)
    assert done.status == 0 and done.out.startswith("'s3://pets/out': "), done.err
    folder = tmp_path / "out"
    near = json.loads(convnext("shard", data, folder, "--images-per-shard", 10, "--json").out)
    assert held_in(bucket) == {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}
    monkeypatch.setattr(RemotePlace, "tried", reading_only(RemotePlace.tried))
    again = json.loads(convnext("shard", data, "s3://pets/out", "--images-per-shard", 10, "--json").out)
    assert again == {**near, "out": "s3://pets/out", "kept": near["shards"]}
    line = convnext("shard", data, "s3://pets/out", "--images-per-shard", 11).line
    assert line.startswith("'s3://pets/out' holds shards of other images")


def reading_only(tried: Any) -> Any:
    def asked(self: RemotePlace, file: str, work: Any, *, writing: bool = False, once: bool = False) -> Any:
        assert not writing, file
        return tried(self, file, work, once=once)

    return asked


def test_what_was_stopped_on_its_way_to_a_bucket_goes_on_there(tmp_path, bucket, data, monkeypatch):
    send, sent = write._shard, []

    def stopped(plan: Any, to: Any, shard: Any, key: str) -> Any:
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(shard.name)
        return send(plan, to, shard, key)

    monkeypatch.setattr(write, "_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_shards(recognise(data), "s3://pets/out", per_shard=10)
    assert "shards.json" not in held_in(bucket)
    monkeypatch.setattr(write, "_shard", send)
    done = write_shards(recognise(data), "s3://pets/out", per_shard=10)
    assert done.kept == 2 < done.shards
    write_shards(recognise(data), tmp_path / "out", per_shard=10)
    assert held_in(bucket) == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}


def test_an_image_that_changed_since_shards_in_a_bucket_are_whole_is_sent_anew(bucket, data, tmp_path):
    write_shards(recognise(data), "s3://pets/out", per_shard=10)
    shutil.copy(data / "train" / "green" / "000.png", data / "train" / "red" / "000.png")
    assert write_shards(recognise(data), "s3://pets/out", per_shard=10).kept == 5
    write_shards(recognise(data), tmp_path / "out", per_shard=10)
    assert held_in(bucket) == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}


def test_what_was_stopped_before_the_first_note_goes_on(bucket, data, monkeypatch):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write, "note", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_shards(recognise(data), "s3://pets/out", per_shard=10)
    assert "train-000000.tar" in held_in(bucket)
    assert write_shards(recognise(data), "s3://pets/out", per_shard=10).shards == 6


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_of_temporary_files_is_one_line_that_names_it(tmp_path, bucket, data, out, monkeypatch):
    monkeypatch.setattr(remote.tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(TarWriter, "add", _full)
        assert convnext("shard", data, "s3://pets/new").line == (
            f"Cannot write '{tmp_path}': No space left on device. Make room there, or set TMPDIR to a folder on a disk "
            "with more room, and give the same command again."
        )
    with monkeypatch.context() as patch:
        patch.setattr(remote.tempfile, "TemporaryFile", _full)
        place = near.near(RemotePlace(f"file://{out}"), "key", {}, places(out))
        with pytest.raises(ConvNeXtError, match="Make room there, or set TMPDIR"):
            place.read("train-000000.tar", 0, 10)


def test_a_connection_that_is_lost_while_shards_are_sent_costs_a_line(bucket, data, monkeypatch, capsys):
    store, lost = RemotePlace._store, []

    def losing(self: RemotePlace) -> Any:
        found = store(self)
        if len(lost) < 3:
            lost.append(found)
            raise ConnectionResetError("lost")
        return found

    monkeypatch.setattr(remote, "WAITS_S", (0.01,) * 3)
    monkeypatch.setattr(RemotePlace, "_store", losing)
    assert write_shards(recognise(data), "s3://pets/out", per_shard=10).shards > 2
    assert capsys.readouterr().err.count("trying again in 0.01 s") == 3


def test_where_shards_cannot_be_written_it_is_one_line(bucket, data):
    assert convnext("shard", data, "s3://nowhere/out").line == (
        "'s3://nowhere/out' cannot be written: there is no such bucket. Make it first."
    )
    bucket.put_object(Key="out/notes.txt", Body=b"mine")
    assert convnext("shard", data, "s3://pets/out").line.startswith(
        "'s3://pets/out' is not empty: it holds 'notes.txt'."
    )


def test_a_bucket_without_shards_and_one_that_is_not_there_are_one_line(tmp_path, bucket, out):
    (out / "shards.json").unlink()
    url = put(bucket, out)
    for place in (url, "s3://nothing/there"):
        line = convnext("train", place, "--out", tmp_path / "run").line
        assert line.startswith(
            f"'{place}' holds no shards that are whole: shards.json, which is written last, is not there."
        )
        assert convnext("verify", place).status == 1


def test_without_credentials_it_is_one_line_at_once(tmp_path, server, monkeypatch):
    for name in (*KEYS, "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    line = convnext("train", "s3://pets/out", "--out", tmp_path / "run").line
    assert "is refused" in line and "credentials" in line


def test_an_unknown_protocol_is_one_line(tmp_path):
    line = convnext("train", "s4://pets/out", "--out", tmp_path / "run").line
    assert line.startswith("'s4://pets/out' cannot be opened: Protocol not known: s4")


def test_a_server_that_is_gone_is_tried_again_and_then_one_line(tmp_path, bucket, data, out, monkeypatch):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", "0")
    url = put(bucket, out)
    source = recognise(url)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it does not listen, and nobody else can have the port
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        source.store.place.far._open = None  # type: ignore[attr-defined]
        with pytest.raises(
            Unreachable,
            match=r"train-\d+\.tar' cannot be read, tried 3 times with 0\.03 s between: .*Give the same command",
        ):
            source.store.read("train/red/000.png")
        done = convnext("train", url, "--out", tmp_path / "run")
    assert done.status == 2
    *waits, last = done.err.splitlines()
    assert [line.rpartition(": ")[2] for line in waits] == ["trying again in 0.01 s.", "trying again in 0.02 s."]
    assert last.startswith(f"convnext: '{url}/shards.json' cannot be read, tried 3 times")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_that_stops_answering_ends_the_run_which_goes_on_to_the_same_bits(
    tmp_path, data, out, monkeypatch, workers
):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", "0")
    url, gone, real = f"file://{out}", tmp_path / "gone", RemotePlace._store
    trained(data, tmp_path / "folder", "--schedule.steps", 10)
    how = ("--schedule.steps", 10, "--checkpoint-steps", 2, "--workers", workers)

    def store(self: RemotePlace) -> tuple[Any, str]:
        if gone.exists():
            raise ConnectionResetError("Connection reset by peer")
        return real(self)

    monkeypatch.setattr(RemotePlace, "_store", store)
    read = loader._TrainReader._image

    def image(self: Any, index: int, key: tuple[int, ...], size_px: int) -> Any:
        if index == 7 and not (tmp_path / "back").exists():
            gone.touch()
        return read(self, index, key, size_px)

    monkeypatch.setattr(loader._TrainReader, "_image", image)
    done = convnext(*tiny(url, tmp_path / "store", *how))
    assert done.status == 2 and "tried 3 times" in done.err.splitlines()[-1] and "Traceback" not in done.err
    gone.unlink()
    (tmp_path / "back").touch()
    trained(url, tmp_path / "store", *how)
    assert bits(tmp_path / "folder") == bits(tmp_path / "store")


def test_a_connection_that_is_lost_now_and_then_costs_no_image(monkeypatch, capsys, out, data):
    url = f"file://{out}"
    calls, real = [0], RemotePlace._store

    def store(self: RemotePlace) -> tuple[Any, str]:
        calls[0] += 1
        if calls[0] % 3 == 2:
            raise TimeoutError("timed out")
        return real(self)

    monkeypatch.setattr(RemotePlace, "_store", store)
    assert contents(url) == contents(data)
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.endswith("cannot be read (timed out): trying again in 0.01 s.") for line in lines)


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    line = convnext("train", "s3://pets/out", "--out", tmp_path / "run").line
    assert line.startswith("'s3://pets/out' needs s3fs, which is not installed: pip install 'convnext[cloud]'")


def test_a_damaged_shard_in_a_bucket_is_named(bucket, out):
    held = bytearray((out / "train-000000.tar").read_bytes())
    held[600] ^= 1
    url = put(bucket, out)
    bucket.put_object(Key="out/train-000000.tar", Body=bytes(held))
    with pytest.raises(DataError, match=r"its shard 'train-000000\.tar' is damaged"):
        contents(url)
    said = convnext("verify", url)
    assert said.status == 1 and "train-000000.tar: Its checksum is wrong: 1 file in it damaged" in said.out
    bucket.put_object(Key="out/train-000000.tar", Body=bytes(held[:20000]))
    assert "It has 20,000 bytes, and 51,200 were written" in convnext("verify", url).out


def places(out: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(out.glob("*.tar"))}


def test_what_was_read_once_is_on_the_disk(out, monkeypatch):
    monkeypatch.setattr(near, "_BLOCK", 4096)
    far = Counting(str(out))
    place = near.near(far, "key", places(out), {})
    for _ in range(2):
        for file in places(out):
            for first in range(0, 10_000, 1000):
                data = place.read(file, first, 1000)
                wanted = (out / file).read_bytes()[first : first + 1000]
                assert (data if data == wanted else place.read(file, first, 1000, fresh=True)) == wanted
    assert len(far.asked) == len(set(far.asked)) == 3 * len(places(out))


@pytest.mark.parametrize(("gb", "kept"), [("0", 0), ("0.00006", 2), ("0.00011", 3), ("9", 7)])  # the index before all
def test_the_cache_stays_within_its_limit(out, data, monkeypatch, gb, kept):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", gb)
    for _ in range(2):
        assert contents(f"file://{out}") == contents(data)
    held = [file for file in (near.cache_folder() / "shards").rglob("[!.]*.*")]
    assert len(held) == kept
    assert sum(file.stat().st_size for file in held) <= float(gb) * 1e9
    monkeypatch.setenv("CONVNEXT_CACHE_GB", "0")
    assert contents(f"file://{out}") == contents(data)
    assert not list((near.cache_folder() / "shards").rglob("[!.]*.*"))


def test_older_data_make_room_for_newer(out, monkeypatch):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", "0.0003")
    above = near.cache_folder() / "shards"
    for number, name in enumerate(("oldest", "older")):
        (above / name).mkdir(parents=True)
        (above / name / "train-000000.tar").write_bytes(b"x" * 40_000)
        os.utime(above / name, (number, number))
    contents(f"file://{out}")
    assert "oldest" not in os.listdir(above) and "older" in os.listdir(above)


def test_processes_share_the_index_that_is_on_the_disk_and_one_that_is_damaged_is_fetched_again(out, data):
    url = f"file://{out}"
    first = open_shards(url)
    (held,) = (near.cache_folder() / "shards").rglob("index.npz")
    there, known = held.stat(), held.read_bytes()
    before = contents(url)
    assert held.stat().st_ino == there.st_ino and known == (out / "index.npz").read_bytes()
    held.write_bytes(known[:-9] + bytes(9))
    assert contents(url) == before == contents(data)
    assert held.read_bytes() == known and held.stat().st_ino != there.st_ino
    held.unlink()
    assert list(first.images.files) == list(open_shards(out).images.files)


@pytest.mark.parametrize("locks", [True, False])
def test_processes_that_begin_at_once_fetch_the_index_once_where_the_disk_has_locks(out, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(
            near.FileLock, "acquire", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available"))
        )
    folder, size = near.cache_folder() / "key", (out / "index.npz").stat().st_size
    together, fetched = Barrier(8), list[int]()

    class Slow(FolderPlace):
        def mapped(self, file: str, size: int, *, fresh: bool = False) -> memoryview:
            fetched.append(size)
            time.sleep(0.2)  # as a store takes its time; the others have asked by then
            return super().mapped(file, size)

    def one(_: int) -> bytes:
        place = NearPlace(Slow(str(out)), folder, {"index.npz": size}, {})
        together.wait()
        return bytes(place.mapped("index.npz", size))

    with ThreadPoolExecutor(8) as several:
        assert set(several.map(one, range(8))) == {(out / "index.npz").read_bytes()}
    assert len(fetched) == (1 if locks else 8)
    assert [file.name for file in folder.iterdir() if not file.name.startswith(".")] == ["index.npz"]


def test_who_waits_too_long_for_another_process_fetches_for_itself(out, monkeypatch):
    monkeypatch.setattr(near, "_PATIENCE", 0.01)
    place, size = near.near(Counting(str(out)), "key", places(out), {}), (out / "index.npz").stat().st_size
    place.folder.mkdir(parents=True)
    with FileLock(place.folder / ".index.npz.lock"), ThreadPoolExecutor(1) as other:
        assert other.submit(place.mapped, "index.npz", size).result() == (out / "index.npz").read_bytes()


def test_a_disk_that_maps_no_files_costs_memory_and_nothing_else(out, data, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(19, "No such device")

    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", refuse)
        for where in (f"file://{out}", str(out)):
            assert contents(where) == contents(data)
        monkeypatch.setenv("CONVNEXT_CACHE_GB", "0")
        assert contents(f"file://{out}") == contents(data)


def test_what_is_damaged_in_the_cache_is_fetched_again(out, data):
    url = f"file://{out}"
    before = contents(url)
    for file in (near.cache_folder() / "shards").rglob("*.tar"):
        held = file.read_bytes()
        file.write_bytes(bytes(len(held) // 2) + held[len(held) // 2 : -100])
    assert contents(url) == before == contents(data)


def test_a_full_disk_under_the_cache_costs_a_line_and_no_image(out, data, monkeypatch, capsys):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(near.Path, "mkdir", refuse)
        place = near.near(Counting(str(out)), "key", places(out), {})
        for file in places(out):
            assert place.read(file, 0, 512, fresh=True) == (out / file).read_bytes()[:512]
            assert place.mapped(file, 512) == (out / file).read_bytes()
    assert capsys.readouterr().err.count("is not written to any more: No space left on device") == 1


@pytest.mark.parametrize("text", ["much", "nan", "inf"])
def test_a_limit_that_is_no_number_is_one_line(tmp_path, out, monkeypatch, text):
    monkeypatch.setenv("CONVNEXT_CACHE_GB", text)
    line = convnext("train", f"file://{out}", "--out", tmp_path / "run").line
    assert line == f"CONVNEXT_CACHE_GB = '{text}' is no number of gigabytes. Give one, such as 50; 0 keeps nothing."


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 3_000)), max_size=20), st.integers(1, 5_000))
def test_any_range_is_what_the_store_has(tmp_path_factory, ranges, block):
    place = tmp_path_factory.mktemp("far")
    content = bytes(n * n % 251 for n in range(10_000))
    (place / "a.tar").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "_BLOCK", block)
        found = NearPlace(FolderPlace(str(place)), place / "near", {"a.tar": 10_000}, {"b.tar": 10_000})
        shutil.copy(place / "a.tar", place / "b.tar")
        found = pickle.loads(pickle.dumps(found))
        for first, size in ranges:
            wanted = content[first : first + size]
            assert found.read("a.tar", first, size, fresh=True) == found.read("a.tar", first, size) == wanted
            assert found.read("b.tar", first, size) == wanted


def test_a_source_on_a_store_names_itself_by_its_address(out):
    source = open_shards(f"file://{out}")
    assert source.name == f"file://{out}"
