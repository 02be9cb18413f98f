"""Files of weights are what was written, or refused: digests, headers that are wrong, weights that are no numbers."""

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoints import checkpoint_of
from commands import convnext, tiny, trained
from convnext import create, load
from convnext.config import override
from convnext.deploy.trained.checkpoint import read_trained
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.optim import Optimizers
from convnext.engine.run import Run, State
from convnext.errors import CheckpointError
from convnext.integrity import require_whole
from convnext.models.tensors import read_header, read_tensors
from convnext.recipes import recipe
from convnext.tasks.table import row_of
from images import write_colours

TENSORS = {
    "model/a": torch.arange(6.0).reshape(2, 3),
    "model/half": torch.ones(3, dtype=torch.bfloat16),
    "optimizer/a/step": torch.tensor(7.0),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
}
METADATA = {"classes": ["cat", "dög"], "score": 0.5}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "x.safetensors", TENSORS, METADATA)
    return tmp_path / "x.safetensors"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trained(write_colours(folder / "pets"), folder / "run")
    return folder / "run"


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the bytes behind it, read by hand."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path: Path, header: dict[str, Any], payload: bytes, *, sealed: bool = False) -> Path:
    """The file again; `sealed`: with digests of what it now holds, computed by hand."""
    if sealed:
        texts = {name: text for name, text in header["__metadata__"].items() if name != "digests"}
        told = {}
        for name, entry in header.items():
            if name != "__metadata__":
                first, end = entry["data_offsets"]
                about = json.dumps([name, entry["dtype"], entry["shape"]]).encode()
                told[name] = f"{zlib.crc32(about + payload[first:end]):08x}"
        listed = json.dumps(sorted([name, text] for name, text in texts.items())).encode()
        texts["digests"] = json.dumps({"metadata": f"{zlib.crc32(listed):08x}", "tensors": told})
        header = {**header, "__metadata__": texts}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + payload)
    return path


def with_metadata(path: Path, metadata: Any) -> Path:
    """The file with another JSON value in its header, as a faulty program would write it."""
    header, payload = parts(path)
    header["__metadata__"]["metadata"] = metadata if isinstance(metadata, str) else json.dumps(metadata)
    return write(path, header, payload, sealed=True)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_digests_are_crc_32_of_name_type_shape_and_bytes_and_of_all_other_texts(file):
    header, payload = parts(file)
    before = file.read_bytes()
    write(file, header, payload, sealed=True)
    told = [json.loads(texts["__metadata__"]["digests"]) for texts in (header, parts(file)[0])]
    assert told[0] == told[1] and told[0]["tensors"].keys() == TENSORS.keys()
    assert require_whole(file) and len(before) <= len(file.read_bytes()) + 8


def test_whichever_bit_is_flipped_the_file_is_refused_or_reads_the_same(file):
    whole = file.read_bytes()
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    for place in range(0, 8 * len(whole), 11):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        file.write_bytes(data)
        try:
            tensors, metadata = checkpoint.read(file)
        except CheckpointError:
            continue
        assert place // 8 < start and metadata == METADATA and same(tensors, TENSORS)


@pytest.mark.parametrize("name", [name for name, value in TENSORS.items() if value.numel()])
def test_a_flipped_bit_of_a_tensor_is_refused_with_its_name_by_every_reader(file, name):
    header, payload = parts(file)
    end = header[name]["data_offsets"][1]
    data = bytearray(payload)
    data[end - 1] ^= 1
    write(file, header, bytes(data))
    for read in (checkpoint.read, read_tensors, require_whole):
        with pytest.raises(CheckpointError, match=rf"damaged: tensor '{name}' is not what was written\. Restore it"):
            read(file)


def test_a_cut_anywhere_and_bytes_too_many_are_refused(file):
    whole = file.read_bytes()
    for data in (*(whole[:length] for length in range(0, len(whole), 7)), whole + b"\0", whole * 2):
        file.write_bytes(data)
        for read in (checkpoint.read, require_whole):
            with pytest.raises(CheckpointError, match=r"^'.*' is damaged.*$"):
                read(file)


def test_tensors_in_each_others_place_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.zeros(4), "b": torch.ones(4)}, {})
    header, payload = parts(path)
    header["a"], header["b"] = header["b"], header["a"]
    with pytest.raises(CheckpointError, match=r"tensor '[ab]' is not what was written"):
        checkpoint.read(write(path, header, payload))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda h: h.update({"model/b": h.pop("model/a")}), "tensor 'model/a' has another name"),
        (lambda h: h["model/a"].update(dtype="I32"), "tensor 'model/a' is not what was written"),
        (lambda h: h["model/a"].update(shape=[3, 2]), "tensor 'model/a' is not what was written"),
        (
            lambda h: h["__metadata__"].update(metadata='{"classes": ["dog", "cat"]}'),
            "its header is not what was written",
        ),
        (lambda h: h["__metadata__"].update(note="x"), "its header is not what was written"),
        (lambda h: h["__metadata__"].update(version="1"), "its header is not what was written"),
        (lambda h: h["__metadata__"].update(digests="{}"), "its digests are not what was written"),
        (lambda h: h["__metadata__"].pop("digests"), "its digests are missing"),
    ],
)
def test_a_changed_header_is_one_line(file, edit, reason):
    header, payload = parts(file)
    edit(header)
    write(file, header, payload)
    for read in (checkpoint.read, read_tensors):
        with pytest.raises(CheckpointError, match=reason):
            read(file)


def test_the_header_alone_is_compared_where_no_tensor_is_read(file):
    header, payload = parts(file)
    header["__metadata__"]["metadata"] = '{"score": 0.75}'
    write(file, header, payload)
    for read in (checkpoint.read_metadata, read_header):
        with pytest.raises(CheckpointError, match="its header is not what was written"):
            read(file)


def test_files_of_before_there_were_digests_are_read_and_those_of_later_versions_refused(file):
    about = {"format": "convnext", "version": "1", "metadata": json.dumps(METADATA)}
    save_file({"a": torch.ones(2)}, file, about)
    assert checkpoint.read(file)[1] == METADATA and not require_whole(file)
    for version, reason in (("3", "newer convnext"), ("-1", "no version"), ("two", "no version"), ("", "no version")):
        save_file({"a": torch.ones(2)}, file, {**about, "version": version})
        header, payload = parts(file)
        with pytest.raises(CheckpointError, match=reason):
            checkpoint.read(write(file, header, payload, sealed=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_weights_that_are_no_numbers_are_refused_with_the_name_of_the_tensor(tmp_path, value, dtype):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.ones(5), "head.weight": torch.tensor([[1.0, value]], dtype=dtype)}, {})
    for read in (checkpoint.read, read_tensors):
        with pytest.raises(CheckpointError, match=r"tensor 'head\.weight' holds inf or nan"):
            read(path)


def test_an_optimizer_may_hold_inf_beside_sound_weights(tmp_path):
    state = {"model/a": torch.ones(2), "optimizer/a/exp_avg_sq": torch.tensor([1.0, torch.inf])}
    checkpoint.save(tmp_path / "x.safetensors", state, {})
    assert same(checkpoint.read(tmp_path / "x.safetensors")[0], state)


def test_weights_of_others_that_are_no_numbers_are_refused_too(tmp_path):
    save_file({"a": torch.tensor([torch.nan])}, tmp_path / "x.safetensors")
    torch.save({"a": torch.tensor([torch.nan])}, tmp_path / "x.pth")
    for name in ("x.safetensors", "x.pth"):
        with pytest.raises(CheckpointError, match="'a' holds inf or nan"):
            read_tensors(tmp_path / name)


def test_a_converted_file_carries_digests_and_other_programs_read_it(tmp_path):
    save_file(create("atto", classes=2).state_dict(), tmp_path / "atto.safetensors")
    done = convnext("convert", tmp_path / "atto.safetensors", tmp_path / "t.safetensors", "--to", "timm")
    assert done.status == 0, done.err
    assert require_whole(tmp_path / "t.safetensors") and load_file(tmp_path / "t.safetensors")
    header, payload = parts(tmp_path / "t.safetensors")
    write(tmp_path / "t.safetensors", header, bytes([payload[0] ^ 4]) + payload[1:])
    with pytest.raises(CheckpointError, match="is not what was written"):
        create("atto", classes=2, weights=tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    "text", ["[]", "null", "3", '"text"', "", "{", "NaN", '{"score": NaN}', "[" * 100_000, '{"a":' * 100_000, "\ud800"]
)
def test_a_header_that_is_no_object_of_json_is_one_line(tmp_path, text):
    path = with_metadata(checkpoint_of("classification", tmp_path), text)
    done = convnext("predict", path, tmp_path)
    assert "damaged" in done.line


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        ("classes", ["a"], "names 1 class, and model.classes = 2"),
        ("classes", ["a", "b", "c"], "names 3 classes, and model.classes = 2"),
        ("classes", "ab", "classes = 'ab'"),
        ("classes", ["a", 1], r"classes = \['a', 1\]"),
        ("classes", None, "classes = None"),
        ("recipe", [], r"recipe = \[\]"),
        ("recipe", {}, "field 'task' is missing"),
        ("weights", 3, "weights = 3"),
        ("val_share", "much", "val_share = 'much'"),
        ("score", "high", "score = 'high'"),
        ("metrics", {"loss": "low"}, "metrics = {'loss': 'low'}"),
        ("step", 10**400, "step = 1000"),
        ("category_ids", [1, 2, 3], "3 category_ids for 2 classes"),
    ],
)
def test_an_entry_of_the_header_that_is_none_of_its_kind_is_named(tmp_path, entry, value, reason):
    path = checkpoint_of("classification", tmp_path)
    metadata = {**json.loads(parts(path)[0]["__metadata__"]["metadata"]), entry: value}
    with pytest.raises(CheckpointError, match=reason):
        load(with_metadata(path, metadata))


@pytest.mark.parametrize("entry", ["recipe", "classes"])
def test_a_header_without_recipe_or_classes_is_one_line(tmp_path, entry):
    path = checkpoint_of("classification", tmp_path)
    metadata = json.loads(parts(path)[0]["__metadata__"]["metadata"])
    del metadata[entry]
    with pytest.raises(CheckpointError, match=f"its header has no {entry}"):
        load(with_metadata(path, metadata))


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_tensors_that_do_not_make_the_network_of_the_recipe_are_named(tmp_path, task):
    path = checkpoint_of(task, tmp_path)
    tensors, metadata = checkpoint.read(path)
    name = next(name for name, value in tensors.items() if value.ndim > 1)
    without = {key: value for key, value in tensors.items() if key != name}
    cases = {
        "is missing": without,
        "is none of its network": {**tensors, "zzz": torch.ones(1)},
        "instead of float32": {**tensors, name: tensors[name][:-1]},
        "int32 .* instead of float32": {**tensors, name: tensors[name].int()},
    }
    for reason, state in cases.items():
        checkpoint.save(path, state, metadata)
        with pytest.raises(CheckpointError, match=rf"does not fit its own recipe: tensor '.*' .*{reason}"):
            load(path)


def test_a_recipe_of_a_network_that_no_memory_holds_is_refused_before_any_is_taken(tmp_path):
    path = checkpoint_of("classification", tmp_path)
    metadata = json.loads(parts(path)[0]["__metadata__"]["metadata"])
    metadata["recipe"]["model"]["widths"] = [10**7, 10**7, 10**7, 10**7]
    with pytest.raises(CheckpointError, match=r"does not fit its own recipe|makes no network"):
        load(with_metadata(path, metadata))


@pytest.mark.parametrize("length", [0, 7, 2**31, 2**63, 2**64 - 1])
def test_a_header_of_an_absurd_length_is_one_line(tmp_path, length):
    path = checkpoint_of("classification", tmp_path)
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    for arguments in (("predict", path, tmp_path), ("convert", path, tmp_path / "y.safetensors", "--to", "timm")):
        assert "safetensors" in convnext(*arguments).line


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
ENTRIES = [
    "recipe",
    "classes",
    "task",
    "weights",
    "val_share",
    "score",
    "metrics",
    "step",
    "state",
    "category_ids",
    "images",
]


@settings(max_examples=60)
@given(entry=st.sampled_from(ENTRIES), value=JSON)
def test_whatever_stands_in_the_header_the_answer_is_a_checkpoint_or_one_line(tmp_path_factory, entry, value):
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    path = folder / "best.safetensors"
    if not path.exists():
        checkpoint_of("classification", folder)
    metadata = json.loads(parts(path)[0]["__metadata__"]["metadata"])
    whole = path.read_bytes()
    try:
        read_trained(with_metadata(path, {**metadata, entry: value}))
    except CheckpointError:
        pass
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda tensors, about: tensors.pop("optimizer/head.weight/exp_avg"),
            "optimizer's state .* 'head.weight/exp_avg'",
        ),
        (lambda tensors, about: tensors.pop("ema/head.weight"), "EMA weights .* 'head.weight'"),
        (lambda tensors, about: tensors.pop("model/head.weight"), "tensor 'head.weight' is missing"),
        (lambda tensors, about: about["state"].pop("step"), "state.step"),
        (lambda tensors, about: about["state"].update(step="6"), "state.step"),
        (lambda tensors, about: about["state"].update(step=10**9), "step 1000000000 of 12"),
        (lambda tensors, about: about["state"].update(log_bytes=-1), "state.log_bytes"),
        (lambda tensors, about: about["state"].update(losses=[None]), "state.losses"),
        (lambda tensors, about: about["state"].update(best={"raw": {"score": "high"}}), "state.best"),
        (lambda tensors, about: about["state"].update(best={}), "step 12 of 12"),
        (lambda tensors, about: about["state"].update(more=1), "state.more"),
        (lambda tensors, about: about.update(state=[]), r"state = \[\]"),
        (lambda tensors, about: about.update(scaler="fast"), "scaler = 'fast'"),
        (lambda tensors, about: about.pop("recipe"), "field '.*' is missing"),
    ],
)
def test_a_run_whose_state_is_wrong_does_not_go_on(tmp_path, run, change, reason):
    tensors, metadata = checkpoint.read(run / "last.safetensors")
    change(tensors, metadata)
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run" / "last.safetensors", tensors, metadata)
    done = convnext(*tiny(run.parent / "pets", tmp_path / "run"))
    assert done.status == 2 and not done.out
    assert re.search(reason, done.err.splitlines()[-1]), done.err


@pytest.mark.parametrize("scaler", [None, {}, {"scale": 1.0}, "scale", {"scale": "x"}])
def test_the_state_of_the_loss_scaler_must_be_there_where_there_is_one(tmp_path, scaler):
    made = override(
        recipe("small", "atto", images=100, image_px=64, classes=2), {"model.depths": (1, 1), "model.widths": (8, 8)}
    )
    model = row_of("classification").build(made)
    parts_of_a_run = (Optimizers(model, made.optim), None, torch.amp.GradScaler("cpu", enabled=True))
    run = Run(tmp_path, made, {}, model, *parts_of_a_run)
    run.save_last(State(), None)
    assert run.resume(World()) == State()
    tensors, metadata = checkpoint.read(tmp_path / "last.safetensors")
    good = metadata.pop("scaler")
    odd = {**good, "scale": "x"} if isinstance(scaler, dict) and scaler.get("scale") == "x" else scaler
    checkpoint.save(tmp_path / "last.safetensors", tensors, metadata if odd is None else {**metadata, "scaler": odd})
    with pytest.raises(CheckpointError, match=r"loss scaler|scaler = "):
        run.resume(World())
