"""The GPU kernels on one NVIDIA GPU: right, how fast, and how near to what it can do.

    python benchmarks/gpu.py                                   # everything; half an hour, most of it torch.compile
    python benchmarks/gpu.py --parts checks kernels            # or: runs inference training sweep
    python benchmarks/gpu.py --dry-run                         # the logic alone, tiny, on the CPU; no figures

Every step runs in a process of its own, so that a kernel that takes its process down is named and the rest goes on.
Contestants of a network run in turn (A B A B ...), ratios are taken pair by pair within a round, and the GPU's own
bf16 matmul rate and copy bandwidth are measured in the process that they are compared in. One line a figure goes to
benchmarks/results/gpu.jsonl, with machine and versions.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results" / "gpu.jsonl"
PARTS = ("checks", "runs", "inference", "training", "kernels", "sweep")
CHECKED = ("norm", "gelu", "residual", "gelu_backward", "block", "fp8")
Row = dict[str, Any]


def main() -> None:
    """Plan the steps, run each in a process, keep and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", choices=("tiny", "base"), default=("tiny", "base"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=20, help="longest time for one step")
    parser.add_argument("--jobs", type=int, default=8, help="processes that compile side by side beforehand")
    parser.add_argument("--autotune", action="store_true", help="timm with max-autotune as well; minutes of compiling")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--without", nargs="*", default=(), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        step(args)
        return
    if not args.dry_run and not torch.cuda.is_available():
        sys.exit("No CUDA device here. `--dry-run` tries the logic on the CPU.")
    rows = []
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda name: list(process(name, [], args)), compilations(args)))
    for name in plan(args):
        for row in run(name, args):
            rows.append(row)
            print(line(row), flush=True)
            if not args.dry_run:
                args.out.parent.mkdir(exist_ok=True)
                with args.out.open("a") as file:
                    file.write(json.dumps(row | machine()) + "\n")
    print(summary(rows))
    if args.dry_run:
        print("DRY RUN: Triton's interpreter on the CPU, tiny networks; no figure means anything")


def plan(args: argparse.Namespace) -> list[str]:
    """The steps, what matters most first."""
    steps = [f"checks {name}" for name in CHECKED if "checks" in args.parts]
    steps += [f"runs {args.models[0]}" for _ in range("runs" in args.parts)]
    for model in args.models:
        steps += [f"networks {part} {model}" for part in ("inference", "training") if part in args.parts]
    steps += [f"kernels {model}" for model in args.models if "kernels" in args.parts]
    return steps + [f"sweep {model}" for model in args.models[:1] if "sweep" in args.parts]


def compilations(args: argparse.Namespace) -> list[str]:
    """What torch.compile is asked for later, each a process of its own, side by side, before anything is timed."""
    from gpu_networks import CONTESTANTS

    return [
        f"precompile {part} {model} {name}"
        for model in args.models
        for part in ("inference", "training")
        if part in args.parts and not args.dry_run
        for name in CONTESTANTS[part]
        if name.endswith("+compile")
    ]


def step(args: argparse.Namespace) -> None:
    """One step, in a process of its own: a line a row."""
    import gpu_kernels
    import gpu_networks
    import gpu_runs

    kind, *arguments = args.step.split()
    steps = {"checks": gpu_kernels.checks, "kernels": gpu_kernels.kernels, "networks": gpu_networks.networks}
    steps |= {"sweep": gpu_networks.sweep, "precompile": gpu_networks.precompile, "runs": gpu_runs.runs}
    for row in steps[kind](*arguments, args):
        print(json.dumps(row), flush=True)


def run(name: str, args: argparse.Namespace) -> Iterator[Row]:
    """The rows of one step; whatever takes its process down is named, and the step runs again without it."""
    without: list[str] = []
    seen: set[str] = set()
    while True:
        fatal = None
        for row in process(name, without, args):
            fatal = row["what"] if row.get("fatal") else fatal
            key = json.dumps([row["kind"], row["what"], row.get("case")])
            if key not in seen or row["kind"] not in ("check", "kernel", "limits", "logits"):
                yield row
            seen.add(key)
        if fatal is None or fatal in without:
            return
        without.append(fatal)


def process(name: str, without: list[str], args: argparse.Namespace) -> Iterator[Row]:
    """The rows as a process prints them, and one more if it dies or takes too long."""
    command = [sys.executable, "-W", "ignore", __file__, "--step", name, "--rounds", str(args.rounds)]
    command += ["--minutes", str(args.minutes), *(["--autotune"] if args.autotune else [])]
    command += ["--without", *without] if without else []
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if args.dry_run else {})
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        late = threading.Event()
        watch = threading.Timer(60 * args.minutes, lambda: (late.set(), child.kill()))
        watch.start()
        assert child.stdout is not None
        for text in child.stdout:
            if text.startswith("{"):
                yield json.loads(text)
        child.wait()
        watch.cancel()
        if child.returncode:
            errors.seek(0)
            said = errors.read().strip().splitlines() or [f"died with {child.returncode}"]
            reason = f"stopped after {args.minutes:g} minutes" if late.is_set() else said[-1][:300]
            yield {"kind": "failure", "what": name, "error": reason}


def machine() -> Row:
    """What every line is signed with."""
    import torchvision
    import triton

    found = torch.cuda.get_device_properties(0)
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        commit = ""
    return {
        "gpu": found.name, "capability": f"{found.major}.{found.minor}", "memory_gb": round(found.total_memory / 2**30),
        "torch": torch.__version__, "triton": triton.__version__, "cuda": torch.version.cuda,
        "torchvision": torchvision.__version__, "python": sys.version.split()[0], "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def line(row: Row) -> str:
    """A row for reading."""
    head = f"{row['kind']:<10} {row['what']:<46}"
    if row["kind"] == "failure":
        return f"{head} FAILED {row['error']}"
    if row["kind"] == "check":
        return f"{head} {row['case']:<28} {'ok' if row['ok'] else 'WRONG'} {max(row['errors'].values()):.1e}"
    numbers = [f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, float)]
    return f"{head} {'  '.join(numbers)}"


def summary(rows: list[Row]) -> str:
    """What failed, what was wrong, each kernel beside its limits, and the ratios."""
    wrong = [row for row in rows if row["kind"] == "failure" or (row["kind"] == "check" and not row["ok"])]
    checked = sum(row["kind"] == "check" for row in rows)
    lines = ["", f"{checked} checks, {len(wrong)} wrong or failed", *(line(row) for row in wrong)]
    return "\n".join([*lines, *(line(row) for row in rows if row["kind"] in ("kernel", "ratio"))])


if __name__ == "__main__":
    main()
