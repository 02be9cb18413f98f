"""A wide search for the tile sizes of the GPU kernels: what the tables in kernels/gpu/{depthwise,gemm,mlp}.py record.

    python benchmarks/gpu_search.py --model base --minutes 8          # rows to runs/gpu_search.jsonl, the best three shown
    python benchmarks/gpu_search.py --summarise runs/gpu_search.jsonl # the best eight to benchmarks/results/gpu_search.jsonl
    python benchmarks/gpu_search.py --dry-run                         # the logic alone, tiny, on the CPU; no figures

Processes side by side compile the candidates into Triton's cache; this one then runs each, the caches of the GPU
flushed before every run. What the launchers name comes first. One JSON line a setting, flushed at once.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from convnext.kernels.gpu import depthwise
from convnext.kernels.gpu.available import interpreted
from convnext.kernels.gpu.checks import Case
from convnext.kernels.gpu.tuning import Launch, Setting, milliseconds
from gpu_launches import launches

RESULTS = Path(__file__).parent / "results" / "gpu_search.jsonl"
WIDTHS = {"tiny": (96, 192, 384, 768), "base": (128, 256, 512, 1024)}
BATCH = 128
SEARCHED = (
    "norm",
    "mlp",
    "gelu",
    "residual",
    "gelu, backward",
    "mlp input, backward",
    "mlp weights, backward",
    "gelu, library",
    "residual, library",
    "gelu, backward, library",
    "input, backward",
    "filter, backward",
    "norm, backward",
)
COMPILING = 0.6  # of the time; the rest is for running
SHARED = 232_448  # bytes of a Hopper GPU that one program may take
DERIVED = ("strips", "spans", "groups", "whole", "even")  # what follows from the tile and the size
FITTED = ("mlp", "mlp_input_gradient", "mlp_weight_gradient")  # compiled anew for each width
Row = dict[str, Any]


def main() -> None:
    """Compile side by side, then time, or summarise what was timed before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(WIDTHS), default="tiny")
    parser.add_argument("--only", nargs="+", choices=SEARCHED, default=SEARCHED, help="these kernels (all)")
    parser.add_argument("--minutes", type=float, default=10, help="for everything")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that compile")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_search.jsonl"))
    parser.add_argument("--summarise", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.summarise:
        rows = [json.loads(each) for file in args.summarise for each in file.read_text().splitlines()]
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in summarise(rows)))
        return
    if args.dry_run and not interpreted():
        sys.exit(subprocess.call([sys.executable, __file__, *sys.argv[1:]], env=os.environ | {"TRITON_INTERPRET": "1"}))
    if not args.dry_run and not torch.cuda.is_available():
        sys.exit("No CUDA device here. `--dry-run` tries the logic on the CPU.")
    until = time.monotonic() + 60 * args.minutes
    if args.share:
        compile_share(args, *(int(each) for each in args.share.split("/")), until)
        return
    if not args.dry_run:
        spread(args)
    search(args, until)


def work(model: str, only: Sequence[str]) -> Iterator[tuple[int, int, Launch, list[Setting]]]:
    """(channels, side, launch, candidates) of these kernels at every stage."""
    dry = interpreted()
    sizes = ((16, 2),) if dry else tuple((c, 56 >> stage) for stage, c in enumerate(WIDTHS[model]))
    for c, side in sizes:
        dtype, device = (torch.float32, "cpu") if dry else (torch.bfloat16, "cuda")
        case = Case(1 if dry else BATCH, c, side, side, kernel=3 if dry else 7, dtype=dtype, device=device)
        found = launches(case)
        for what in only:
            if what in found:
                settings = candidates(found[what], c, side)
                yield c, side, found[what], settings[:2] if dry else settings


def candidates(launch: Launch, c: int, side: int) -> list[Setting]:
    """What the launcher names, and every tile that may be good, once each."""
    made = {
        "convolve_norm": _norm, "convolve_add": _add, "filter_gradient": _filter, "norm_backward": _norm_backward,
        "mlp": _mlp, "mlp_input_gradient": _mlp, "mlp_weight_gradient": _mlp_weights, "apply_gelu": _runs,
        "add_residual": _patches, "apply_derivative": _patches,
    }  # fmt: skip
    found = made[launch.name](c, side) if launch.name in made else _products(launch.name, c)
    return list({tuple(sorted(each.items())): each for each in (*launch.settings, *found)}.values())


def _over(side: int, rows: int, columns: int, warps: int) -> Setting:
    spread = {"strips": -(-side // rows), "spans": -(-side // columns)}
    return {"rows": rows, "columns": columns, "num_warps": warps, **spread}


def _norm(c: int, side: int) -> Iterator[Setting]:
    block, chunks = depthwise.split(c)
    for rows, columns, warps in product((1, 2, 3, 4, 5, 7), (1, 2, 4, 8, 16), (1, 2, 4, 8)):
        each = columns * block // (32 * warps)  # values a thread holds of a row and chunk
        if 2 <= each <= 8 and 24 <= rows * chunks * each <= 112 and max(rows, columns) < 2 * side:
            yield _over(side, rows, columns, warps)


def _add(c: int, side: int) -> Iterator[Setting]:
    for block, rows, columns, warps in product((32, 64, 128), (2, 4, 7, 8), (2, 4, 8, 16), (1, 2, 4)):
        each = columns * block // (32 * warps)
        if 2 <= each <= 8 and 14 <= rows * each <= 64 and block < 2 * c:
            yield {**_over(side, rows, columns, warps), "block": block, "groups": -(-c // block)}


def _filter(c: int, side: int) -> Iterator[Setting]:
    for columns, block, warps in product((1, 2, 4, 8), (32, 64, 128), (1, 2, 4)):
        if 1 <= columns * block // (32 * warps) <= 3:
            groups, spans = -(-c // block), -(-side // columns)
            yield {"columns": columns, "block": block, "spans": spans, "groups": groups, "num_warps": warps}


def _norm_backward(c: int, side: int) -> Iterator[Setting]:
    for lines, warps in product((1, 2, 4, 8, 16, 32), (2, 4, 8, 16)):
        if 4 <= lines * depthwise.power(c) // (32 * warps) <= 64:
            yield {"lines": lines, "num_warps": warps}


def _mlp(c: int, side: int) -> Iterator[Setting]:
    whole = int(c == depthwise.split(c)[0] * depthwise.split(c)[1])
    for m, h, warps, stages in product((64, 128), (32, 64, 128), (4, 8), (1, 2, 3)):
        yield {"block_m": m, "block_h": h, "whole": whole, "num_warps": warps, "num_stages": stages}


def _mlp_weights(c: int, side: int) -> Iterator[Setting]:
    block, chunks = depthwise.split(c)
    for m, h, warps, stages in product((16, 32, 64, 128), (64, 128), (4, 8), (1, 2, 3, 4)):
        if 2 * block * chunks * h <= 160 * 32 * warps:  # both sums, in registers
            whole = int(c == block * chunks and 4 * c % h == 0)
            yield {"block_m": m, "block_h": h, "whole": whole, "num_warps": warps, "num_stages": stages}


def _runs(c: int, side: int) -> Iterator[Setting]:
    for block, warps in product((512, 1024, 2048, 4096), (2, 4, 8)):
        yield {"block": block, "num_warps": warps}


def _patches(c: int, side: int) -> Iterator[Setting]:
    for lines, block, warps in product((4, 8, 16, 32, 64), (64, 128, 256), (2, 4, 8)):
        if 8 <= lines * block // (32 * warps) <= 32:
            yield {"lines": lines, "block": block, "num_warps": warps}


def _products(name: str, c: int) -> Iterator[Setting]:
    """Tiles of `linear_gelu`, `linear_residual` and `gelu_backward`, which has two accumulators."""
    backward = name == "gelu_backward"
    wide, inner = (c, 4 * c) if name == "linear_residual" else (4 * c, c)
    for m, n, k, warps, stages in product((64, 128, 256), (64, 128, 256), (32, 64), (4, 8), (2, 3, 4)):
        each, shared = m * n // (32 * warps), 2 * stages * (m * k + k * n)
        if not 32 <= each <= (64 if backward else 128) or shared > SHARED or (warps == 8 and m * n < 128 * 128):
            continue
        if (k == 32 and inner % 64 == 0) or (stages == 2 and not backward):
            continue
        fits = {"whole": int(inner % k == 0), "even": int(wide % n == 0)}
        yield {"block_m": m, "block_n": n, "block_k": k, "num_warps": warps, "num_stages": stages, **fits}


def spread(args: argparse.Namespace) -> None:
    """Compile every candidate, in processes side by side."""
    shared = [sys.executable, __file__, "--model", args.model, "--only", *args.only]
    shared += ["--minutes", str(COMPILING * args.minutes)]
    children = [subprocess.Popen([*shared, "--share", f"{i}/{args.jobs}"]) for i in range(args.jobs)]
    for child in children:
        child.wait()


def compile_share(args: argparse.Namespace, index: int, shares: int, until: float) -> None:
    """One process's part; stages whose compiled kernels are the same fall to one process."""
    count = done = 0
    for c, _, launch, settings in work(args.model, args.only):
        for setting in settings:
            tile = sorted((name, value) for name, value in setting.items() if name not in DERIVED)
            who = (launch.name, c if launch.name in ("convolve_norm", *FITTED) else 0, tile)
            if zlib.crc32(repr(who).encode()) % shares != index or time.monotonic() > until:
                continue
            count += 1
            try:
                launch.compile(setting)
                done += 1
            except Exception as failure:  # noqa: BLE001 - a setting that does not compile is not a candidate
                print(f"{launch.name} C={c} {setting}: {str(failure).strip()[:100]}", file=sys.stderr)
    print(f"process {index}: {done} of {count} compiled", flush=True)


def search(args: argparse.Namespace, until: float) -> None:
    """Time every candidate, a line each, and show the best three of each kernel and size."""
    from gpu import machine

    signed = {} if args.dry_run else machine()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with Path(os.devnull if args.dry_run else args.out).open("a") as file:
        for c, side, launch, settings in work(args.model, args.only):
            found: list[Row] = []
            for setting in settings:
                if time.monotonic() > until:
                    break
                try:
                    spent = timed(launch, setting)
                except Exception:  # noqa: BLE001 - too much shared memory for this GPU, say
                    continue
                row = {"kernel": launch.name, "n": BATCH, "channels": c, "side": side, "ms": spent, "setting": setting}
                found.append(row)
                file.write(json.dumps(row | signed) + "\n")
                file.flush()
            best = " | ".join(f"{1e3 * row['ms']:.0f} us {tile_of(row)}" for row in ranked(found)[:3])
            print(f"{launch.name} C={c}, {len(found)} of {len(settings)}: {best}", flush=True)
    if args.dry_run:
        print("DRY RUN: Triton's interpreter on the CPU, tiny sizes; no figure means anything")


def timed(launch: Launch, setting: Setting) -> float:
    """Milliseconds of a run; in the interpreter, one run on the host's clock."""
    if not interpreted():
        return milliseconds(lambda: launch.run(setting))
    begin = time.perf_counter()
    launch.run(setting)
    return 1e3 * (time.perf_counter() - begin)


def summarise(rows: list[Row], best: int = 8) -> list[Row]:
    """The `best` fastest settings of each kernel and size, rounded, without what follows from the tile."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["kernel"], row["channels"], row["side"], row.get("gpu")), []).append(row)
    kept = ("kernel", "n", "channels", "side", "gpu", "torch", "triton", "commit", "date")
    return [
        {**{name: row[name] for name in kept if name in row}, "timed": len(group), "ms": round(row["ms"], 4),
         "setting": {name: value for name, value in row["setting"].items() if name not in DERIVED}}
        for group in groups.values() for row in ranked(group)[:best]
    ]  # fmt: skip


def ranked(rows: list[Row]) -> list[Row]:
    """The fastest first."""
    return sorted(rows, key=lambda row: row["ms"])


def tile_of(row: Row) -> str:
    """Its setting in a few words."""
    return " ".join(f"{name}={value}" for name, value in row["setting"].items() if name not in DERIVED)


if __name__ == "__main__":
    main()
