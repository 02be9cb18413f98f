"""The steps of gpu.py that run whole networks: inference and training steps, ours against others in turn."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from convnext.engine.precision import capability_of, float32_of
from convnext.errors import ConvNeXtError
from convnext.kernels import dispatch, gpu
from convnext.kernels.graphs import graphed
from convnext.models.convnext import Block
from convnext.models.create import create
from convnext.models.fused import fuse, unfuse, weights_of
from gpu_timing import DEVICE, DRY, HALF, Row, attempt, failed, frozen, limits, milliseconds, peak, wait, warm

BATCH = {"inference": 256, "training": 128}
SWEEP = (1, 8, 32, 128, 512)
SWEPT = ("fused+graph", "fused+compile+graph", "fused+compile", "timm+compile+graph", "timm+compile", "swin+compile")
SWIN = {"tiny": ("swin_t", 0.2), "base": ("swin_b", 0.5)}  # and the stochastic depth that torchvision builds it with
CONTESTANTS = {  # what matters most first: a short visit to a GPU may end before the last
    "inference": ("fused", "timm+compile", "fused+compile", "fused+graph", "swin+compile", "timm", "swin", "plain",
                  "plain+tf32", "swin+tf32", "torchvision+compile", "plain+compile", "fp8+compile"),
    "training": ("fused", "timm+compile", "fused+compile", "swin+compile", "timm", "swin", "plain",
                 "torchvision+compile", "plain+compile"),
}  # fmt: skip
PAIR = ("plain+tf32", "swin+tf32")  # what the paper compares in its table 12: eager, float32 with TF32 in matmuls
RATE = 0.1  # stochastic depth of every network in training
if DRY:
    dispatch.on_gpu = lambda device: True  # the interpreter's tensors lie on the CPU


def swap(model: nn.Module, family: str) -> nn.Module:
    """Run the blocks of `model`, where it lies and in its dtype, plain, 'fused' as its users do, or in 'fp8'."""
    unfuse(model)
    if family == "fused" and not fuse(model, triton=True):
        raise ConvNeXtError(
            f"the Triton blocks do not run: {dispatch.without_kernels(torch.device(DEVICE), asked=True)}"
        )
    for each in model.modules() if family == "fp8" else ():
        if isinstance(each, Block):
            prepared = gpu.prepare(weights_of(each))
            each.kernels = lambda block, x, prepared=prepared: gpu.block_fp8(x, prepared)
    return model


def network(name: str, model: str, training: bool) -> nn.Module:
    """A contestant's network, channels-last; its weights in the dtype of `dtype_of`; training is under autocast."""
    family, rate = name.split("+")[0], RATE if training else 0.0
    torch.manual_seed(0)
    if family == "timm":
        import timm

        made = timm.create_model("convnext_atto" if DRY else f"convnext_{model}", drop_path_rate=rate)
    elif family == "torchvision":
        made = getattr(torchvision.models, f"convnext_{model}")(stochastic_depth_prob=rate)
    elif family == "swin":
        made = getattr(torchvision.models, SWIN[model][0])()
        for each in made.modules():
            if isinstance(each, torchvision.ops.StochasticDepth):
                each.p *= rate / SWIN[model][1]
    else:
        small = {"depths": (1, 1), "widths": (16, 24), "kernel": 3} if DRY else {}
        made = create("atto" if DRY else model, drop_path=rate, **small)
    made = made.to(DEVICE, dtype_of(name, training)).to(memory_format=torch.channels_last)
    swap(made, family)
    made.train(training)
    if "compile" in name or "autotune" in name:
        mode = {"mode": "max-autotune"} if "autotune" in name else {}
        made.compile(**({"backend": "eager"} if DRY else {"dynamic": False, **mode}))
    return made


def dtype_of(name: str, training: bool) -> torch.dtype:
    """Of a contestant's weights and images."""
    return torch.float32 if training or "tf32" in name else HALF


def contestant(name: str, model: str, training: bool, batch: int) -> Callable[[], Any]:
    """One step of it: a forward without gradients, or forward, loss, backward and AdamW."""
    made = network(name, model, training)
    side = 32 if DRY else 224
    x = torch.randn(batch, 3, side, side, device=DEVICE, dtype=dtype_of(name, training))
    x = x.contiguous(memory_format=torch.channels_last)
    if not training:
        run = graphed(made, x) if "graph" in name else made
        if "tf32" not in name:
            return lambda: frozen(lambda: run(x))

        def in_tf32() -> Any:
            with float32_of("bf16", capability_of(torch.device(DEVICE))):
                return frozen(lambda: run(x))

        return in_tf32
    labels = torch.randint(0, 1000, (batch,), device=DEVICE)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def step() -> None:
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=not DRY):
            logits = made(x)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def networks(part: str, model: str, args: argparse.Namespace) -> Iterator[Row]:
    """Every contestant in turn, round by round, and ours against each peer of the same round."""
    training, batch = part == "training", 2 if DRY else BATCH[part]
    begin, names = time.monotonic(), [*CONTESTANTS[part], *(["timm+autotune"] if args.autotune else [])]
    if not training:
        yield from logits_error(model)
    rate, bandwidth = limits()
    yield {"kind": "limits", "what": f"{part} {model}", "tflops": rate / 1e12, "gb_per_s": bandwidth / 1e9}
    runs: dict[str, Callable[[], Any]] = {}
    for name in names:
        if name in args.without or (
            name.startswith("fp8") and gpu.unavailable_fp8(torch.empty(1, 8, 2, 2, device=DEVICE))
        ):
            continue
        if time.monotonic() - begin > 40 * args.minutes:  # two thirds of the step's time; the rest is for the rounds
            yield {"kind": "skipped", "what": f"{part} {model}: {name}"}
            continue
        made = attempt(name, lambda name=name: warm(contestant(name, model, training, batch)))
        if failed(made):
            yield made
            if made["fatal"]:
                return
            continue
        runs[name] = made
        first = 1e3 * batch / milliseconds(made)  # a figure at once, should the rounds not be reached
        yield {"kind": "ready", "what": f"{part} {model}: {name}", "after_s": time.monotonic() - begin,
               "images_per_s": first}  # fmt: skip
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            spent[name].append(milliseconds(run))
    for name, times in spent.items():
        yield {"kind": part, "what": name, "model": model, "batch": batch, "ms": times, "peak_mb": peak(runs[name]),
               "images_per_s": 1e3 * batch / statistics.median(times)}  # fmt: skip
    for ours in (name for name in spent if name.split("+")[0] in ("fused", "fp8")):
        for peer in (name for name in spent if name.split("+")[0] not in ("fused", "fp8")):
            yield ratio(f"{part} {model}: {ours} to {peer}", batch, spent[ours], spent[peer])
    if {*PAIR} <= {*spent}:
        yield ratio(f"{part} {model}: {' to '.join(PAIR)}", batch, *(spent[name] for name in PAIR))


def ratio(what: str, batch: int, ours: list[float], theirs: list[float]) -> Row:
    """How many times as many images a second, round by round."""
    found = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {"kind": "ratio", "what": what, "batch": batch,
            "ratio": statistics.median(found), "least": min(found), "most": max(found)}  # fmt: skip


def precompile(part: str, model: str, name: str, args: argparse.Namespace) -> Iterator[Row]:
    """Compile one contestant into the compiler's caches, from where the process that measures it takes it."""
    begin = time.monotonic()
    failure = attempt(name, lambda: warm(contestant(name, model, part == "training", 2 if DRY else BATCH[part])))
    yield failure if failed(failure) else {"kind": "compiled", "what": f"{part} {model}: {name}",
                                           "after_s": time.monotonic() - begin}  # fmt: skip


def logits_error(model: str) -> Iterator[Row]:
    """How far the fused network in bf16 is from float32, beside the plain one; layer scale 1, so that blocks matter."""
    small = {"depths": (1, 1), "widths": (16, 24), "kernel": 3} if DRY else {}
    plain = create("atto" if DRY else model, layer_scale=1.0, **small).to(DEVICE).eval()
    x = torch.randn(2, 3, 32 if DRY else 224, 32 if DRY else 224, device=DEVICE)
    wanted = frozen(lambda: plain(x))
    for name in ("plain", "fused", "fp8"):
        answer = attempt(name, lambda name=name: frozen(lambda: swap(plain.to(HALF), name)(x.to(HALF))))
        if failed(answer):
            yield answer
        else:
            yield {
                "kind": "logits",
                "what": f"{name} {model}",
                "error": float((answer - wanted).norm() / wanted.norm()),
            }


def sweep(model: str, args: argparse.Namespace) -> Iterator[Row]:
    """Inference at several batch sizes: images/s, and the time of one call from the host."""
    for batch in (1, 2) if DRY else SWEEP:
        for name in SWEPT:
            what = f"{name} at {batch}"
            if what in args.without or ("graph" in name and batch > 32):
                continue
            torch.compiler.reset()
            found = attempt(what, lambda name=name, batch=batch: timed(contestant(name, model, False, batch), batch))
            yield found if failed(found) else {"kind": "sweep", "what": name, "model": model, "batch": batch, **found}
            if found.get("fatal"):
                return


def timed(run: Callable[[], Any], batch: int) -> dict[str, float]:
    """Throughput on the GPU's clock and latency on the host's."""
    warm(run)
    spent, latencies = milliseconds(run), []
    for _ in range(3 if DRY else 50):
        begin = time.perf_counter()
        run()
        wait()
        latencies.append(1e3 * (time.perf_counter() - begin))
    ordered = sorted(latencies)
    return {"images_per_s": 1e3 * batch / spent, "latency_ms": statistics.median(ordered),
            "latency_p90_ms": ordered[int(0.9 * len(ordered))]}  # fmt: skip
