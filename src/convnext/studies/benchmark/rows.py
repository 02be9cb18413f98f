"""From turns to rows: rates, latencies, memory, ratios turn by turn, and shares of what the machine can do."""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

import numpy as np
import torch

from convnext.engine.environment import environment
from convnext.models.profile import measure as count
from convnext.studies.benchmark.child import Turn
from convnext.studies.benchmark.jobs import LIMITS, REFERENCES, Job, Settings
from convnext.studies.benchmark.limits import COPIED_MB, fma_flops, gemm_flops, least_bytes
from convnext.studies.benchmark.run import Measured

LIBRARIES = ("timm", "torchvision", "transformers", "onnx", "onnxruntime", "openvino")


def rows_of(measured: Measured) -> list[dict[str, Any]]:
    """A row {"kind": "machine"} and a row {"kind": "contender"} for each contender and batch that has whole rounds.

    `ratio` is the rate over that of `reference` in the same round: the median, and the lowest and highest of the rounds.
    """
    settings = measured.settings
    rows = [_machine(measured)]
    for batch in sorted(settings.batches):
        limits = {name: _rates(measured.turns.get((name, batch), []), 1) for name in LIMITS}
        reference = reference_of(measured, batch)
        for job in measured.jobs:
            turns = measured.turns.get((job.name, batch), [])
            if turns and job.origin != "limit":
                rows.append(_row(job, batch, turns, reference, measured, limits))
    return rows


def reference_of(measured: Measured, batch: int) -> str:
    """The contender that the others are compared with: our fastest form, else the first that ran."""
    there = [job.name for job in measured.jobs if job.origin != "limit" and measured.turns.get((job.name, batch))]
    return next((name for name in REFERENCES if name in there), there[0] if there else "")


def verdict(rows: Sequence[dict[str, Any]], batch: int) -> dict[str, Any] | None:
    """Ours against the best peer or engine of a batch: {"peer", "ratio", "ratio_low", "ratio_high"}; None without both."""
    here = [row for row in rows if row["kind"] == "contender" and row["batch"] == batch]
    ours = next((row for row in here if row["name"] == row["reference"] and row["origin"] == "ours"), None)
    peers = [row for row in here if row["origin"] in ("peer", "engine")]
    if ours is None or not peers:
        return None
    best = max(peers, key=lambda row: row["images_per_s"])
    pairs = [a / b for a, b in zip(ours["rates"], best["rates"], strict=False)]
    return {"ours": ours["name"], "peer": best["name"], **_spread(pairs)}


def _machine(measured: Measured) -> dict[str, Any]:
    settings = measured.settings
    facts = environment(torch.device(settings.device))
    known = {name: found for name in LIBRARIES if (found := _version(name))}
    return {
        "kind": "machine",
        "mode": settings.mode,
        "model": settings.config.name,
        "dtype": settings.dtype,
        "threads": settings.threads,
        "gemm_gflops": {
            str(batch): round(median(rates) * gemm_flops(settings, batch) / 1e9, 1)
            for batch in settings.batches
            if (rates := _rates(measured.turns.get(("gemm", batch), []), 1))
        },
        "fma_gflops": _whole(measured, "fma", lambda: fma_flops(settings)),
        "copy_gb_s": _whole(measured, "copy", lambda: 2 * COPIED_MB * 2**20),
        "failed": measured.failed,
        "stopped": measured.stopped,
        **facts,
        **known,
    }


def _whole(measured: Measured, limit: str, work: Callable[[], float]) -> float | None:
    """Thousand millions a second of a limit that is the same at every batch; `work`: of a call."""
    rates = [rate for batch in measured.settings.batches for rate in _rates(measured.turns.get((limit, batch), []), 1)]
    return round(median(rates) * work() / 1e9, 2) if rates else None


def _row(
    job: Job, batch: int, turns: Sequence[Turn], reference: str, measured: Measured, limits: dict[str, list[float]]
) -> dict[str, Any]:
    settings = job.settings
    calls = np.array([value for turn in turns for value in turn.seconds])
    rates, others = _rates(turns, batch), _rates(measured.turns[reference, batch], batch)
    p50, p90, p99 = (1000 * float(value) for value in np.percentile(calls, (50, 90, 99)))
    return {
        "kind": "contender",
        "name": job.name,
        "origin": job.origin,
        "library": job.library,
        "form": job.form,
        "mode": settings.mode,
        "model": job.network or settings.config.name,
        "batch": batch,
        "size_px": settings.size_px,
        "dtype": settings.dtype,
        "device": settings.device,
        "threads": settings.threads,
        "rounds": len(turns),
        "calls": len(calls),
        "images_per_s": round(median(rates), 3),
        "latency_ms": round(p50, 3),
        "latency_p90_ms": round(p90, 3),
        "latency_p99_ms": round(p99, 3),
        "peak_mb": round(max(turn.peak_mb for turn in turns), 1),
        "reference": reference,
        **_spread([a / b for a, b in zip(rates, others, strict=False)]),
        **_shares(job, batch, rates, limits),
        "rates": [round(rate, 3) for rate in rates],
    }


def _shares(job: Job, batch: int, rates: list[float], limits: dict[str, list[float]]) -> dict[str, float | None]:
    """Of the machine's rates of matmuls and of multiply-adds, and of its copying, were every map read and written once."""
    settings = job.settings
    shares: dict[str, float | None] = {"gemm_share": None, "fma_share": None, "copy_share": None}
    if job.origin == "other":
        return shares
    flops = 2 * count(settings.config, settings.size_px)[1] * (3 if settings.mode == "training" else 1)
    works = {"gemm": lambda: gemm_flops(settings, batch), "fma": lambda: fma_flops(settings)}
    for name, work in works.items():
        if limits[name]:
            machine = [rate * work() for rate in limits[name]]
            shares[f"{name}_share"] = round(median(a * flops / b for a, b in zip(rates, machine, strict=False)), 4)
    if limits["copy"] and settings.mode == "inference":
        moved = least_bytes(settings, batch) / batch
        machine = [rate * 2 * COPIED_MB * 2**20 for rate in limits["copy"]]
        shares["copy_share"] = round(median(a * moved / b for a, b in zip(rates, machine, strict=False)), 4)
    return shares


def _rates(turns: Sequence[Turn], images: int) -> list[float]:
    """Images per second of each turn: its calls over their sum."""
    return [images * len(turn.seconds) / sum(turn.seconds) for turn in turns]


def _spread(ratios: Sequence[float]) -> dict[str, float]:
    return {
        "ratio": round(median(ratios), 4),
        "ratio_low": round(min(ratios), 4),
        "ratio_high": round(max(ratios), 4),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def settings_text(settings: Settings) -> str:
    """'tiny, inference, 224 px, fp32, cpu, 2 threads'."""
    threads = f"{settings.threads} thread{'' if settings.threads == 1 else 's'}"
    what = settings.config.name if settings.task == "classification" else f"{settings.config.name}, {settings.task}"
    return f"{what}, {settings.mode}, {settings.size_px} px, {settings.dtype}, {settings.device}, {threads}"
