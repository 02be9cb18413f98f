"""Eight-bit ConvNeXt on the processor: ours as `convnext export --int8` makes it, beside timm's through the same tools.

    python benchmarks/int8.py [--model tiny] [--batch 8] [--size 224] [--rounds 9] [--also onnxruntime]
    python benchmarks/int8.py --run RUN --data DATA          # and what int8 costs a trained network

The peer is timm's network with the same weights, converted by OpenVINO and quantized by nncf with its defaults. All run
in one process, in turn (A B A B), and only ratios are worth comparing: each is the median over the rounds.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import nncf
import numpy as np
import openvino
import timm
import torch
from torch import nn

import convnext
from convnext.deploy import graph, int8, signal_stack
from convnext.deploy.export import onnx as onnx_files
from convnext.deploy.export import openvino as openvino_files
from convnext.deploy.export.run import Options, export
from convnext.deploy.exported.opened import Pixels, open_exported
from convnext.deploy.forms import table
from convnext.deploy.forms.openvino import openvino_run
from convnext.engine.machine import processor

RESULTS = Path(__file__).parent / "results" / "int8.jsonl"
Network = Callable[[Pixels], Pixels]  # normalised images -> logits
CALIBRATION = 16  # images; the speed does not depend on them
LABELS = {
    "timm_fp32": "timm through OpenVINO, float32",
    "timm_int8": "timm through OpenVINO, nncf's defaults",
    "timm_int8_open": "the same, as converted: any batch",
    "ours_fp32": "ours through OpenVINO, float32",
    "ours_int8": "ours through OpenVINO, int8",
    "ours_int8_nhwc": "ours folded alone, int8",
    "ours_ort_int8": "ours through ONNX Runtime, int8",
}


def main() -> None:
    """Make all, measure in turn, write one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--also", choices=("nhwc", "onnxruntime"), nargs="*", default=[])
    parser.add_argument("--run", type=Path, help="a trained run: what int8 costs it")
    parser.add_argument("--data", type=Path, help="its images")
    parser.add_argument(
        "--to", choices=("openvino", "onnx"), default="openvino", help="the form that --run is put into"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    nncf.set_log_level(logging.ERROR)
    row = accuracy(args) if args.run else speed(args)
    row |= {"threads": torch.get_num_threads(), "processor": processor(), "torch": torch.__version__}
    row |= {"openvino": openvino.__version__, "nncf": nncf.__version__, "timm": timm.__version__}
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


def speed(args: argparse.Namespace) -> dict[str, object]:
    """Images per second of every contestant, and ratios to timm's int8 of the same round."""
    theirs, ours = pair(args.model)
    images = calibration(args.size)
    x = np.concatenate(calibration(args.size, args.batch, seed=1))
    with tempfile.TemporaryDirectory() as folder:
        runs = contestants(theirs, ours, images, args, Path(folder))
        print("measuring", file=sys.stderr, flush=True)
        answers = {name: run(x) for name, run in runs.items()}
        with torch.inference_mode():
            exact = theirs(torch.from_numpy(x)).numpy()
        calls: dict[str, Callable[[], object]] = {name: lambda run=run: run(x) for name, run in runs.items()}  # type: ignore[misc]
        times = int8.in_turn(calls, rounds=args.rounds)
    rates = {name: args.batch / statistics.median(found) for name, found in times.items()}
    for name, rate in rates.items():
        faster = int8.ratio(times["timm_int8"], times[name])
        error = np.abs(answers[name] - exact).max() / np.abs(exact).max()
        text = f"{LABELS[name]:<42} {rate:7.1f} images/s, {faster:5.2f} times timm_int8, largest error {error:.1e}"
        print(text, file=sys.stderr)
    return {
        "model": args.model,
        "batch": args.batch,
        "size_px": args.size,
        "rounds": args.rounds,
        "images_per_s": {name: round(rate, 2) for name, rate in rates.items()},
        "times_timm_int8": {name: round(int8.ratio(times["timm_int8"], times[name]), 3) for name in times},
        "times_timm_int8_open": {name: round(int8.ratio(times["timm_int8_open"], times[name]), 3) for name in times},
        "times_timm_fp32": {name: round(int8.ratio(times["timm_fp32"], times[name]), 3) for name in times},
    }


def contestants(
    theirs: nn.Module, ours: nn.Module, images: list[Pixels], args: argparse.Namespace, folder: Path
) -> dict[str, Network]:
    """Each as a function from images to logits."""
    their_graph = openvino.convert_model(
        torch.export.export(theirs, (torch.zeros(2, 3, args.size, args.size),), **any_batch())
    )
    found = {"timm_fp32": compiled(their_graph, exact=True)}
    default = nncf.quantize(their_graph, nncf.Dataset(images), subset_size=len(images))
    found["timm_int8"] = compiled(default, exact=False)
    found["timm_int8_open"] = as_converted(default)
    shown = torch.zeros(2, 3, args.size, args.size)
    our_graph = openvino_files.to_openvino(traced(graph.prepared(ours, convolutions=True), shown))
    found["ours_fp32"] = compiled(our_graph, exact=True)
    found["ours_int8"] = compiled(openvino_files.quantized(our_graph, images, "int8"), exact=False)
    plain = traced(graph.prepared(ours, convolutions=False), shown) if args.also else None
    if "nhwc" in args.also:
        found["ours_int8_nhwc"] = compiled(
            openvino_files.quantized(openvino_files.to_openvino(plain), images, "int8"),
            exact=False,
        )
    if "onnxruntime" in args.also:
        found["ours_ort_int8"] = onnxruntime_int8(plain, images, folder)
    return found


def compiled(model: openvino.Model, *, exact: bool) -> Network:
    """As the package runs it, on torch's threads."""
    for places, name in ((model.inputs, table.INPUT), (model.outputs, table.LOGITS)):
        places[0].get_tensor().set_names({name})
    run = openvino_run(model, exact=exact, threads=torch.get_num_threads())
    return lambda x: run(x, (table.LOGITS,))[0]


def as_converted(model: openvino.Model) -> Network:
    """Without what `openvino_run` adds, a graph for each shape: as most people run it."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with signal_stack.kept():
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda x: request.infer([x])[0].copy()


def traced(network: nn.Module, x: torch.Tensor) -> torch.export.ExportedProgram:
    """The network alone, for any number of images."""
    return graph.trace(network, x, free={0: graph.BATCH})


def any_batch() -> dict[str, object]:
    """As `graph.trace` leaves the number of images open."""
    return {"dynamic_shapes": ({0: torch.export.Dim("batch", min=1, max=2**16)},)}


def onnxruntime_int8(program: torch.export.ExportedProgram, images: list[Pixels], folder: Path) -> Network:
    """Ours under ONNX Runtime."""
    import onnxruntime

    whole, small = folder / "whole.onnx", folder / "small.onnx"
    whole.write_bytes(onnx_files.to_onnx(program).SerializeToString())
    onnx_files.quantized(whole, small, images, "int8")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(small), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {table.INPUT: x})[0]


def accuracy(args: argparse.Namespace) -> dict[str, object]:
    """What int8 costs `args.run` on the held-out images of `args.data`, by the package's own command."""
    if not args.data:
        raise SystemExit("--run needs --data")
    suffixes = {form.name: form.suffix for form in table.FORMS}
    with tempfile.TemporaryDirectory() as folder:
        done = export(
            args.run, args.to, Path(folder) / f"model{suffixes[args.to]}", Options(int8=str(args.data), max_loss=100)
        )
        described = open_exported(done.out).description
        print("\n".join(done.lines()), file=sys.stderr)
        return {
            "run": args.run.name,
            "model": described["recipe"]["model"]["name"],
            "to": args.to,
            **done.figures["int8"],
        }


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """timm's network and ours with the same weights, which look trained: gamma is not near zero."""
    torch.manual_seed(0)
    theirs = timm.create_model(f"convnext_{name}").eval()
    with torch.no_grad():
        for parameter_name, parameter in theirs.named_parameters():
            if parameter_name.endswith("gamma"):
                parameter.normal_(0.3, 0.1)
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(theirs.state_dict(), file.name)
        return theirs, convnext.create(name, weights=file.name, info=lambda _: None).eval()


def calibration(size_px: int, count: int = CALIBRATION, seed: int = 0) -> list[Pixels]:
    """(1, 3, H, W) normalised images: coarse noise with some fine."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 28, 28, generator=generator)
    x = nn.functional.interpolate(coarse, (size_px, size_px), mode="bicubic")
    x = x + 0.3 * torch.randn(x.shape, generator=generator)
    return [image[None].numpy() for image in x]


if __name__ == "__main__":
    main()
