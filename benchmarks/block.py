"""The cost image of a block on the CPU: where the plain one spends its time, and the fused one beside it, by stage.

    python benchmarks/block.py --model tiny --batch 8 --threads 2

For every stage of a network: the plain block's parts (channels last, float32), the plain and the fused block for inference
and for a training step, in turn, and the machine's limits from the same run: torch's matmul of the stage's own
shapes, and multiply-adds out of the first cache. The figures are the fastest of the rounds; a line of JSON goes to
benchmarks/results/block.jsonl. Nothing is trained and no data are needed.
"""

import argparse
import copy
import ctypes
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.config import ConvNeXtConfig
from convnext.engine.environment import environment
from convnext.kernels import cpu
from convnext.kernels.block import folded
from convnext.kernels.build import compiled
from convnext.kernels.cpu.library import longs, pointer
from convnext.kernels.dispatch import without_compiled
from convnext.models.convnext import Block
from convnext.models.fused import fuse, weights_of
from convnext.recipes.architectures import architecture

RESULTS = Path(__file__).parent / "results" / "block.jsonl"


def fastest(runs: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Milliseconds of each, the least of many rounds in turn, so that a disturbance meets all alike."""
    best = dict.fromkeys(runs, float("inf"))
    end = time.perf_counter() + seconds
    for run in runs.values():
        run()
    rounds = 0
    while time.perf_counter() < end or rounds < 3:
        rounds += 1
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
    return best


def parts(block: Block, layer: cpu.PackedBlock, x: Tensor) -> dict[str, Callable[[], object]]:
    """One function for each thing that is timed; x is (N, C, H, W) in channels last."""
    rows = x.permute(0, 2, 3, 1)
    out, wide = torch.empty_like(rows), torch.randn(*rows.shape[:3], layer.hidden)
    library = compiled().library
    assert library is not None
    described, alone = layer.struct(), cpu.PackedLayers([layer])
    n, height, width, _ = rows.shape
    fused = copy.deepcopy(block)
    assert fuse(fused)
    gradient = torch.randn_like(x)

    def step(model: Block) -> None:
        model.zero_grad()
        model(x.detach().requires_grad_()).backward(gradient)

    def inference(run: Callable[[], object]) -> Callable[[], object]:
        return torch.no_grad()(run)

    return {
        "plain depthwise": inference(lambda: block.spatial(x)),
        "plain norm": inference(lambda: block.norm(rows)),
        "plain expand": inference(lambda: block.expand(rows)),
        "plain gelu": inference(lambda: F.gelu(wide)),
        "plain project": inference(lambda: block.project(wide)),
        "plain scale and residual": inference(lambda: x + (block.gamma * rows).permute(0, 3, 1, 2)),
        "plain block": inference(lambda: block(x)),
        "fused depthwise and norm": lambda: library.cn_spatial(
            ctypes.byref(described), pointer(rows), *longs(n, height, width), torch.get_num_threads()
        ),
        "fused block": lambda: alone(rows, out=[out]),
        "plain step": lambda: step(block),
        "fused step": lambda: step(fused),
    }


def stage(width: int, side: int, batch: int, config: ConvNeXtConfig, seconds: float) -> dict[str, float]:
    """Milliseconds of the parts of one block of (batch, width, side, side), and the rates that they amount to."""
    block = Block(width, kernel=config.kernel, layer_scale=1.0, grn=False, drop_path=0.0)
    with torch.no_grad():
        layer = cpu.PackedBlock(folded(weights_of(block)))
    x = torch.randn(batch, width, side, side).to(memory_format=torch.channels_last)
    found = fastest(parts(block, layer, x), seconds)
    gflop = 16 * width * width * x[:, 0].numel() / 1e9  # the two matmuls
    return found | {
        "width": width,
        "side": side,
        "torch matmul GFLOP/s": gflop / (found["plain expand"] + found["plain project"]) * 1e3,
        "fused block GFLOP/s": gflop / found["fused block"] * 1e3,
        "speed-up, inference": found["plain block"] / found["fused block"],
        "speed-up, step": found["plain step"] / found["fused step"],
    }


def table(stages: list[dict[str, float]]) -> str:
    """One line a figure, one column a stage."""
    lines = ["".join([f"{'ms':28s}", *(f"{int(s['width']):>10d}" for s in stages)])]
    lines += ["".join([f"{name:28s}", *(f"{s[name]:10.2f}" for s in stages)]) for name in stages[0] if name != "width"]
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, append the line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="tiny", help="a name of `convnext models`")
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=6.0, help="for each stage")
    args = parser.parse_args()
    if reason := without_compiled():
        raise SystemExit(f"the compiled kernels are unavailable: {reason}")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = architecture(args.model)
    limit = cpu.matmul_rate()
    stages = [
        stage(width, args.size // (config.patch * 2**i), args.batch, config, args.seconds)
        for i, width in enumerate(config.widths)
    ]
    limit = max(limit, cpu.matmul_rate())
    total = {
        kind: sum(depth * found[kind] for depth, found in zip(config.depths, stages, strict=True))
        for kind in ("plain block", "fused block", "plain step", "fused step")
    }
    print(table(stages))
    print(f"all blocks of {args.model}, ms a batch of {args.batch}:", {k: round(v, 1) for k, v in total.items()})
    print(f"multiply-adds out of the first cache: {limit:.0f} GFLOP/s on {args.threads} threads")
    line = {
        "model": args.model,
        "batch": args.batch,
        "size_px": args.size,
        "threads": args.threads,
        "first_cache_gflops": round(limit, 1),
        "total_ms": {k: round(v, 2) for k, v in total.items()},
        "stages": [{k: round(v, 3) for k, v in found.items()} for found in stages],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | environment(torch.device("cpu"))) + "\n")


if __name__ == "__main__":
    main()
