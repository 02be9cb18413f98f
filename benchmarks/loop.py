"""What the training loop costs: images per second of `convnext train` beside a bare forward, backward and step.

    python benchmarks/loop.py DATA [--size 128] [--batch 64] [--steps 60] [--rounds 3] [--precision fp32]

The bare loop has one batch in memory, torch's own AdamW, and nothing else: no reading, no augmentation, no clipping, no
EMA weights, no log. Everything runs alternately, each in a process of its own, and only ratios are worth comparing.
`bare_timm` is timm's network of the same size (its stem sees the same patches).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from convnext.config import override
from convnext.engine.memory import keep_freed_memory, want_large_pages
from convnext.models.build import build_model
from convnext.recipes import recipe

RESULTS = Path(__file__).parent / "results" / "loop.jsonl"
WARM = 5  # steps that are not counted


def main() -> None:
    """Run every contestant `rounds` times in turn and write one line with the medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        print(bare(args))
        return
    rates: dict[str, list[float]] = {"loop": [], "bare": [], "bare_kept_memory": [], "bare_timm": []}
    for _ in range(args.rounds):
        for name, found in rates.items():
            found.append(loop(args) if name == "loop" else alone(name))
            print(f"{name:<18} {found[-1]:7.1f} images/s", file=sys.stderr)
    record(args, rates)


def loop(args: argparse.Namespace) -> float:
    """Median images per second of an ordinary training run."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ["train", str(args.data), "--out", out, "--batch", str(args.batch), "--size", str(args.size)]
        arguments += ["--model.patch", "4", "--precision", args.precision, "--optim.name", "adamw"]
        process = subprocess.Popen(
            [sys.executable, "-m", "convnext", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        timings = Path(out) / "timings.jsonl"
        while process.poll() is None and last_step(timings) < args.steps + WARM:
            time.sleep(0.5)
        process.kill()
        process.wait()
        rows = [json.loads(line) for line in timings.read_text().splitlines()]
        first = rows[0]["step"]
        return args.batch * (rows[-1]["step"] - first) / sum(row["seconds"] for row in rows[1:])


def last_step(timings: Path) -> int:
    """The step of the last whole line."""
    lines = timings.read_text().split("\n")[:-1] if timings.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def alone(name: str) -> float:
    """A bare loop in a fresh process."""
    arguments = [sys.executable, *sys.argv, "--contestant", name]
    return float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def bare(args: argparse.Namespace) -> float:
    """Images per second of forward, backward and step on one batch in memory."""
    if args.contestant == "bare_kept_memory":
        want_large_pages()
        keep_freed_memory()
    chosen = recipe("small", "atto", images=10_000, image_px=args.size, classes=10)
    if args.contestant == "bare_timm":
        import timm

        model = timm.create_model("convnext_atto_ols", num_classes=10)
    else:
        model = build_model(override(chosen, {"model.patch": 4}).model)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    x = torch.randn(args.batch, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (args.batch,))
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16")
    for step in range(args.steps + WARM):
        if step == WARM:
            started = time.perf_counter()
        with cast:
            logits = model(x)
        F.cross_entropy(logits.float(), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return args.batch * args.steps / (time.perf_counter() - started)


def record(args: argparse.Namespace, rates: dict[str, list[float]]) -> None:
    """Print and keep the medians, and the loop as a ratio to each bare one of the same round."""
    ratios = {
        f"loop_to_{name}": round(statistics.median(a / b for a, b in zip(rates["loop"], rates[name], strict=True)), 3)
        for name in rates
        if name != "loop"
    }
    row = {
        "size_px": args.size,
        "batch": args.batch,
        "precision": args.precision,
        "rounds": args.rounds,
        **{name: round(statistics.median(found), 1) for name, found in rates.items()},
        **ratios,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
