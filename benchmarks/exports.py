"""What each target of export makes of a trained run: its scores on the held-out images, beside those of torch.

    python benchmarks/exports.py RUN DATA [--to onnx openvino] [--half]

A line of results/exports.jsonl for each target: scores of the run and of the file, largest difference of a logit on images of
the data, size. OpenVINO and ONNX Runtime compute in float32.
"""

import argparse
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

import convnext
from convnext.cores import cores
from convnext.deploy.exported.opened import files_of
from convnext.deploy.forms import table
from convnext.engine.machine import processor

RESULTS = Path(__file__).parent / "results" / "exports.jsonl"
SCORES = ("top1", "loss", "miou", "pixel_accuracy", "box_ap", "mask_ap")


def main() -> None:
    """Export, score both, write a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--to", nargs="+", choices=[form.name for form in table.FORMS if form.opener], default=["onnx"])
    parser.add_argument("--half", action="store_true")
    args = parser.parse_args()
    predictor = convnext.load(args.run, device="cpu")
    plain = predictor.evaluate(args.data).to_dict()
    for to in args.to:
        with tempfile.TemporaryDirectory() as folder:
            form = next(form for form in table.FORMS if form.name == to)
            out = Path(folder) / f"model{form.suffix}"
            done = convnext.export(args.run, to, out, half=args.half, compare_on=args.data)
            found = convnext.load(out).evaluate(args.data).to_dict()
            row = {
                "command": " ".join(["benchmarks/exports.py", *(Path(word).name for word in sys.argv[1:])]),
                "task": predictor.recipe.task,
                "model": predictor.recipe.model.name,
                "to": to,
                "precision": done.precision,
                "n": found["n"],
                "torch": {name: plain[name] for name in SCORES if name in plain},
                "file": {name: found[name] for name in SCORES if name in found},
                **{name: value for name, value in done.to_dict().items() if name.startswith("max_")},
                "megabytes": round(sum(file.stat().st_size for file in files_of(out)) / 1e6, 2),
                "compared": done.compared,
                "processor": processor(),
                "cores": cores(),
                "seed": predictor.recipe.seed,
                "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino")},
                "python": platform.python_version(),
                "threads": torch.get_num_threads(),
            }
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
