"""Inference on this machine: our network beside every peer, batch 1 and 8, as `convnext benchmark` measures it.

    python benchmarks/inference.py [tiny] [atto] [base] [--dtype fp32] [--device cpu] [--rounds 3] [--seconds 0.5]

Each figure of results/inference.jsonl is a line; the line {"kind": "machine"} before them says where and when. ConvNeXt-T
meets every contender; atto and B meet those that were fastest there. With --full everyone meets everyone.
"""

import argparse
import sys
import time
from pathlib import Path

from convnext.cli import main as convnext

RESULTS = Path(__file__).parent / "results"
SHORT = {"backends": "eager,optimized,onnxruntime,openvino", "peers": "timm:channels_last,torchvision"}
ALL = {
    "backends": "eager,optimized,compiled,onnxruntime,openvino",
    "peers": "timm,timm:channels_last,timm:compiled,torchvision,transformers",
    "others": "swin_tiny,resnet50",
}


def main() -> int:
    """One benchmark a model, appended to results/inference.jsonl and drawn beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["tiny", "atto", "base"])
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", default="3")
    parser.add_argument("--seconds", default="0.5")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="for lines and drawings (results/)")
    args = parser.parse_args()
    started = time.monotonic()
    for model in args.models:
        arguments = ["benchmark", "--model", model, "--batch", "1,8", "--dtype", args.dtype, "--device", args.device]
        arguments += ["--rounds", args.rounds, "--seconds", args.seconds]
        for flag, names in (ALL if args.full or model == "tiny" else SHORT).items():
            arguments += [f"--{flag}", names]
        plot = args.folder / f"inference_{model}_{args.dtype}.svg"
        status = convnext([*arguments, "--out", str(args.folder / "inference.jsonl"), "--plot", str(plot)])
        if status:
            return status
    print(f"{time.monotonic() - started:.0f} s in all.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
