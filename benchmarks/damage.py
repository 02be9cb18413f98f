"""Damaged files of weights: none may answer otherwise, and none may end in a traceback.

    python benchmarks/damage.py [--n 1000] [--seed 0] [--quiet]

For each task a small checkpoint, its training state and, of a classifier, an ONNX file are written. Each trial takes one and
does one thing to its bytes that a disk, a network or an editor might do: flipped bits, a cut, bytes more, swapped or zeroed
blocks, edits of the header (of names, types, shapes, places, texts and fields). Half of the edits are given the digests of
its new contents, as a faulty program would. The file then goes through all doors: `load` and one prediction, weights to start
from, the state to go on from, `verify`. Counted is what came of it: 'refused' by one line, 'equal' answers, or a failure:
'wrong' answers and tracebacks, and a file that `load` refuses and `verify` calls whole. Of files with new digests any answer is
right, 'other', and a traceback is not. A line of results/damage.jsonl.
"""

import argparse
import contextlib
import copy
import io
import json
import platform
import random
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convnext
from convnext.config import override
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.ema import Ema
from convnext.engine.optim import Optimizers
from convnext.engine.run import LAST, Run, State
from convnext.errors import ConvNeXtError
from convnext.integrity import DIGESTS, digest, sealed
from convnext.models.tensors import read_tensors
from convnext.recipes import recipe
from convnext.tasks.table import row_of

RESULTS = Path(__file__).parent / "results" / "damage.jsonl"
BLOCKS = {"model.depths": (1, 1, 1, 1), "model.widths": (8, 12, 16, 24)}
FIELDS: dict[str, dict[str, Any]] = {
    "classification": {**BLOCKS, "input.eval_size_px": 64},
    "detection": {**BLOCKS, "input.eval_short_px": 64, "input.eval_long_px": 64, "head.score": 0.0},
    "segmentation": {**BLOCKS, "head.width": 16, "head.aux_width": 8},
}
ODD: list[Any] = [
    None,
    [],
    {},
    "",
    "text",
    -1,
    0,
    1e308,
    10**400,
    True,
    ["a", 3],
    [["a"]],
    "\x1b[2J\n",
    "\ud800",
    {"a": {"b": []}},
]
Subject = tuple[str, Path]  # task, file


def main() -> int:
    """Write, damage, count; 1 where a trial failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="damaged files (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="write no line of results")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = attack(Path(folder), n=args.n, seed=args.seed)
    for failure in failures[:20]:
        print(failure, file=sys.stderr)
    line = {
        **{"command": f"python benchmarks/damage.py --n {args.n} --seed {args.seed}", "n": args.n, "seed": args.seed},
        **{"counts": counts, "failures": len(failures), "seconds": round(time.monotonic() - began)},
        **{"python": platform.python_version(), "torch": torch.__version__, "convnext": convnext.__version__},
    }
    print(json.dumps(line))
    if not args.quiet:
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return 1 if failures else 0


def attack(folder: Path, *, n: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """What came of `n` damaged files, counted, and the failures in words."""
    subjects = [subject for task in FIELDS for subject in written(task, folder / task)]
    expected = {path: answers(task, path) for task, path in subjects}
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for trial in range(n):
        random_ = random.Random(f"{seed} {trial}")
        task, path = subjects[trial % len(subjects)]
        whole = path.read_bytes()
        kind, data, resealed = damaged(whole, path, random_)
        path.write_bytes(data)
        found = answers(task, path)
        path.write_bytes(whole)
        for door, answer in found.items():
            outcome = judged(answer, expected[path][door], resealed=resealed)
            counts[outcome] += 1
            if outcome in ("wrong", "traceback"):
                failures.append(f"{outcome}: trial {trial}, {kind} of {task} {path.name}, {door}: {answer[-1500:]}")
        if found["verify"] == "whole" and found["load"].startswith(("refused", "Traceback")) and not resealed:
            failures.append(f"unseen: trial {trial}, {kind} of {task} {path.name}: {found['load']}")
    return dict(sorted(counts.items())), failures


def judged(answer: str, expected: str, *, resealed: bool) -> str:
    """'refused', 'equal', 'other' where that may be, 'wrong' or 'traceback'."""
    if answer.startswith("Traceback"):
        return "traceback"
    if answer.startswith("refused: "):
        return "refused" if "\n" not in answer and len(answer) < 2000 else "wrong"
    if answer == expected:
        return "equal"
    return "other" if resealed else "wrong"


def written(task: str, folder: Path) -> list[Subject]:
    """The files that are attacked: best weights, a state to go on from and, of a classifier, an exported network."""
    folder.mkdir(parents=True, exist_ok=True)
    made, model = network(task)
    metadata = {
        "recipe": made.model_dump(mode="json"),
        "task": task,
        "classes": ["a", "b"],
        "images": "x",
        "val_share": None,
    }
    best = {**metadata, "weights": "raw", "score": 0.5, "metrics": {"loss": 1.0}, "step": 3}
    checkpoint.save(folder / "best.safetensors", model.state_dict(), best)
    last = folder / "run"
    last.mkdir(exist_ok=True)
    run_of(task, last).save_last(State(step=3, best={"raw": {"score": 0.5, "loss": 1.0, "step": 3}}), None)
    files = [folder / "best.safetensors", last / LAST]
    if task == "classification":
        with contextlib.suppress(ConvNeXtError), quiet():
            files.append(convnext.export(folder / "best.safetensors", "onnx", folder / "model.onnx").out)
    return [(task, file) for file in files]


def network(task: str) -> tuple[Any, torch.nn.Module]:
    """A small recipe and its network, from one seed."""
    name = "small" if task == "classification" else f"small_{task}"
    made = override(recipe(name, "atto", images=100, image_px=64, classes=2), FIELDS[task])
    torch.manual_seed(0)
    return made, row_of(task).build(made)


def run_of(task: str, folder: Path) -> Run:
    """A run that stands at its beginning."""
    made, model = network(task)
    optimizers = Optimizers(model, made.optim)
    ema, scaler = Ema(model, 0.9), torch.amp.GradScaler("cpu", enabled=False)
    description = {"task": task, "classes": ["a", "b"], "images": "x", "val_share": None}
    return Run(folder, made, description, model, optimizers, ema, scaler)


def answers(task: str, path: Path) -> dict[str, str]:
    """Door -> what comes out of it, as text: an answer, 'refused: ...' or a traceback."""
    doors: dict[str, Callable[[], str]] = {"load": lambda: predicted(path), "verify": lambda: verified(path)}
    if path.suffix == ".safetensors":
        doors["weights"] = lambda: tensors_of(read_tensors(path)[0])
    if path.name == LAST:
        doors["resume"] = lambda: resumed(task, path.parent)
    return {door: outcome(call) for door, call in doors.items()}


def outcome(call: Callable[[], str]) -> str:
    """What `call` says, or how it ends."""
    try:
        with quiet():
            return call()
    except ConvNeXtError as error:
        return f"refused: {error}"
    except Exception:  # noqa: BLE001 # this is what is counted
        return "Traceback " + traceback.format_exc()


def predicted(path: Path) -> str:
    """What the file says of one image."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    predictor = convnext.load(path, device="cpu")
    return json.dumps([predictor(image).to_dict(), predictor.classes], allow_nan=False)


def verified(path: Path) -> str:
    """What `convnext verify` says."""
    (found,) = convnext.verify(path)
    return found.state if found.state != "damaged" else f"refused: {found.about}"


def tensors_of(tensors: dict[str, torch.Tensor]) -> str:
    """All bits."""
    return "".join(f"{name} {t.dtype} {tuple(t.shape)} {hash(bits(t))}\n" for name, t in sorted(tensors.items()))


def bits(tensor: torch.Tensor) -> bytes:
    """Of a tensor."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def resumed(task: str, folder: Path) -> str:
    """The state after `folder` was taken up again."""
    run = run_of(task, folder)
    state = run.resume(World())
    run.require_place(state, 100)
    assert run.ema is not None
    every = {**run.model.state_dict(), **checkpoint.under("optimizer", run.optimizers.tensors())}
    return f"{state} {tensors_of(every | checkpoint.under('ema', run.ema.tensors()))}"


def damaged(data: bytes, path: Path, random_: random.Random) -> tuple[str, bytes, bool]:
    """(what was done, the bytes after it, whether the digests are new)."""
    header = 8 + int.from_bytes(data[:8], "little") if path.suffix == ".safetensors" else 0
    edits = ["flips", "header flips", "cut", "more", "swap", "zeros"] + ["edit"] * 6 if header else []
    kind = random_.choice(edits or ["flips", "cut", "more", "swap", "zeros"])
    if kind == "edit":
        return edited(data, header, random_)
    new = bytearray(data)
    size = len(new)
    if kind in ("flips", "header flips"):
        low, high = (0, header) if kind == "header flips" else (header, size)
        for _ in range(random_.choice([1, 1, 1, 2, 8, 64])):
            new[random_.randrange(low, high)] ^= 1 << random_.randrange(8)
    elif kind == "cut":
        new = new[
            : random_.choice(
                [random_.randrange(size), size - random_.randrange(1, 9), random_.randrange(min(size, 600))]
            )
        ]
    elif kind == "more":
        new += random_.randbytes(random_.randrange(1, 5000))
    else:
        length = random_.choice([1, 4, 64, 512, 4096])
        here, there = (random_.randrange(max(1, size - length)) for _ in range(2))
        one, other = bytes(new[here : here + length]), bytes(new[there : there + length])
        if kind == "zeros":
            new[here : here + len(one)] = bytes(len(one))
        elif abs(here - there) >= length:
            new[here : here + len(one)], new[there : there + len(other)] = other, one
    return kind, bytes(new), False


def edited(data: bytes, start: int, random_: random.Random) -> tuple[str, bytes, bool]:
    """The header with one entry changed, by name, type, shape, place or text."""
    header = json.loads(data[8:start])
    texts = header["__metadata__"]
    names = [name for name in header if name != "__metadata__"]
    name, kind = (
        random_.choice(names),
        random_.choice(["name", "shape", "dtype", "offsets", "lost", "text", "deep", *["field"] * 6]),
    )
    resealed = random_.random() < 0.5
    if kind == "name":
        header[name + random_.choice(["x", "", "\n", "/"])] = header.pop(name)
    elif kind == "shape":
        header[name]["shape"] = random_.choice([[], [1], [-1], [10**12], header[name]["shape"][::-1], "x", None])
    elif kind == "dtype":
        header[name]["dtype"] = random_.choice(["F16", "I32", "I64", "BF16", "U8", "X9", None, "F32"])
    elif kind == "offsets":
        header[name]["data_offsets"] = header[random_.choice(names)]["data_offsets"]
    elif kind == "lost":
        del header[name]
    elif kind == "deep":
        texts["metadata"] = "[" * 100_000
    elif kind == "text":
        key = random_.choice(list(texts))
        texts[key] = random_.choice(["", "null", "[]", "{}", "NaN", "7", "text", "1", None])
    else:
        texts["metadata"] = json.dumps(changed(json.loads(texts["metadata"]), random_))
    if resealed:
        with contextlib.suppress(Exception):  # of a header that has no digests
            header["__metadata__"] = resealed_texts(header, data[start:])
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    length = random_.choice([len(text)] * 30 + [2**63, 2**40, 99_999_999, 0])
    return f"edit of {kind}", struct.pack("<Q", length) + text + data[start:], resealed


def changed(metadata: Any, random_: random.Random) -> Any:
    """`metadata` with one of its values, at any depth, lost or made something odd."""
    new, places = copy.deepcopy(metadata), []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(new)
    place, key = random_.choice(places)
    if random_.random() < 0.55:
        del place[key]
    else:
        place[key] = random_.choice(ODD)
    return random_.choice([None, [], 3, "x"]) if random_.random() < 0.05 else new


def resealed_texts(header: dict[str, Any], payload: bytes) -> dict[str, str]:
    """The texts of a header with the digests of what it holds now."""
    told = {}
    for name, held in header.items():
        if name != "__metadata__":
            first, end = held["data_offsets"]
            told[name] = digest(name, held["dtype"], held["shape"], [payload[first:end]])
    return sealed({key: text for key, text in header["__metadata__"].items() if key != DIGESTS}, told)


@contextlib.contextmanager
def quiet() -> Any:
    """Without what is said meanwhile."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


if __name__ == "__main__":
    sys.exit(main())
