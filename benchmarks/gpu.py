"""The GPU kernels on one NVIDIA GPU: right, how fast, and how near to what it can do.

    python benchmarks/gpu.py                                   # what fits into nine minutes, what matters most first
    python benchmarks/gpu.py --minutes 60 --out gpu.jsonl      # everything; most of it is torch.compile
    python benchmarks/gpu.py --parts checks kernels            # or: runs inference training sweep
    python benchmarks/gpu.py --dry-run                         # the logic alone, tiny, on the CPU; no figures

Every step runs in a process of its own, so that a kernel that takes its process down is named and the rest goes on. A step
has half of the time that is left; what is not reached is a row too. A card is lent for ten minutes a command: give the next
one the parts that are missing.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results" / "gpu.jsonl"
PARTS = ("runs", "inference", "training", "kernels", "checks", "sweep")
LEAST = 0.25  # minutes that a step needs to come to a row
CHECKED = ("norm", "gelu", "residual", "gelu_backward", "mlp_backward", "block", "fp8")
Row = dict[str, Any]


def main() -> None:
    """Plan the steps, run each in a process, keep and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", choices=("tiny", "base"), default=("tiny", "base"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=9, help="for everything (9)")
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
    rows, about = [], {} if args.dry_run else machine()
    for row in visit(args, time.monotonic):
        rows.append(row)
        print(line(row), flush=True)
        if not args.dry_run:
            args.out.parent.mkdir(exist_ok=True)
            with args.out.open("a") as file:
                file.write(json.dumps(row | about) + "\n")
    print(summary(rows))
    if args.dry_run:
        print("DRY RUN: Triton's interpreter on the CPU, tiny networks; no figure means anything")


def visit(args: argparse.Namespace, clock: Callable[[], float]) -> Iterator[Row]:
    """The rows of all steps, and one for each step that the time does not reach."""
    end = clock() + 60 * args.minutes
    for name in plan(args):
        left = (end - clock()) / 60
        if left < LEAST:
            yield {"kind": "skipped", "what": name}
        elif name.startswith("compile "):
            with ThreadPoolExecutor(args.jobs) as pool:  # in processes side by side, while nothing is timed
                found = pool.map(partial(rows_of, args=args, minutes=left / 3), compilations(name))
                yield from chain.from_iterable(found)
        else:
            yield from run(name, args, left / 2)


def plan(args: argparse.Namespace) -> list[str]:
    """The steps, what matters most first: what users run, the smaller network beside its rivals, its kernels."""
    found = [f"runs {args.models[0]}" for _ in range("runs" in args.parts)]
    for model in args.models:
        for part in ("inference", "training"):
            if part in args.parts:
                found += [f"compile {part} {model}"] if not args.dry_run else []
                found.append(f"networks {part} {model}")
        found += [f"kernels {model}"] if "kernels" in args.parts else []
        if model == args.models[0]:  # `make test-gpu` has asked most of it before
            found += [f"checks {name}" for name in CHECKED if "checks" in args.parts]
    return found + [f"sweep {model}" for model in args.models[:1] if "sweep" in args.parts]


def compilations(name: str) -> list[str]:
    """What torch.compile is asked for in the step after `name`, each a process of its own."""
    from gpu_networks import CONTESTANTS

    _, part, model = name.split()
    return [f"precompile {part} {model} {each}" for each in CONTESTANTS[part] if each.endswith("+compile")]


def step(args: argparse.Namespace) -> None:
    """One step, in a process of its own: a line a row."""
    kind, *arguments = args.step.split()
    for row in steps()[kind](*arguments, args):
        print(json.dumps(row), flush=True)


def steps() -> dict[str, Callable[..., Iterator[Row]]]:
    """What makes the rows of each kind of step, from the words after it and the arguments."""
    import gpu_kernels
    import gpu_networks
    import gpu_runs

    found = {"checks": gpu_kernels.checks, "kernels": gpu_kernels.kernels, "networks": gpu_networks.networks}
    return found | {"sweep": gpu_networks.sweep, "precompile": gpu_networks.precompile, "runs": gpu_runs.runs}


def rows_of(name: str, args: argparse.Namespace, minutes: float) -> list[Row]:
    """All rows of one step."""
    return list(run(name, args, minutes))


def run(name: str, args: argparse.Namespace, minutes: float) -> Iterator[Row]:
    """The rows of one step; whatever takes its process down is named, and the step runs again without it."""
    without: list[str] = []
    seen: set[str] = set()
    end = time.monotonic() + 60 * minutes
    while True:
        fatal = None
        for row in process(name, without, args, (end - time.monotonic()) / 60):
            fatal = row["what"] if row.get("fatal") else fatal
            key = json.dumps([row["kind"], row["what"], row.get("case")])
            if key not in seen or row["kind"] not in ("check", "kernel", "limits", "logits"):
                yield row
            seen.add(key)
        if fatal is None or fatal in without or end - time.monotonic() < 60 * LEAST:
            return
        without.append(fatal)


def process(name: str, without: list[str], args: argparse.Namespace, minutes: float) -> Iterator[Row]:
    """The rows as a process prints them, and one more if it dies or takes longer than `minutes`."""
    command = [sys.executable, "-W", "ignore", __file__, "--step", name, "--rounds", str(args.rounds)]
    command += ["--minutes", str(minutes), *(["--autotune"] if args.autotune else [])]
    command += ["--without", *without] if without else []
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if args.dry_run else {})
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        late = threading.Event()
        watch = threading.Timer(60 * minutes, lambda: (late.set(), child.kill()))
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
            reason = f"stopped after {minutes:.1f} minutes" if late.is_set() else said[-1][:300]
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
    if row["kind"] == "skipped":
        return f"{head} NOT REACHED"
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
