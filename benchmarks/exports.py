"""What each target of export makes of a trained run: its answers on held-out images beside those of torch.

    python benchmarks/exports.py RUN DATA [--to onnx openvino] [--half] [--images 500] [--seed 0] [--compare-on PATH]

A line of results/exports.jsonl for each target, with `--half` also for its file with weights in 16 bits. Of a classifier so
many random held-out images are given to the graph as they are decoded, which resizes them itself: top-1 of both, images of
the same first class, the largest difference of a logit. Of a detector and a segmenter the scores of run and file on all
held-out images, and the largest difference that the export itself finds on some of the images of --compare-on: of a
detector how many objects are the same, and how far their edges and scores lie apart; of a segmenter that of a logit.
OpenVINO and ONNX Runtime compute in float32, and so does the run beside them.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convnext
from convnext.config import override
from convnext.cores import cores
from convnext.data.decode import decode
from convnext.data.evaluation import eval_transform
from convnext.data.opening import open_labelled, recognise
from convnext.deploy.export.compared import answers
from convnext.deploy.exported.opened import files_of, open_exported
from convnext.deploy.forms import table
from convnext.engine.machine import processor

RESULTS = Path(__file__).parent / "results" / "exports.jsonl"
SCORES = ("loss", "miou", "pixel_accuracy", "box_ap", "mask_ap")
APART = ("compared", "objects", "same", "max_edge_px", "max_score_difference", "max_logit_difference", "max_logit")
Graph = Callable[[np.ndarray], np.ndarray]  # (1, H, W, C) -> (1, K) logits


def main() -> None:
    """Export, ask both, write a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--to", nargs="+", choices=table.names(), default=["onnx"])
    parser.add_argument("--half", action="store_true", help="also with weights in 16 bits, where a target has them")
    parser.add_argument("--images", type=int, default=500, help="held-out images of a classifier (500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare-on", help="images on which a dense export is compared (made up)")
    args = parser.parse_args()
    run: Any = convnext.load(args.run, device="cpu", plain=True)
    run = replace(run, recipe=override(run.recipe, {"precision": "fp32"}))
    known: Any = Images(run, args.data, args.images, args.seed) if run.recipe.task == "classification" else None
    scored = None if known else run.evaluate(args.data).to_dict()
    wanted = [(form, half) for form in table.FORMS for half in (False, True) if form.name in args.to]
    for form, half in [(form, half) for form, half in wanted if not half or (args.half and form.half)]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / f"model{form.suffix}"
            done = convnext.export(args.run, form.name, out, half=half, compare_on=args.compare_on)  # type: ignore[arg-type]
            if known:
                found = known.beside(graph_of(out, form))
            else:
                file = convnext.load(out).evaluate(args.data).to_dict()
                apart = {name: value for name, value in done.to_dict().items() if name in APART}
                found = {"n": file["n"], "torch": chosen(scored), "file": chosen(file), **apart}
            row = {
                "command": " ".join(["benchmarks/exports.py", *(Path(word).name for word in sys.argv[1:])]),
                "task": run.recipe.task,
                "model": run.recipe.model.name,
                "head": getattr(getattr(run.recipe, "head", None), "kind", None),
                "to": form.name,
                "precision": done.precision,
                **found,
                "megabytes": round(sum(each.stat().st_size for each in files_of(out)) / 1e6, 2),
                "processor": processor(),
                "cores": cores(),
                "seed": args.seed,
                "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino")},
                "python": platform.python_version(),
                "threads": torch.get_num_threads(),
            }
        with RESULTS.open("a") as results:
            results.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def chosen(scores: Any) -> dict[str, float]:
    """Those that are compared."""
    return {name: scores[name] for name in SCORES if scores.get(name) is not None}


def graph_of(out: Path, form: table.Form) -> Graph:
    """Decoded images to logits, by what runs the file elsewhere."""
    if form.opener:
        exported = open_exported(out, threads=torch.get_num_threads())
        return lambda images: exported.run(images, (table.LOGITS,))[0]
    program = torch.export.load(out).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(program(torch.from_numpy(images))[table.LOGITS])

    return run


class Images:
    """Held-out images of a classifier, their labels, and what the run says of them."""

    def __init__(self, run: Any, data: str, count: int, seed: int):
        dataset = open_labelled(recognise(data), classes=run.classes, split="val")
        places = np.random.default_rng(seed).permutation(len(dataset.entries))[:count].tolist()
        config = run.recipe.input
        self.pixels: Sequence[np.ndarray] = [
            decode(dataset.store.read(dataset.entries[place].path), channels=len(config.mean)) for place in places
        ]
        self.labels = np.array([dataset.entries[place].label for place in places])
        self.logits = np.concatenate([answers(run, eval_transform(each, config)[None]) for each in self.pixels])

    def beside(self, graph: Graph) -> dict[str, Any]:
        """The figures of a file."""
        found = np.concatenate([graph(each[None]) for each in self.pixels])
        first, other = self.logits.argmax(1), found.argmax(1)
        return {
            "n": len(self.pixels),
            "torch": {"top1": float((first == self.labels).mean())},
            "file": {"top1": float((other == self.labels).mean())},
            "same_first_class": int((first == other).sum()),
            "max_logit_difference": float(np.abs(found - self.logits).max()),
            "max_logit": float(np.abs(self.logits).max()),
        }


if __name__ == "__main__":
    main()
