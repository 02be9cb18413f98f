"""What a training step costs on the CPU, in time and memory: our network plain and fused, and timm's of the same size.

    python benchmarks/step.py --model tiny --batch 8 --rounds 5

Forward, cross-entropy, backward and torch's AdamW on one batch of noise, float32, channels last. The contestants live in
processes of their own and take their steps in turn; a figure is the fastest step of each, a ratio is the median over the
rounds. Memory is what the process holds at its highest, beyond what it held when the imports were done.
A line of JSON goes to benchmarks/results/step.jsonl.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from convnext.engine.environment import environment
from convnext.models.build import build_model
from convnext.models.fused import fuse
from convnext.recipes.architectures import architecture

RESULTS = Path(__file__).parent / "results" / "step.jsonl"
CONTESTANTS = ("fused", "plain", "timm")


def build(contestant: str, name: str) -> nn.Module:
    """The network of a contestant, with its first weights."""
    torch.manual_seed(0)
    if contestant == "timm":
        from timm import create_model  # costs seconds

        return create_model(f"convnext_{name}")
    model = build_model(architecture(name))
    if contestant == "fused" and not fuse(model):
        raise SystemExit("the compiled kernels are unavailable: `convnext doctor` says why")
    return model


def stepper(model: nn.Module, batch: int, size: int) -> Callable[[], None]:
    """A function that takes one step."""
    model.train().to(memory_format=torch.channels_last)
    pictures = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 1000
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(pictures), labels).backward()
        optimizer.step()

    return step


def held_mb() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def contestant(args: argparse.Namespace) -> None:
    """Answer each line of the standard input with one step's seconds and the memory so far."""
    torch.set_num_threads(args.threads)
    if args.contestant == "timm":
        import timm  # noqa: F401  # before the memory is read
    before = held_mb()
    step = stepper(build(args.contestant, args.model), args.batch, args.size)
    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, held_mb() - before, flush=True)


def main() -> None:
    """Let the contestants take turns; print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="tiny", help="a V1 name that timm has too: atto, tiny, base")
    parser.add_argument("--batch", type=int, default=8, help="pictures")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        return contestant(args)
    words = [sys.executable, __file__, "--model", args.model, "--batch", str(args.batch), "--size", str(args.size)]
    words += ["--threads", str(args.threads), "--contestant"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = {name: subprocess.Popen([*words, name], **pipes) for name in CONTESTANTS}
    found: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    memory_mb: dict[str, float] = {}
    for process in running.values():
        process.stdout.readline()
    for _ in range(args.rounds):
        for name, process in running.items():
            process.stdin.write("\n")
            process.stdin.flush()
            seconds, memory_mb[name] = map(float, process.stdout.readline().split())
            found[name].append(seconds)
    for process in running.values():
        process.communicate()
    faster = {
        name: statistics.median(a / b for a, b in zip(found[name], found["fused"], strict=True)) for name in found
    }
    line = {
        **{"model": args.model, "batch": args.batch, "size_px": args.size, "rounds": args.rounds},
        "fastest_step_s": {name: round(min(times), 4) for name, times in found.items()},
        "fused_is_faster_than": {name: round(ratio, 3) for name, ratio in faster.items() if name != "fused"},
        "memory_mb": {name: round(mb) for name, mb in memory_mb.items()},
        "memory_of_timm": round(memory_mb["fused"] / memory_mb["timm"], 3),
    }
    print(json.dumps(line, indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | environment(torch.device("cpu"))) + "\n")


if __name__ == "__main__":
    main()
