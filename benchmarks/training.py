"""Training steps on this machine: forward, loss, backward, AdamW; time and peak memory beside timm, torchvision, transformers.

    python benchmarks/training.py [tiny] [v2_tiny] [atto] [v2_atto] [--batch 8] [--dtype fp32,bf16] [--rounds 3] [--seconds 1]

bf16 is autocast with weights in float32, for everyone. `--compiled` adds compiled forms, `--threads` says on how many threads.

Figures are lines of results/training.jsonl, as `convnext benchmark --mode training` measures them.
"""

import argparse
import sys
import time
from itertools import product
from pathlib import Path

from convnext.cli import main as convnext

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """One benchmark a model, appended to results/training.jsonl and drawn beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["tiny", "v2_tiny", "atto", "v2_atto"])
    parser.add_argument("--batch", default="8")
    parser.add_argument("--dtype", default="fp32,bf16", help="one or several, with commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", help="(torch's number)")
    parser.add_argument("--rounds", default="3")
    parser.add_argument("--seconds", default="1")
    parser.add_argument("--compiled", action="store_true", help="compiled forms too: a minute more for each")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="for lines and drawings (results/)")
    args = parser.parse_args()
    more = ",compiled" if args.compiled else ""
    peers = "timm,timm:channels_last,torchvision,transformers" + (",timm:compiled" if args.compiled else "")
    started = time.monotonic()
    for model, dtype in product(args.models, args.dtype.split(",")):
        arguments = ["benchmark", "--mode", "training", "--model", model, "--batch", args.batch, "--dtype", dtype]
        arguments += ["--device", args.device, "--rounds", args.rounds, "--seconds", args.seconds]
        arguments += ["--backends", "eager,fused" + more, "--peers", peers]
        arguments += ["--threads", args.threads] if args.threads else []
        plot = args.folder / f"training_{model}_{dtype}.svg"
        status = convnext([*arguments, "--out", str(args.folder / "training.jsonl"), "--plot", str(plot)])
        if status:
            return status
    print(f"{time.monotonic() - started:.0f} s in all.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
