"""Inference as on a processor with AVX2 and no AVX-512, as most laptops have: our kernels and the others, all capped alike.

    python benchmarks/laptop.py [tiny] [atto] [--batch 1 8] [--threads 1] [--rounds 9] [--seconds 0.5] [--clock cpu]

CPUID answers this process without AVX-512, AVX-VNNI and AMX (avx2_only.c, which is compiled and preloaded): no contender's own
switch is trusted. That the cap acts is looked at first: what torch says that it computes with, what a compiler defines for this
machine, and the primitives of the network that OpenVINO made. ONNX Runtime asks CPUID too, and says nothing of its answer. Our
kernels read /proc/cpuinfo instead, and are told by CONVNEXT_KERNELS=avx2. All run in one process, float32, in turn (A B A B); a
figure is the median over the rounds of ratios within a round. With --clock cpu a call's time is the processor's, of all its
threads: for one thread on a machine that others use too. A line of results/laptop.jsonl for each model and batch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from convnext.engine.environment import environment
from convnext.kernels import cpu
from convnext.models.profile import measure as count
from convnext.studies.benchmark import engines, networks
from convnext.studies.benchmark.jobs import Job, Settings, jobs_of, network_of

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "laptop.jsonl"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CAPPED = "CONVNEXT_CAPPED"  # set in the process that has the cap
OURS = "optimized"


def main() -> int:
    """This script once more under the cap, where it measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["tiny", "atto"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="cpu")
    parser.add_argument("--engines", nargs="+", default=["openvino", "onnxruntime"])
    parser.add_argument("--peers", nargs="+", default=["timm:channels_last"])
    args = parser.parse_args()
    if CAPPED not in os.environ:
        return under_the_cap()
    torch.set_num_threads(args.threads)
    for model in args.models:
        for batch in args.batch:
            row = measured(model, batch, args)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps({key: row[key] for key in ("model", "batch", "ms", "ours to it", "rate_share")}))
    return 0


def under_the_cap() -> int:
    """Compile the cap and start again with it; the status."""
    with tempfile.TemporaryDirectory() as folder:
        cap = Path(folder) / "avx2_only.so"
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", str(HERE / "avx2_only.c"), "-o", str(cap)], check=True)
        values = {**os.environ, "LD_PRELOAD": str(cap), "CONVNEXT_KERNELS": "avx2", CAPPED: "1"}
        done = subprocess.run([sys.executable, *sys.argv], env=values, check=False)
    if done.returncode == 86:
        print("laptop.py: this processor, or its system, does not let CPUID fault.", file=sys.stderr)
    return done.returncode


def measured(model: str, batch: int, args: argparse.Namespace) -> dict[str, object]:
    """One line."""
    settings = Settings(network_of(model), (batch,), threads=args.threads)
    jobs = [job for job in jobs_of(settings, [OURS, *args.engines], args.peers) if job.origin != "limit"]
    with tempfile.TemporaryDirectory() as folder:
        engines.export(settings, folder)
        calls = {job.name: prepared(job, folder)(batch) for job in jobs}
        proof = seen(settings, folder)
    clock, times = CLOCKS[args.clock], dict[str, list[float]]()
    shares = []
    for turn in range(-1, args.rounds):  # the first wakes caches up
        for name in calls if turn % 2 else reversed(calls):
            took = turned(calls[name], clock, args.seconds)
            if turn >= 0:
                times.setdefault(name, []).append(took)
        if turn >= 0:
            flops = 2 * batch * count(settings.config, settings.size_px)[1]
            shares.append(flops / times[OURS][-1] / 1e9 / cpu.matmul_rate())
    ratios = {name: [b / a for a, b in zip(times[OURS], took, strict=True)] for name, took in times.items()}
    return {
        "model": model,
        "batch": batch,
        "clock": args.clock,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "ms": {name: round(1e3 * statistics.median(took), 2) for name, took in times.items()},
        "ours to it": {
            name: [round(value, 3) for value in (statistics.median(each), min(each), max(each))]
            for name, each in ratios.items()
            if name != OURS
        },
        "rate_share": round(statistics.median(shares), 3),
        "cap": proof,
        "load": [round(value, 1) for value in os.getloadavg()],
        **environment(torch.device("cpu")),
    }


def prepared(job: Job, folder: str) -> Callable[[int], networks.Call]:
    """batch -> the contender's call."""
    if job.origin == "engine":
        return {"onnxruntime": engines.onnxruntime, "openvino": engines.openvino}[job.library](job, folder)
    return networks.inference(job, networks.network(job))


def turned(call: networks.Call, clock: Callable[[], float], seconds: float) -> float:
    """The median time of the calls of a turn."""
    took: list[float] = []
    while len(took) < 2 or sum(took) < seconds:
        start = clock()
        call()
        took.append(clock() - start)
    return statistics.median(took)


def seen(settings: Settings, folder: str) -> dict[str, object]:
    """What this process and its children compute with; ends where that is more than AVX2."""
    import openvino

    model = openvino.Core().read_model(f"{folder}/{engines.FILE}")
    model.reshape([settings.batches[0], settings.config.in_channels, settings.size_px, settings.size_px])
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = {str(each.get_rt_info()["primitiveType"].value) for each in compiled.get_runtime_model().get_ops()}
    told = subprocess.run(
        ["g++", "-march=native", "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True, check=True
    )
    wider = [line.split()[1] for line in told.stdout.splitlines() if "AVX512" in line or "AVXVNNI" in line]
    found = {
        "torch": torch.backends.cpu.get_cpu_capability(),
        "g++ -march=native": wider,
        "openvino": sorted(kinds),
        "kernels": cpu.origin(),
    }
    if found["torch"] != "AVX2" or wider or "512" in " ".join(kinds) or "avx2" not in cpu.origin():
        raise SystemExit(f"laptop.py: the cap does not act: {found}")
    return found


if __name__ == "__main__":
    sys.exit(main())
