"""`convnext benchmark`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from convnext.cli.options import count, device_flag, json_flag, refuse_more
from convnext.cli.printing import show, show_json
from convnext.errors import ConvNeXtError
from convnext.files import to_json, write_bytes

HELP = (
    "Measure this network here, beside other libraries and the machine's own limits, in turn; or whole detectors and "
    "segmenters on it, beside other backbones and the paper's figures."
)
TASKS = ("classification", "detection", "segmentation")


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    task = "what is timed: a classifier; Mask R-CNN and Cascade Mask R-CNN; or UperNet (classification)"
    parser.add_argument("--task", choices=TASKS, default=TASKS[0], help=task)
    parser.add_argument("--model", default="tiny", help="a ConvNeXt, as `convnext models` lists them (tiny)")
    parser.add_argument("--batch", metavar="N,...", help="images per call (1,8; of detectors and segmenters 1)")
    text = (
        "height and width in pixels (224); of detection the shorter side (800 of 1280), of segmentation (512 of 2048)"
    )
    parser.add_argument("--size", type=count, help=text)
    parser.add_argument(
        "--mode",
        choices=("inference", "training"),
        default="inference",
        help="a forward pass, or a whole training step (inference)",
    )
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16"), default="fp32", help="numbers that it is computed in (fp32)"
    )
    parser.add_argument("--backends", metavar="NAME,...", help="forms of this network: eager, optimized, compiled, ...")
    parser.add_argument("--peers", metavar="NAME,...", help="timm, torchvision, transformers; also timm:compiled, ...")
    text = (
        "other networks to compare with: swin_tiny,resnet50 (none; these two as backbones of detectors and segmenters)"
    )
    parser.add_argument("--others", metavar="NAME,...", help=text)
    parser.add_argument("--rounds", type=count, default=5, help="turns of each contender at each batch (5)")
    parser.add_argument("--seconds", type=_seconds, default=1.0, help="length of a turn (1)")
    parser.add_argument("--threads", type=count, default=0, help="CPU threads for every contender (torch's default)")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="append every result as a line of JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="write a chart")
    device_flag(parser)
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Measure, print, write."""
    refuse_more(args, rest)
    given = args.batch if args.batch is not None else "1,8" if args.task == "classification" else "1"
    batches = tuple(sorted({_batch(name) for name in _names(given)}))
    if not batches:
        raise ConvNeXtError(f"--batch '{args.batch}' names no number of images. An example is --batch 1,8.")
    _refuse_file(args.plot, "--plot", ".svg")
    _refuse_file(args.out, "--out", ".jsonl")
    whole = args.task != "classification"
    for flag in ("backends", "peers") if whole else ():
        if getattr(args, flag) is not None:
            raise ConvNeXtError(
                f"--{flag} is for classifiers. With --task {args.task} name other backbones by --others."
            )
    if whole and args.mode == "training":
        raise ConvNeXtError(
            f"--mode training is for classifiers: with --task {args.task} inference is measured. Leave it out."
        )
    from convnext.engine.records import Meter, info
    from convnext.studies.benchmark.run import expected_s, measure

    settings, jobs = _asked(args, batches)
    minutes = max(1, round(expected_s(jobs, args.rounds, args.seconds) / 60))
    contenders = sum(job.origin != "limit" for job in jobs)
    about = "at least" if whole else "about"
    info(
        f"{contenders} contenders, {args.rounds} rounds: {about} {minutes} min. Ctrl-C keeps the rounds that are whole."
    )
    meter: list[Meter] = []

    def advance(note: str, done: int, total: int) -> None:
        if not meter:
            meter.append(Meter(total, 0, label="turn"))
        meter[0].advance(note, done)

    measured = measure(jobs, rounds=args.rounds, seconds=args.seconds, info=info, advance=advance)
    for each in meter:
        each.close()
    rows = _rows(measured)
    _write(args, rows, settings)
    _print(args, rows, settings)
    if measured.stopped:
        info("Stopped: the rounds that were whole are counted.")
    return 130 if measured.stopped else 0


def _asked(args: argparse.Namespace, batches: tuple[int, ...]) -> tuple[Any, Any]:
    """The settings and the contenders."""
    from convnext.engine.distributed import choose_device
    from convnext.studies.benchmark import whole
    from convnext.studies.benchmark.jobs import Settings, jobs_of, network_of

    settings = Settings(
        config=network_of(args.model),
        batches=batches,
        size_px=args.size or whole.SIZES_PX.get(args.task, 224),
        task=args.task,
        mode=args.mode,
        dtype=args.dtype,
        device=str(choose_device(args.device)),
        threads=args.threads or _threads(),
    )
    others = None if args.others is None else _names(args.others)
    if args.task != "classification":
        return settings, whole.jobs_of(settings, whole.OTHERS if others is None else others)
    backends, peers = (None if names is None else _names(names) for names in (args.backends, args.peers))
    return settings, jobs_of(settings, backends, peers, others or ())


def _rows(measured: Any) -> list[dict[str, Any]]:
    from convnext.studies.benchmark import whole
    from convnext.studies.benchmark.rows import rows_of

    rows = rows_of(measured)
    return rows if measured.settings.task == "classification" else whole.with_printed(rows, measured.settings)


def _print(args: argparse.Namespace, rows: list[dict[str, Any]], settings: Any) -> None:
    from rich.console import Console

    from convnext.studies.benchmark import whole
    from convnext.studies.benchmark.rows import settings_text, verdict
    from convnext.studies.benchmark.text import limits_text, tables

    if args.json:
        show_json(rows)
        return
    if len(rows) == 1:
        return
    show(f"{settings_text(settings)}\n")
    if settings.task != "classification":
        show(whole.tables(rows))
        return
    if sys.stdout.isatty():
        tables(rows, Console())
    else:
        show(tables(rows) + "\n")
    for batch in settings.batches:
        best = verdict(rows, batch)
        if best:
            spread = f"{best['ratio_low']:.2f} to {best['ratio_high']:.2f} over the rounds"
            show(
                f"Batch {batch}: {best['ours']} is {best['ratio']:.2f} times {best['peer']}, the best of the rest ({spread})."
            )
    show(limits_text(rows[0]))


def _write(args: argparse.Namespace, rows: list[dict[str, Any]], settings: Any) -> None:
    from convnext.studies.benchmark.chart import chart

    place = args.out
    try:
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with args.out.open("a", encoding="utf-8") as file:
                file.writelines(to_json(row) + "\n" for row in rows)
        if args.plot and len(rows) > 1:
            place = args.plot
            title = (
                f"{rows[0]['model']}, {rows[0]['mode']}, {settings.size_px} px, {args.dtype}, {rows[0]['device_name']}"
            )
            write_bytes(args.plot, f"{chart(rows, title)}\n".encode())
    except OSError as error:
        raise ConvNeXtError(f"'{place}' cannot be written: {error.strerror}.") from None


def _refuse_file(path: Path | None, flag: str, suffix: str) -> None:
    if path is not None and path.suffix.lower() != suffix:
        raise ConvNeXtError(f"{flag} '{path}' ends in '{path.suffix}': this file is written as {suffix}.")
    if path is not None and path.is_dir():
        raise ConvNeXtError(f"{flag} '{path}' is a folder. Name a file in it.")


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _batch(name: str) -> int:
    if not name.isdecimal() or int(name) < 1:
        raise ConvNeXtError(f"--batch: '{name}' is not a whole number of 1 or more. An example is --batch 1,8.")
    return int(name)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds, up to 600")
    return value
