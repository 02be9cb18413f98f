"""How throughput grows with batch, resolution and cores: our network by convnext.optimize, plain, and timm's, in turn.

    python benchmarks/growth.py [tiny] [--rounds 3] [--seconds 0.3] [--quick]

One thing varies at a time: the batch from 1 to 16 at 224 px on all cores, the side from 96 to 384 px at batch 4 on all
cores, the threads from 1 to all at batch 4 and 224 px; the point that these share is measured once. Every contender is a
process with a fixed number of threads, and they take turns (A B C C B A), as in `convnext benchmark`. Every figure is a
line of results/growth.jsonl, drawn as results/growth.svg. About 3 minutes for ConvNeXt-T on two quiet cores.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from convnext.studies.benchmark.growth import chart, panels
from convnext.studies.benchmark.jobs import Job, Settings, jobs_of, network_of
from convnext.studies.benchmark.rows import rows_of, settings_text
from convnext.studies.benchmark.run import expected_s, measure

RESULTS = Path(__file__).parent / "results"
BATCHES, SIDES_PX = (1, 2, 4, 8, 16), (96, 128, 160, 224, 288, 384)
BATCH, SIDE_PX = 4, 224  # where the other two vary
NAMES = {
    "optimized": "ours, convnext.optimize",
    "eager": "ours, plain torch",
    "timm:channels_last": "timm, channels-last",
}


def main() -> int:
    """Measure, keep, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each turn")
    parser.add_argument(
        "--quick", action="store_true", help="two points an axis, one round; nothing is kept in results/"
    )
    args = parser.parse_args()
    threads, started = torch.get_num_threads(), time.monotonic()
    base = Settings(network_of(args.model), batches=BATCHES, size_px=SIDE_PX, threads=threads)
    runs = list(settings_of(base, quick=args.quick))
    if args.quick:
        args.rounds, args.seconds = 1, 0.05
    folder = Path(tempfile.mkdtemp(prefix="growth-")) if args.quick else RESULTS
    expected = sum(expected_s(jobs(each), args.rounds, args.seconds) for each in runs)
    tell(f"{len(runs)} runs, at least {expected / 60:.0f} min.")
    rows: list[dict[str, Any]] = []
    for each in runs:
        tell(settings_text(each))
        measured = measure(
            jobs(each), rounds=args.rounds, seconds=args.seconds, info=tell, advance=lambda note, done, total: None
        )
        found = rows_of(measured)
        rows += found
        with (folder / "growth.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        for row in found[1:]:
            share = f"{row['gemm_share']:.0%} of GEMM" if row["gemm_share"] else ""
            print(f"{row['batch']:>3} x {row['size_px']:>3} px  {row['threads']:>2} threads  {row['name']:<18} "
                  f"{row['images_per_s']:8.2f}/s  {share}", flush=True)  # fmt: skip
        if measured.stopped:
            break
    title = f"ConvNeXt {args.model}, fp32 inference, {rows[0]['processor']}"
    plots = panels(rows, batch=BATCH, size_px=SIDE_PX, threads=threads)
    (folder / "growth.svg").write_text(chart(plots, NAMES, title) + "\n", encoding="utf-8")
    tell(f"{time.monotonic() - started:.0f} s in all: {folder / 'growth.svg'}")
    return 130 if measured.stopped else 0


def settings_of(base: Settings, *, quick: bool) -> Iterator[Settings]:
    """One benchmark each: all batches, then every other side, then every other number of threads."""
    yield replace(base, batches=(1, BATCH)) if quick else base
    for side in SIDES_PX[:1] if quick else SIDES_PX:
        if side != base.size_px:
            yield replace(base, batches=(BATCH,), size_px=side)
    for threads in (1,) if quick else [2**i for i in range(10)]:
        if threads < base.threads:
            yield replace(base, batches=(BATCH,), threads=threads)


def jobs(settings: Settings) -> list[Job]:
    """The contenders and the machine's matmuls, which are no matter of copying here."""
    made = jobs_of(settings, backends=("optimized", "eager"), peers=("timm:channels_last",))
    return [job for job in made if job.library != "copy"]


def tell(line: str) -> None:
    """To the person who waits."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
