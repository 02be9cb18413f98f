"""What the digests cost: reading a large checkpoint with them and without, and the digests of writing one.

    python benchmarks/integrity.py [--megabytes 350] [--repeats 5]

The file is made of tensors of 1 to 16 MB by a fixed seed and lies in the system's cache. By turns: `checkpoint.read` as it is;
the same without the comparison, and without the look for inf and nan; the digests of a write; SHA-256 and BLAKE2b of the same
bytes, which were passed over. Seconds are the processor's, on one thread: other work on the machine counts little.
A line of results/integrity.jsonl.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from convnext.engine import checkpoint

RESULTS = Path(__file__).parent / "results" / "integrity.jsonl"
MB = 1_000_000


def main() -> None:
    """Make, measure in turns, append a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=350)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path, tensors = Path(folder) / "x.safetensors", made(args.megabytes)
        checkpoint.save(path, tensors, {})
        rows: dict[str, list[float]] = {}
        for _ in range(args.repeats):
            for name, call in calls(path, tensors).items():
                rows.setdefault(name, []).append(seconds(call))
    line = {
        "command": f"python benchmarks/integrity.py --megabytes {args.megabytes} --repeats {args.repeats}",
        "megabytes": args.megabytes,
        "cpu_s": {name: [round(min(each), 3), round(statistics.median(each), 3)] for name, each in rows.items()},
        **{"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()},
        **{
            "torch": torch.__version__,
            "zlib": zlib.ZLIB_RUNTIME_VERSION,
            "n": args.repeats,
            "figures": ["least", "median"],
        },
    }
    print(json.dumps(line))
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def made(megabytes: int) -> dict[str, Tensor]:
    """Tensors of `megabytes` together."""
    generator, tensors, left = torch.Generator().manual_seed(0), dict[str, Tensor](), megabytes * MB // 4
    while left > 0:
        size = min(left, MB // 4 * (1 + len(tensors) % 16))
        tensors[f"tensor {len(tensors)}"] = torch.randn(size, generator=generator)
        left -= size
    return tensors


def calls(path: Path, tensors: dict[str, Tensor]) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    data = memoryview(path.read_bytes())

    def without(*names: str) -> Callable[[], Any]:
        def read() -> Any:
            with patch.multiple(checkpoint, **dict.fromkeys(names, lambda *_: None)):
                return summed(checkpoint.read(path)[0])

        return read

    def sealed() -> None:
        with patch.object(checkpoint, "save_file", lambda *_: None):
            checkpoint.write(path, tensors, {})

    return {
        "read": lambda: summed(checkpoint.read(path)[0]),
        "read, not compared": without("require_whole"),
        "read, neither compared nor looked at": without("require_whole", "require_finite"),
        "digests of a write": sealed,
        "crc32": lambda: zlib.crc32(data),
        "sha256": lambda: hashlib.sha256(data).digest(),
        "blake2b": lambda: hashlib.blake2b(data).digest(),
    }


def summed(tensors: dict[str, Tensor]) -> float:
    """Of all numbers: a tensor that is mapped is read when it is touched."""
    return float(sum(tensor.sum() for tensor in tensors.values()))


def seconds(call: Callable[[], Any]) -> float:
    """Of the processor, in this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
